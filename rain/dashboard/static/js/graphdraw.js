// Drawing a graph on a canvas; what is too small to see is left out.
import { fitted } from "./canvas.js";
import { count, method } from "./format.js";
import { SHAPES } from "./shapes.js";

export const RADIUS = 11;
export const BOX = 7;
export const GROUP = { width: 190, height: 54 };

const GLYPHS = Object.fromEntries(Object.entries(SHAPES).map(([state, path]) => [state, new Path2D(path)]));
const FILLED = new Set(["finished", "running", "failed", "cancelled", "aborted"]);

export function groupState(node) {
  if (node.failed) return "failed";
  if (node.finished === node.total) return "finished";
  return node.running ? "running" : "waiting";
}

function toneOf(node) {
  const state = node.kind === "group" ? groupState(node) : node.state;
  return { unfinished: "waiting", removed: "finished" }[state] || state;
}

export function reach(node) {
  if (node.kind === "group") return { x: GROUP.width / 2, y: GROUP.height / 2 };
  const size = node.kind === "object" ? BOX : RADIUS;
  return { x: size, y: size };
}

function drawEdges(context, scene, view, colours, near) {
  const { graph, place } = scene;
  const groups = graph.mode === "groups";
  const path = (edges) => {
    context.beginPath();
    for (const [a, b] of edges) {
      const x1 = place.x[a] + reach(graph.nodes[a]).x;
      const x2 = place.x[b] - reach(graph.nodes[b]).x;
      const y1 = place.y[a];
      const y2 = place.y[b];
      if (Math.max(x1, x2) < view.left || Math.min(x1, x2) > view.right || Math.max(y1, y2) < view.top || Math.min(y1, y2) > view.bottom) continue;
      context.moveTo(x1, y1);
      if (view.scale < 0.25) context.lineTo(x2, y2);
      else {
        const bend = Math.max(14, Math.abs(x2 - x1) / 2);
        context.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
      }
    }
    context.stroke();
  };
  context.strokeStyle = colours.waiting;
  context.globalAlpha = near === null ? 0.5 : 0.18;
  if (groups) {
    for (const edge of scene.edges) {
      context.lineWidth = 1 + Math.min(5, Math.log10(edge[2] || 1) * 1.4);
      path([edge]);
    }
  } else {
    context.lineWidth = Math.max(1, 0.6 / view.scale);
    path(scene.edges.filter((edge) => !edge[3]));
  }
  context.globalAlpha = 1;
  if (near !== null) {
    context.strokeStyle = colours.accent;
    context.lineWidth = 2 / Math.min(1, view.scale);
    path(scene.edges.filter(([a, b]) => a === near || b === near));
  }
  if (groups && view.scale > 0.45) {
    context.fillStyle = colours.muted;
    context.textAlign = "center";
    for (const [a, b, n] of scene.edges) {
      if (n > 1) context.fillText(`\u00d7${count(n)}`, (place.x[a] + place.x[b]) / 2, (place.y[a] + place.y[b]) / 2 - 7);
    }
  }
}

function drawGroup(context, node, x, y, colours, isNear) {
  const { width, height } = GROUP;
  const left = x - width / 2;
  const top = y - height / 2;
  context.beginPath();
  context.roundRect(left, top, width, height, 8);
  context.fillStyle = colours.surface;
  context.fill();
  context.strokeStyle = isNear ? colours.accent : colours.line;
  context.lineWidth = isNear ? 2.5 : 1.5;
  context.stroke();
  context.textAlign = "left";
  context.fillStyle = colours.ink;
  context.font = `600 12px ${colours.font}`;
  context.fillText(fitted(context, node.label || node.type || "(no name)", width - 24), left + 12, top + 17);
  context.font = `11px ${colours.font}`;
  context.fillStyle = colours.muted;
  const told = `${count(node.finished)} / ${count(node.total)}${node.failed ? `, ${count(node.failed)} failed` : node.running ? `, ${count(node.running)} running` : ""}`;
  context.fillText(fitted(context, told, width - 24), left + 12, top + 33);
  let start = left + 12;
  const room = width - 24;
  context.fillStyle = colours.line;
  context.fillRect(start, top + height - 11, room, 4);
  for (const state of ["finished", "running", "failed"]) {
    const part = node.total ? (room * (node[state] || 0)) / node.total : 0;
    context.fillStyle = colours[state];
    context.fillRect(start, top + height - 11, part, 4);
    start += part;
  }
}

function drawSmall(context, node, x, y, view, colours, isNear, fade, pulse) {
  const tone = toneOf(node);
  const isTask = node.kind === "task";
  const size = isTask ? RADIUS : BOX;
  context.beginPath();
  if (isTask) context.arc(x, y, size, 0, 2 * Math.PI);
  else context.rect(x - size, y - size, 2 * size, 2 * size);
  const filled = FILLED.has(tone);
  context.fillStyle = colours.surface;
  context.fill();
  if (filled) {
    context.globalAlpha = (node.state === "removed" ? 0.35 : 1) * fade;
    context.fillStyle = colours[tone];
    context.fill();
    context.globalAlpha = 1;
  }
  context.strokeStyle = isNear ? colours.accent : colours[tone] || colours.waiting;
  context.lineWidth = isNear ? 3 : 1.5;
  if (node.state === "removed") context.setLineDash([2, 2]);
  context.stroke();
  context.setLineDash([]);
  if (pulse !== null && isTask && tone === "running") {
    context.beginPath();
    context.arc(x, y, size + 2 + 5 * pulse, 0, 2 * Math.PI);
    context.globalAlpha = 1 - pulse;
    context.stroke();
    context.globalAlpha = 1;
  }
  if (isTask && filled && view.scale > 0.55) {
    context.save();
    context.translate(x - 8, y - 8);
    context.strokeStyle = colours.surface;
    context.lineWidth = 1.8;
    context.stroke(GLYPHS[tone]);
    context.restore();
  }
}

/** Tasks have their label below, objects, which stand close together, above and short. */
function drawLabel(context, node, x, y, room, colours, scale) {
  if (node.kind === "task") {
    context.fillStyle = colours.ink;
    context.fillText(fitted(context, method(node.type) || node.label || node.type, room), x, y + RADIUS + 9);
  } else if (scale > 1.2 && node.label) {
    context.fillStyle = colours.muted;
    context.fillText(fitted(context, node.label, 50), x, y - BOX - 6);
  }
}

/**
 * scene: {graph, place, edges as positions (those of hubs are seen only with the pointer on them), changed: when each
 * node's state changed}. camera: {x, y, scale}: translation and zoom. near: position of the node with the
 * pointer or focus, or null. Returns whether it moves.
 */
export function drawGraph(context, scene, camera, width, height, colours, near, now) {
  const { graph, place } = scene;
  const { x: dx, y: dy, scale } = camera;
  const view = { scale, left: -dx / scale - 60, right: (width - dx) / scale + 60, top: -dy / scale - 40, bottom: (height - dy) / scale + 40 };
  context.save();
  context.translate(dx, dy);
  context.scale(scale, scale);
  context.font = `11px ${colours.font}`;
  context.textBaseline = "middle";
  drawEdges(context, scene, view, colours, near);
  let moves = false;
  const pulse = now === null ? null : (now % 1600) / 1600;
  context.textAlign = "center";
  graph.nodes.forEach((node, i) => {
    const x = place.x[i];
    const y = place.y[i];
    const far = reach(node).x + 60;
    if (x + far < view.left || x - far > view.right || y < view.top || y > view.bottom) return;
    if (node.kind === "group") {
      drawGroup(context, node, x, y, colours, i === near);
      return;
    }
    const age = now === null || scene.changed[i] === 0 ? 1 : Math.min(1, (now - scene.changed[i]) / 500);
    moves = moves || age < 1 || (node.kind === "task" && node.state === "running");
    drawSmall(context, node, x, y, view, colours, i === near, 0.25 + 0.75 * age, pulse);
  });
  if (graph.mode !== "groups" && scale > 0.7) {
    context.font = `10px ${colours.font}`;
    context.textAlign = "center";
    graph.nodes.forEach((node, i) => {
      const x = place.x[i];
      const y = place.y[i];
      if (x > view.left && x < view.right && y > view.top && y < view.bottom) drawLabel(context, node, x, y, scene.room, colours, scale);
    });
  }
  context.restore();
  return moves;
}
