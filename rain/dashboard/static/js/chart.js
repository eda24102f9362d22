// Lines over time, as SVG: colours come from the style sheet.
import { html, useEffect, useRef, useState } from "./lib.js";
import { clock, day } from "./format.js";

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Ends of a scale and its marks: about `wanted` round numbers from 0 to at least `top`. */
export function scale(top, wanted = 4) {
  const rough = Math.max(top, 1e-9) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const marks = [];
  for (let value = 0; value < top + step * 0.999; value += step) marks.push(value);
  return marks;
}

/** Round times between two, at most `most`. */
export function timeMarks(from, to, most) {
  const span = Math.max(to - from, 1e-6);
  let step = STEPS.find((candidate) => span / candidate <= most);
  if (step === undefined) step = 86400 * Math.ceil(span / 86400 / most);
  if (span < most) step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find((s) => span / s <= most) || 0.001;
  const zone = step >= 3600 ? new Date(from * 1000).getTimezoneOffset() * 60 : 0;
  const marks = [];
  for (let t = Math.ceil((from - zone) / step) * step + zone; t <= to; t += step) marks.push(t);
  return { marks, step };
}

export function markText(t, step) {
  if (step >= 86400) return day(t);
  return step >= 60 ? clock(t).slice(0, 5) : clock(t, step < 0.01 ? 3 : step < 1 ? 2 : 0);
}

/** The width of an element, measured again when it changes. */
export function useWidth(initial = 600) {
  const element = useRef(null);
  const [width, setWidth] = useState(initial);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(120, Math.floor(entry.contentRect.width))));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return [element, width];
}

const PAD = { left: 52, right: 10, top: 8, bottom: 20 };

function line(points, x, y, step) {
  let path = "";
  points.forEach(([t, value], index) => {
    if (value === null || value === undefined) return;
    const px = x(t).toFixed(1);
    const py = y(value).toFixed(1);
    path += !path ? `M${px} ${py}` : step ? `H${px}V${py}` : `L${px} ${py}`;
    if (index === points.length - 1 && points.length === 1) path += "h1";
  });
  return path;
}

function nearest(points, t) {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (points[middle][0] <= t) low = middle;
    else high = middle - 1;
  }
  if (low + 1 < points.length && points[low + 1][0] - t < t - points[low][0]) low += 1;
  return points[low];
}

/**
 * points: [[t, a, b...]...] by rising time. series: [{label, tone}] one per column after the time; tone names a class.
 * text: how a value is written. top: the least upper end of the scale.
 */
export function Chart({ label, points, series, text, top = 0, height = 150, area = false, step = false, from, to }) {
  const [holder, width] = useWidth();
  const [at, setAt] = useState(null);
  const first = from ?? (points.length ? points[0][0] : 0);
  const last = Math.max(to ?? (points.length ? points[points.length - 1][0] : 1), first + 0.001);
  let most = top;
  for (const point of points) for (let i = 1; i < point.length; i += 1) if (point[i] > most) most = point[i];
  const rows = scale(most || 1, height <= 120 ? 2 : 4);
  const end = rows[rows.length - 1];
  const x = (t) => PAD.left + ((t - first) / (last - first)) * (width - PAD.left - PAD.right);
  const y = (value) => height - PAD.bottom - (value / end) * (height - PAD.top - PAD.bottom);
  const columns = timeMarks(first, last, Math.max(2, Math.floor(width / 110)));
  const move = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const t = first + ((event.clientX - box.left - PAD.left) / (width - PAD.left - PAD.right)) * (last - first);
    setAt(points.length ? nearest(points, t) : null);
  };
  const now = points.length ? points[points.length - 1] : null;
  const shown = at || now;
  const told = now ? series.map((one, i) => `${one.label} ${text(now[i + 1])}`).join(", ") : "no data";
  return html`<figure class="chart" ref=${holder}>
    <figcaption><span class="chart-title">${label}</span><span class="legend">${at && html`<span class="muted">${clock(at[0])}</span>`}
      ${series.map((one, i) => html`<span key=${one.label}><i class=${`swatch t-${one.tone}`}></i>${series.length > 1 ? one.label : ""}
        <b class="num">${shown ? text(shown[i + 1]) : ""}</b></span>`)}</span></figcaption>
    <svg width=${width} height=${height} role="img" aria-label=${`${label}: ${told}`} onPointerMove=${move}
        onPointerLeave=${() => setAt(null)}>
      ${rows.map((value) => html`<g key=${value}><line class="grid" x1=${PAD.left} x2=${width - PAD.right} y1=${y(value)} y2=${y(value)} />
        <text class="tick" x=${PAD.left - 6} y=${y(value) + 3.5} text-anchor="end">${text(value)}</text></g>`)}
      ${columns.marks.map((t) => html`<text key=${t} class="tick" x=${x(t)} y=${height - 5}
        text-anchor=${x(t) < PAD.left + 24 ? "start" : x(t) > width - PAD.right - 24 ? "end" : "middle"}>${markText(t, columns.step)}</text>`)}
      ${series.map((one, i) => {
        const path = line(points.map((point) => [point[0], point[i + 1]]), x, y, step);
        return path && html`<g key=${one.label} class=${`t-${one.tone}`}>
          ${area && html`<path class="area" d=${`${path}V${y(0)}H${x(points[0][0]).toFixed(1)}Z`} />`}<path class="curve" d=${path} /></g>`;
      })}
      ${at && html`<line class="at" x1=${x(at[0])} x2=${x(at[0])} y1=${PAD.top} y2=${height - PAD.bottom} />`}
      ${at && series.map((one, i) => at[i + 1] !== null && html`<circle key=${one.label} class=${`dot t-${one.tone}`} r="3.5"
        cx=${x(at[0])} cy=${y(at[i + 1])} />`)}
    </svg>
  </figure>`;
}
