// Small parts that several pages use.
import { html, useEffect, useId, useRef, useState } from "./lib.js";
import { STATES, SESSION_STATUS, count, percent } from "./format.js";
import { SHAPES } from "./shapes.js";

/** A state as a shape and a word; `mute` leaves the word to screen readers. */
export function State({ state, label, mute = false }) {
  const text = label || SESSION_STATUS[state] || state;
  return html`<span class=${`state s-${state}`} title=${mute ? text : undefined}>
    <svg class="shape" viewBox="0 0 16 16" aria-hidden="true"><path d=${SHAPES[state] || SHAPES.waiting} /></svg>
    <span class=${mute ? "unseen" : ""}>${text}</span>
  </span>`;
}

/** The tasks of a session or group as one bar; what waits is the empty rest. */
export function Progress({ tasks, label = "Progress", thick = false }) {
  const total = tasks.total || 0;
  const shown = STATES.filter((state) => state !== "waiting" && tasks[state]);
  const told = [...shown, ...(tasks.waiting ? ["waiting"] : [])].map((state) => `${tasks[state]} ${state}`).join(", ");
  return html`<div class=${thick ? "progress thick" : "progress"} role="progressbar" aria-label=${label}
      aria-valuemin="0" aria-valuemax=${total} aria-valuenow=${tasks.finished || 0} title=${told || "no tasks"}
      aria-valuetext=${`${tasks.finished || 0} of ${total} finished${told ? `: ${told}` : ""}`}>
    ${shown.map((state) => html`<i key=${state} class=${`b-${state}`}
      style=${{ width: `${(100 * tasks[state]) / total}%` }}></i>`)}
  </div>`;
}

export function done(tasks) {
  if (!tasks.total) return html`<span class="muted">no tasks</span>`;
  return html`<span class="num">${count(tasks.finished)}<span class="of">/</span>${count(tasks.total)}</span>
    <span class="muted pct">${percent(tasks.finished, tasks.total)}</span>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><svg viewBox="0 0 48 48" aria-hidden="true">
      <path d="M24 6c-6 10-12 15-12 22a12 12 0 0 0 24 0c0-7-6-12-12-22z" /><path d="M18 28a6 6 0 0 0 6 6" /></svg>
    <h2>${title}</h2><p>${children}</p></div>`;
}

export function Problem({ error }) {
  return html`<div class="problem" role="alert"><strong>This could not be loaded.</strong> <span>${error.message}</span></div>`;
}

/** What to show of an answer that is not there yet, or could not be got; null when it is there. */
export function pending({ data, error }) {
  if (error && !data) return html`<${Problem} error=${error} />`;
  if (!data) return html`<${Loading} />`;
  return null;
}

/** Silent for a moment: most answers come before one could read it. */
export function Loading() {
  return html`<p class="loading" role="status">Loading…</p>`;
}

export function Fact({ label, children }) {
  return html`<div class="fact"><dt>${label}</dt><dd>${children}</dd></div>`;
}

export function Copy({ text, what }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return undefined;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = () => navigator.clipboard.writeText(text).then(() => setCopied(true));
  // The clipboard exists only on https and loopback.
  if (!navigator.clipboard) return null;
  return html`<button type="button" class="small" onClick=${copy} aria-label=${`Copy ${what}`}>${copied ? "Copied" : "Copy"}</button>`;
}

export function Pager({ page, pages, onPage, label }) {
  if (pages <= 1) return null;
  return html`<nav class="pager" aria-label=${`Pages of ${label}`}>
    <button type="button" disabled=${page === 0} onClick=${() => onPage(page - 1)}>Previous</button>
    <span class="muted">Page ${count(page + 1)} of ${count(pages)}</span>
    <button type="button" disabled=${page >= pages - 1} onClick=${() => onPage(page + 1)}>Next</button>
  </nav>`;
}

/** For answers that are paged by ids: what came before is remembered. `next` is the id of the next page, 0 at the end. */
export function useCursor(key) {
  const [state, setState] = useState({ key, trail: [0] });
  const trail = state.key === key ? state.trail : [0];
  return {
    at: trail[trail.length - 1],
    isFirst: trail.length === 1,
    number: trail.length,
    forward: (next) => setState({ key, trail: [...trail, next] }),
    back: () => setState({ key, trail: trail.slice(0, -1) }),
    start: () => setState({ key, trail: [0] }),
  };
}

export function CursorPager({ cursor, next, back = "Previous", forward = "Next", label }) {
  if (cursor.isFirst && !next) return null;
  return html`<nav class="pager" aria-label=${`Pages of ${label}`}>
    <button type="button" disabled=${cursor.isFirst} onClick=${cursor.back}>${back}</button>
    <span class="muted">Page ${cursor.number}</span>
    <button type="button" disabled=${!next} onClick=${() => cursor.forward(next)}>${forward}</button>
  </nav>`;
}

/** Tabs that are links; arrows move between them as in any tab list. */
export function Tabs({ tabs, current, label }) {
  const list = useRef(null);
  const move = (event) => {
    const index = tabs.findIndex((tab) => tab.id === current);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = tabs[(to + tabs.length) % tabs.length];
    window.location.hash = tab.href;
    list.current.querySelector(`[data-tab="${tab.id}"]`).focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${move}>
    ${tabs.map((tab) => html`<a key=${tab.id} role="tab" data-tab=${tab.id} href=${tab.href}
      aria-selected=${tab.id === current} tabindex=${tab.id === current ? 0 : -1}>${tab.label}</a>`)}
  </div>`;
}

/** A choice of a few, shown as buttons side by side. */
export function Choice({ options, value, onChange, label }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(([id, text]) => html`<button key=${id} type="button" aria-pressed=${id === value}
      onClick=${() => onChange(id)}>${text}</button>`)}
  </div>`;
}

/** A window over the page, closed by Escape and a click outside; the focus returns where it was. */
export function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  const id = useId();
  useEffect(() => {
    const element = dialog.current;
    element.showModal();
    return () => element.close();
  }, []);
  return html`<dialog ref=${dialog} aria-labelledby=${id} onClose=${onClose}
      onClick=${(event) => event.target === dialog.current && onClose()}>
    <div class="dialog"><header><h2 id=${id}>${title}</h2>
      <button type="button" class="small" onClick=${onClose}>Close</button></header>${children}</div>
  </dialog>`;
}
