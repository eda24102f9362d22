// A shape for every state, on a square of 16: states are never told by colour alone.
export const SHAPES = {
  finished: "M3.5 8.500l3 3 6-7",
  running: "M5.5 3.500v9l7-4.500z",
  failed: "M4 4l8 8M12 4l-8 8",
  waiting: "M8 3.500a4.5 4.5 0 1 0 0.01 0z",
  cancelled: "M8 3a5 5 0 1 0 0.01 0zM4.7 11.300l6.6-6.6",
  aborted: "M8 3a5 5 0 1 0 0.01 0zM5.5 8h5",
  removed: "M3.5 8h9",
  unfinished: "M8 3.500a4.5 4.5 0 1 0 0.01 0z",
  open: "M5.5 3.500v9l7-4.500z",
  closed: "M3.5 8.500l3 3 6-7",
  error: "M4 4l8 8M12 4l-8 8",
  lost: "M9 2.500L5.5 8.500h5L7 13.5",
  detached: "M6 4v8M10 4v8",
  expired: "M8 3a5 5 0 1 0 0.01 0zM8 5.500V8l2 1.5",
  connected: "M3.5 8.500l3 3 6-7",
  draining: "M8 3v8M4.5 8L8 11.5 11.5 8",
};
