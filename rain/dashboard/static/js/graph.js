// The graph of a session: tasks as circles, objects as boxes, or groups of tasks when there are too many.
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { query, useApi } from "./api.js";
import { count, plural } from "./format.js";
import { useCanvas, usePointer, useWheel } from "./canvas.js";
import { GROUP, drawGraph, groupState, reach } from "./graphdraw.js";
import { layout, layoutTasks } from "./layout.js";
import { Empty, Problem, State, pending } from "./parts.js";
import { go, link, taskLink } from "./route.js";
import { colours, useColours } from "./theme.js";

const LIMIT = 2000;
const SPACE = {
  tasks: { row: 46, column: 96, gap: 60 },
  groups: { row: GROUP.height + 26, column: GROUP.width + 30, gap: 70 },
};

function shapeOf(graph) {
  return `${graph.mode}|${graph.edges.length}|${graph.nodes.map((node) => node.id).join(" ")}`;
}

/** Places stay while the graph keeps its shape; of every node it is known when its state changed. */
function useScene(graph) {
  const kept = useRef({ shape: null, place: null, edges: null, graph: null, changed: [] });
  return useMemo(() => {
    const shape = shapeOf(graph);
    const old = kept.current;
    const same = old.shape === shape;
    const place = same ? old.place : (graph.mode === "groups" ? layout : layoutTasks)(graph.nodes, graph.edges, SPACE[graph.mode]);
    const edges = graph.edges.map(([from, to, n]) => [place.index.get(from), place.index.get(to), n, place.hubs.has(from)])
      .filter(([a, b]) => a !== undefined && b !== undefined && a !== b);
    const now = performance.now();
    const changed = graph.nodes.map((node, i) => {
      if (!same) return 0;
      return old.graph.nodes[i].state === node.state ? old.changed[i] : now;
    });
    kept.current = { shape, place, edges, graph, changed, room: SPACE[graph.mode].column - 6 };
    return kept.current;
  }, [graph]);
}

function toldNode(node) {
  if (node.kind === "group") {
    return { title: node.label || "(no name)", text: `${count(node.finished)} of ${plural(node.total, "task")} finished${node.failed ? `, ${count(node.failed)} failed` : ""}` };
  }
  const id = node.id.slice(1);
  const title = node.label || (node.kind === "task" ? node.type : `object ${id}`);
  return { title, text: `${node.kind} ${id}, ${[node.type !== title && node.type, node.state].filter(Boolean).join(", ")}` };
}

function target(session, node) {
  if (node.kind === "task") return taskLink(session, node.id.slice(1));
  if (node.kind === "group") return link(["sessions", session, "tasks"], { group: node.id.slice(2) });
  return null;
}

export function GraphView({ session }) {
  const answer = useApi(`sessions/${session}/graph${query({ limit: LIMIT })}`);
  const wait = pending(answer);
  if (wait) return wait;
  const graph = answer.data;
  if (graph.nodes.length === 0) return html`<${Empty} title="No graph yet">Tasks appear here after <code>session.submit()</code>.<//>`;
  return html`${answer.error && html`<${Problem} error=${answer.error} />`}<${Picture} session=${session} graph=${graph} />`;
}

function fitting(place, width, height, mode) {
  const pad = mode === "groups" ? GROUP.width / 2 + 24 : 48;
  const scale = Math.min(1.4, width / (place.width + 2 * pad), height / (place.height + 2 * Math.min(pad, 60)));
  return { scale, x: (width - place.width * scale) / 2, y: (height - place.height * scale) / 2 };
}

function nodeAt({ graph, place }, camera, { x, y }) {
  const px = (x - camera.x) / camera.scale;
  const py = (y - camera.y) / camera.scale;
  const slack = Math.min(8, 3 / camera.scale);
  for (let i = graph.nodes.length - 1; i >= 0; i -= 1) {
    const size = reach(graph.nodes[i]);
    if (Math.abs(place.x[i] - px) <= size.x + slack && Math.abs(place.y[i] - py) <= size.y + slack) return i;
  }
  return null;
}

function Key({ graph }) {
  const states = new Set(graph.nodes.map((node) => (node.kind === "group" ? groupState(node) : node.kind === "task" ? node.state : null)).filter(Boolean));
  return html`<ul class="key" aria-label="Signs">
    ${graph.mode === "tasks" && html`<li><i class="key-task"></i>task</li>${graph.nodes.some((node) => node.kind === "object") && html`<li><i class="key-object"></i>data object</li>`}`}
    ${[...states].map((state) => html`<li key=${state}><${State} state=${state} /></li>`)}</ul>`;
}

function Picture({ session, graph }) {
  const scene = useScene(graph);
  const version = useColours();
  const palette = useMemo(colours, [version]);
  const camera = useRef(null);
  const fitted = useRef(true);
  const size = useRef({ width: 800, height: 500 });
  const [over, setOver] = useState(null);
  const [chosen, setChosen] = useState(null);
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const again = useRef(null);
  const [canvas, redraw] = useCanvas((context, width, height) => {
    const resized = size.current.width !== width || size.current.height !== height;
    size.current = { width, height };
    if (camera.current === null || (fitted.current && (resized || camera.current.shape !== scene.shape))) {
      camera.current = { ...fitting(scene.place, width, height, graph.mode), shape: scene.shape };
    }
    const near = over?.node ?? chosen;
    const moves = drawGraph(context, scene, camera.current, width, height, palette, near, calm ? null : performance.now());
    if (moves && !calm) {
      clearTimeout(again.current);
      again.current = setTimeout(redraw, 40);
    }
  });
  useEffect(() => () => clearTimeout(again.current), []);
  useEffect(() => {
    setOver(null);
    setChosen(null);
  }, [scene.shape]);

  /** The camera; before the first drawing, and after "All", that which fits. */
  const view = () => {
    const { width, height } = size.current;
    camera.current ??= { ...fitting(scene.place, width, height, graph.mode), shape: scene.shape };
    return camera.current;
  };
  const move = (dx, dy) => {
    fitted.current = false;
    const old = view();
    camera.current = { ...old, x: old.x + dx, y: old.y + dy };
    redraw();
  };
  const zoom = (factor, x = size.current.width / 2, y = size.current.height / 2) => {
    fitted.current = false;
    const old = view();
    const scale = Math.min(4, Math.max(0.01, old.scale * factor));
    const by = scale / old.scale;
    camera.current = { ...old, scale, x: x - (x - old.x) * by, y: y - (y - old.y) * by };
    redraw();
  };
  const all = () => {
    fitted.current = true;
    camera.current = null;
    redraw();
  };
  const choose = (step) => {
    const n = graph.nodes.length;
    const i = chosen === null ? (step > 0 ? 0 : n - 1) : (chosen + step + n) % n;
    setChosen(i);
    const { x, y, scale } = view();
    const px = scene.place.x[i] * scale + x;
    const py = scene.place.y[i] * scale + y;
    if (px < 40 || py < 40 || px > size.current.width - 40 || py > size.current.height - 40) move(size.current.width / 2 - px, size.current.height / 2 - py);
  };
  const open = (i) => {
    const address = target(session, graph.nodes[i]);
    if (address) go(address);
  };

  useWheel(canvas, ({ x, y, dx, dy, shift }) => (shift ? move(-(dx || dy), 0) : zoom(Math.exp(-dy * 0.0018), x, y)));
  const pointer = usePointer({
    drag: (dx, dy) => move(dx, dy),
    hover: (at) => {
      const node = at ? nodeAt(scene, view(), at) : null;
      if (node !== null || over !== null) setOver(node === null ? null : { node, at });
    },
    click: (at) => {
      const node = nodeAt(scene, view(), at);
      if (node === null) setOver(null);
      else if (at.touch || graph.nodes[node].kind === "object") setOver({ node, at });
      else open(node);
    },
  });
  const keys = (event) => {
    const acts = {
      "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: all,
      ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
      n: () => choose(1), p: () => choose(-1), Enter: () => chosen !== null && open(chosen), Escape: () => setChosen(null),
    };
    if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  };
  const tip = over && graph.nodes[over.node] ? toldNode(graph.nodes[over.node]) : null;
  const told = chosen !== null && graph.nodes[chosen] ? toldNode(graph.nodes[chosen]) : null;
  const tasks = graph.nodes.filter((node) => node.kind === "task").length;
  const what = graph.mode === "groups" ? plural(graph.nodes.length, "group") : `${plural(tasks, "task")}${tasks < graph.nodes.length ? `, ${plural(graph.nodes.length - tasks, "object")}` : ""}`;
  return html`<div class="tools">
      <div class="choice" role="group" aria-label="Zoom"><button type="button" onClick=${() => zoom(1.5)} aria-label="Zoom in">+</button>
        <button type="button" onClick=${() => zoom(1 / 1.5)} aria-label="Zoom out">\u2212</button><button type="button" onClick=${all}>All</button></div>
      <span>${what}</span>
      ${graph.mode === "groups" && html`<span class="muted">Too many tasks to show each: these are their groups by name.</span>`}
      <span class="muted wide">Wheel: zoom. Drag: move. Click: open.</span></div>
    <div class="card stage"><canvas ref=${canvas} class=${`graph${over ? " pointing" : ""}`} tabindex="0" role="img" onKeyDown=${keys} ...${pointer}
        aria-label=${`Graph: ${what}, ${plural(graph.edges.length, "edge")}. The same tasks are in the list of tasks.`}></canvas>
      ${tip && html`<div class="tip" style=${{ left: `${Math.min(over.at.x + 14, size.current.width - 260)}px`, top: `${Math.min(over.at.y + 16, size.current.height - 56)}px` }}>
        <b>${tip.title}</b><span>${tip.text}</span>${over.at.touch && target(session, graph.nodes[over.node]) && html`<button type="button" class="small" onClick=${() => open(over.node)}>Open</button>`}</div>`}</div>
    <p class="unseen" role="status">${told ? `${told.title}, ${told.text}` : ""}</p>
    ${told && html`<p class="selected" aria-hidden="true"><b>${told.title}</b> ${told.text} <span class="muted">(Enter opens)</span></p>`}
    <${Key} graph=${graph} />`;
}
