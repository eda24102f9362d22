// A canvas that is sharp on every screen, and what graph and stream do alike with pointer and keys.
import { useEffect, useRef } from "./lib.js";

/**
 * Draws when asked, at most once per frame. draw(context, width, height) gets css pixels.
 * Returns refs of the canvas and of the function that asks for a drawing.
 */
export function useCanvas(draw) {
  const canvas = useRef(null);
  const drawing = useRef(draw);
  drawing.current = draw;
  const ask = useRef(null);
  if (ask.current === null) {
    let frame = 0;
    ask.current = () => {
      if (frame) return;
      frame = requestAnimationFrame(() => {
        frame = 0;
        const element = canvas.current;
        if (!element) return;
        const { clientWidth: width, clientHeight: height } = element;
        const ratio = window.devicePixelRatio || 1;
        if (element.width !== Math.round(width * ratio) || element.height !== Math.round(height * ratio)) {
          element.width = Math.round(width * ratio);
          element.height = Math.round(height * ratio);
        }
        const context = element.getContext("2d");
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.clearRect(0, 0, width, height);
        drawing.current(context, width, height);
      });
    };
  }
  useEffect(() => {
    const observer = new ResizeObserver(() => ask.current());
    observer.observe(canvas.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => ask.current());
  return [canvas, ask.current];
}

/** A wheel that does not scroll the page. */
export function useWheel(canvas, turned) {
  const handler = useRef(turned);
  handler.current = turned;
  useEffect(() => {
    const element = canvas.current;
    const wheel = (event) => {
      event.preventDefault();
      const box = element.getBoundingClientRect();
      const unit = event.deltaMode === 1 ? 16 : 1;
      handler.current({ x: event.clientX - box.left, y: event.clientY - box.top, dx: event.deltaX * unit, dy: event.deltaY * unit, shift: event.shiftKey });
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
}

/**
 * Handlers of a canvas: drag(dx, dy, at), hover(at or null), press(at), click(at), end(at).
 * A press that moves less than a few pixels is a click.
 */
export function usePointer({ press, drag, hover, click, end }) {
  const state = useRef(null);
  const place = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top, shift: event.shiftKey, touch: event.pointerType === "touch" };
  };
  return {
    onPointerDown: (event) => {
      if (event.button !== 0) return;
      event.currentTarget.setPointerCapture(event.pointerId);
      const at = place(event);
      state.current = { at, start: at, moved: false };
      if (press) press(at);
    },
    onPointerMove: (event) => {
      const at = place(event);
      const held = state.current;
      if (!held) {
        hover(at);
        return;
      }
      held.moved = held.moved || Math.hypot(at.x - held.start.x, at.y - held.start.y) > 4;
      if (held.moved) {
        hover(null);
        drag(at.x - held.at.x, at.y - held.at.y, at);
      }
      held.at = at;
    },
    onPointerUp: (event) => {
      const held = state.current;
      state.current = null;
      if (!held) return;
      const at = place(event);
      if (end) end(at, held.moved);
      if (!held.moved) click(at);
    },
    onPointerCancel: () => {
      state.current = null;
    },
    onPointerLeave: () => hover(null),
  };
}

/** Cuts a text to a width in pixels. */
export function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`${text.slice(0, middle)}\u2026`).width <= width) low = middle;
    else high = middle - 1;
  }
  return low ? `${text.slice(0, low)}\u2026` : "";
}
