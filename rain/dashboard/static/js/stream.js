// Who ran what when: the visible window is asked for, at the resolution of the screen.
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { ask, query, useConnection } from "./api.js";
import { clock, duration, plural } from "./format.js";
import { useCanvas, usePointer, useWheel } from "./canvas.js";
import { AXIS, barAt, drawStream, kindOf, rowsOf, swatch, toldBar } from "./streamdraw.js";
import { Empty, Loading, Problem } from "./parts.js";
import { go, taskLink } from "./route.js";
import { colours, useColours } from "./theme.js";

const NARROWEST = 1e-5;
const MOST = 560;

/**
 * The stream of a window; null: all of it, which then follows the log. Asks once the window rests, with a margin to
 * both sides, so that small moves show no gap.
 */
function useStream(session, window_, width) {
  const { tick } = useConnection();
  const [state, setState] = useState({ data: null, error: null });
  const flight = useRef(0);
  const key = window_ ? `${window_.from}|${window_.to}` : "all";
  useEffect(() => {
    const mine = (flight.current += 1);
    const timer = setTimeout(async () => {
      const margin = window_ ? (window_.to - window_.from) / 4 : 0;
      const span = window_ ? { from: window_.from - margin, to: window_.to + margin } : {};
      const path = session === null ? "stream" : `sessions/${session}/stream`;
      try {
        const data = await ask(`${path}${query({ ...span, width: Math.round(width * (window_ ? 1.5 : 1)) })}`);
        if (mine === flight.current) setState({ data, error: null });
      } catch (error) {
        if (mine === flight.current) setState((old) => ({ ...old, error }));
      }
    }, state.data ? 120 : 0);
    return () => clearTimeout(timer);
  }, [session, key, tick, width]);
  return state;
}

function target(session, bar) {
  if (bar[5] > 1) return null;
  const id = bar[3];
  if (Array.isArray(id)) return taskLink(id[0], id[1]);
  if (typeof id === "string" && id.includes("/")) return taskLink(...id.split("/"));
  return session === null ? null : taskLink(session, id);
}

function Legend({ data, version }) {
  const kinds = useMemo(() => {
    const sums = new Map();
    for (const row of data.rows) for (const slot of row.slots) for (const bar of slot) {
      const kind = kindOf(data.names[bar[2]] ?? "");
      sums.set(kind, (sums.get(kind) || 0) + bar[1] - bar[0]);
    }
    return [...sums].sort((a, b) => b[1] - a[1]).map(([kind]) => kind);
  }, [data]);
  const palette = useMemo(colours, [version]);
  const shown = kinds.slice(0, 8);
  return html`<ul class="key" aria-label="Colours">${shown.map((kind) => html`<li key=${kind}><i style=${{ background: swatch(kind, palette) }}></i>${kind || "(no name)"}</li>`)}
    ${kinds.length > shown.length && html`<li class="muted">and ${kinds.length - shown.length} more</li>`}
    <li><i class="key-running"></i>running</li><li><i class="key-failed"></i>failed</li></ul>`;
}

export function ClusterStreamPage() {
  return html`<h1>Stream</h1><${StreamView} session=${null} />`;
}

export function StreamView({ session }) {
  const [wanted, setWanted] = useState(null);
  const [width, setWidth] = useState(800);
  const { data, error } = useStream(session, wanted, width);
  if (!data) return error ? html`<${Problem} error=${error} />` : html`<${Loading} />`;
  if (!wanted && data.rows.length === 0) {
    return html`<${Empty} title="Nothing ran yet">Bars appear here when tasks start on workers.<//>`;
  }
  return html`${error && html`<${Problem} error=${error} />`}
    <${Timeline} session=${session} data=${data} wanted=${wanted} onWindow=${setWanted} onWidth=${setWidth} />`;
}

function nextBar(rows, chosen, step, view) {
  const bars = rows.filter((row) => row.bars && row.bars.length);
  if (bars.length === 0) return null;
  if (chosen === null) {
    const row = bars[0];
    const index = row.bars.findIndex((bar) => bar[1] >= view.from);
    return { row, index: Math.max(0, index) };
  }
  const at = Math.max(0, bars.findIndex((row) => row.y === chosen.row.y));
  const index = chosen.index + step;
  if (index >= 0 && index < bars[at].bars.length) return { row: bars[at], index };
  const row = bars[(at + step + bars.length) % bars.length];
  return { row, index: step > 0 ? 0 : row.bars.length - 1 };
}

/** A bar that was chosen, in newer data: its slot may be another one. */
function found(rows, chosen) {
  if (chosen === null) return null;
  const { row, index } = chosen;
  const task = String(row.bars[index][3]);
  for (const candidate of rows) {
    if (!candidate.bars || candidate.worker !== row.worker) continue;
    const place = candidate.bars.findIndex((bar) => String(bar[3]) === task);
    if (place >= 0) return { row: candidate, index: place };
  }
  return null;
}

function Timeline({ session, data, wanted, onWindow, onWidth }) {
  const version = useColours();
  const palette = useMemo(colours, [version]);
  const { rows, height: content } = useMemo(() => rowsOf(data), [data]);
  const [pointed, setPointed] = useState(null);
  const [picked, setChosen] = useState(null);
  const chosen = useMemo(() => found(rows, picked), [rows, picked]);
  const [span, setSpan] = useState(null);
  const scroller = useRef(null);
  const hitRef = useRef(null);
  const whole = { from: data.from, to: Math.max(data.to, data.from + NARROWEST) };
  const { from, to } = wanted || whole;
  const box = useRef({ from, to, width: 800, height: 300, top: 0 });
  const [canvas, redraw] = useCanvas((context, width, height) => {
    box.current = { from, to, width, height, top: scroller.current.scrollTop };
    drawStream(context, data, rows, box.current, palette, chosen || hitRef.current, span);
    onWidth(width);
  });

  const show = (start, end) => {
    const middle = (start + end) / 2;
    const half = Math.max(end - start, NARROWEST) / 2;
    onWindow({ from: middle - half, to: middle + half });
  };
  const zoom = (factor, x = box.current.width / 2) => {
    const t = from + (x / box.current.width) * (to - from);
    show(t - (t - from) * factor, t + (to - t) * factor);
  };
  const pan = (pixels) => {
    const by = (pixels / box.current.width) * (to - from);
    onWindow({ from: from + by, to: to + by });
  };
  const open = (hit) => {
    const bar = hit.row.bars[hit.index];
    const address = target(session, bar);
    if (address) go(address);
    else show(bar[0] - (bar[1] - bar[0]) * 0.05, bar[1] + (bar[1] - bar[0]) * 0.05);
  };
  const find = ({ x, y }) => (y < AXIS ? null : barAt(rows, x, y - AXIS + box.current.top, { ...box.current, from, to }));
  const hit = pointed && find(pointed);

  useWheel(canvas, ({ x, dx, dy, shift }) => {
    if (shift || Math.abs(dx) > Math.abs(dy)) pan(dx || dy);
    else zoom(Math.exp(dy * 0.0018), x);
  });
  const ruler = useRef(null);
  const pointer = usePointer({
    press: (at) => {
      ruler.current = at.y < AXIS || at.shift ? at.x : null;
    },
    drag: (dx, dy, at) => {
      if (ruler.current !== null) setSpan([ruler.current, at.x]);
      else {
        pan(-dx);
        scroller.current.scrollTop -= dy;
      }
    },
    end: (at, moved) => {
      if (ruler.current !== null && moved) {
        const [a, b] = [ruler.current, at.x].sort((one, two) => one - two);
        const t = (x) => from + (x / box.current.width) * (to - from);
        show(t(a), t(b));
      }
      ruler.current = null;
      setSpan(null);
    },
    hover: (at) => {
      if (at !== null || pointed !== null) setPointed(at);
    },
    click: (at) => {
      const bar = find(at);
      if (at.touch) setPointed(at);
      else if (bar) open(bar);
    },
  });
  const keys = (event) => {
    const acts = {
      "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: () => onWindow(null),
      ArrowLeft: () => pan(-box.current.width / 6), ArrowRight: () => pan(box.current.width / 6),
      ArrowUp: () => scroller.current.scrollBy(0, -60), ArrowDown: () => scroller.current.scrollBy(0, 60),
      n: () => setChosen(nextBar(rows, chosen, 1, box.current)), p: () => setChosen(nextBar(rows, chosen, -1, box.current)),
      Enter: () => chosen && open(chosen), Escape: () => setChosen(null),
    };
    if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  };
  const told = chosen ? toldBar(data, chosen) : null;
  const tip = hit ? toldBar(data, hit) : null;
  hitRef.current = hit;
  const shown = Math.min(MOST, content + AXIS + 6);
  return html`<div class="tools">
      <div class="choice" role="group" aria-label="Zoom"><button type="button" onClick=${() => zoom(0.5)} aria-label="Zoom in">+</button>
        <button type="button" onClick=${() => zoom(2)} aria-label="Zoom out">\u2212</button>
        <button type="button" aria-pressed=${wanted === null} onClick=${() => onWindow(null)}>All</button></div>
      <span class="num">${clock(from, to - from < 60 ? 2 : 0)} \u2013 ${clock(to, to - from < 60 ? 2 : 0)}</span>
      <span class="muted num">${duration(to - from)}, ${plural(data.total, "task")}</span>
      <span class="muted wide">Wheel: zoom. Drag: move. Drag on the scale: zoom to a span.</span></div>
    <div class="card stage"><div class="scroller" ref=${scroller} style=${{ height: `${shown}px` }} onScroll=${() => redraw()}>
      <div style=${{ height: `${content + AXIS + 4}px` }}><canvas ref=${canvas} tabindex="0" class=${hit ? "pointing" : ""} role="img"
        style=${{ height: `${shown}px` }} onKeyDown=${keys} ...${pointer}
        aria-label=${`Task stream: ${plural(data.total, "task")} on ${plural(data.rows.length, "worker")}, ${duration(to - from)}. The same tasks are in the list of tasks.`}></canvas></div></div>
      ${tip && html`<div class="tip" style=${{ left: `${Math.min(pointed.x + 14, box.current.width - 260)}px`, top: `${Math.min(pointed.y + 16, shown - 56)}px` }}>
        <b>${tip.title}</b><span>${tip.text}</span>${pointed.touch && html`<button type="button" class="small" onClick=${() => open(hit)}>Open</button>`}</div>`}
    </div>
    <p class="unseen" role="status">${told ? `${told.title}, ${told.text}` : ""}</p>
    ${told && html`<p class="selected" aria-hidden="true"><b>${told.title}</b> ${told.text} <span class="muted">(Enter opens)</span></p>`}
    <${Legend} data=${data} version=${version} />
    ${wanted && data.total === 0 && html`<p class="none">Nothing ran in this window. Press 0 to see everything.</p>`}`;
}
