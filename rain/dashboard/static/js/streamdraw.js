// Drawing the task stream, and finding in it what is under the pointer.
import { clock, duration, hueOf } from "./format.js";
import { markText, timeMarks } from "./chart.js";
import { fitted } from "./canvas.js";

export const AXIS = 26;
const WORKER = 24;
const GAP = 10;

export const STATE_OF = ["finished", "failed", "running"];

/** Names that differ only in a number at the end look alike. */
export function kindOf(name) {
  return name.replace(/[\W_]*\d+$/, "") || name;
}

/** Where rows are: per worker a heading and its slots. */
export function rowsOf(data) {
  const slots = data.rows.reduce((sum, row) => sum + row.slots.length, 0);
  const tall = slots > 64 ? 11 : slots > 24 ? 15 : slots > 8 ? 22 : 30;
  const rows = [];
  let y = 0;
  for (const { worker, slots: list } of data.rows) {
    rows.push({ y, height: WORKER, worker });
    y += WORKER;
    list.forEach((bars, number) => {
      rows.push({ y, height: tall, worker, number, bars });
      y += tall;
    });
    y += GAP;
  }
  return { rows, height: y };
}

/** First bar that ends after t. */
function firstAfter(bars, t) {
  let low = 0;
  let high = bars.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bars[middle][1] < t) low = middle + 1;
    else high = middle;
  }
  return low;
}

function rowAt(rows, y) {
  return rows.find((row) => y >= row.y && y < row.y + row.height) || null;
}

/** The bar at a place below the axis, as {row, index}; a pixel of tolerance for narrow ones. */
export function barAt(rows, x, y, { from, to, width }) {
  const row = rowAt(rows, y);
  if (!row || !row.bars) return null;
  const t = from + (x / width) * (to - from);
  const slack = (2 * (to - from)) / width;
  const index = firstAfter(row.bars, t - slack);
  return index < row.bars.length && row.bars[index][0] <= t + slack ? { row, index } : null;
}

function fillOf(name, colours) {
  return `hsl(${hueOf(kindOf(name))} ${colours["bar-s"]} ${colours["bar-l"]})`;
}

export function swatch(name, colours) {
  return fillOf(name, colours);
}

function drawBar(context, bar, box, name, colours, isSelected) {
  const { x, y, width, height } = box;
  const state = STATE_OF[bar[4]];
  context.fillStyle = fillOf(name, colours);
  if (state === "running") {
    context.globalAlpha = 0.55;
    context.fillRect(x, y, width, height);
    context.globalAlpha = 1;
    context.setLineDash([3, 3]);
    context.strokeStyle = colours.running;
    context.lineWidth = 1.5;
    context.strokeRect(x + 0.75, y + 0.75, Math.max(0, width - 1.5), height - 1.5);
    context.setLineDash([]);
  } else context.fillRect(x, y, width, height);
  if (state === "failed") {
    context.fillStyle = colours.failed;
    context.fillRect(x, y, width, height);
    if (width > 8) {
      context.strokeStyle = colours.surface;
      context.lineWidth = 1.5;
      context.beginPath();
      const middle = y + height / 2;
      context.moveTo(x + 3, middle - 3);
      context.lineTo(x + 9, middle + 3);
      context.moveTo(x + 9, middle - 3);
      context.lineTo(x + 3, middle + 3);
      context.stroke();
    }
  }
  if (isSelected) {
    context.strokeStyle = colours.ink;
    context.lineWidth = 2;
    context.strokeRect(x - 1, y - 1, width + 2, height + 2);
  }
  if (width > 34 && height > 12) {
    const count = bar[5] || 1;
    context.fillStyle = state === "failed" ? colours.surface : colours.ink;
    const indent = state === "failed" ? 13 : 4;
    const text = fitted(context, count > 1 ? `${count} tasks` : name, width - indent - 4);
    if (text) context.fillText(text, x + indent, y + height / 2 + 0.5);
  }
}

function drawAxis(context, view, colours) {
  const { from, to, width } = view;
  const { marks, step } = timeMarks(from, to, Math.max(2, Math.floor(width / 110)));
  context.fillStyle = colours.surface;
  context.fillRect(0, 0, width, AXIS);
  context.fillStyle = colours.muted;
  context.textAlign = "center";
  for (const t of marks) {
    const x = ((t - from) / (to - from)) * width;
    if (x > 26 && x < width - 26) context.fillText(markText(t, step), x, AXIS / 2);
  }
  context.textAlign = "left";
  context.fillStyle = colours.line;
  context.fillRect(0, AXIS - 1, width, 1);
  return marks;
}

/**
 * view: {from, to, width, height, top}: the window in time and pixels, top: pixels scrolled down.
 * chosen: {row, index} drawn with a frame, or null. span: [x, x] being selected, or null.
 */
export function drawStream(context, data, rows, view, colours, chosen, span) {
  const { from, to, width, height, top } = view;
  const perSecond = width / (to - from);
  context.font = `11px ${colours.font}`;
  context.textBaseline = "middle";
  const { marks } = timeMarks(from, to, Math.max(2, Math.floor(width / 110)));
  context.fillStyle = colours.line;
  for (const t of marks) context.fillRect(Math.round((t - from) * perSecond), AXIS, 1, height);
  for (const row of rows) {
    const y = AXIS + row.y - top;
    if (y + row.height < AXIS || y > height) continue;
    if (!row.bars) {
      context.fillStyle = colours.surface;
      context.fillRect(0, y + 2, width, row.height - 3);
      context.fillStyle = colours.muted;
      context.fillText(`Worker ${row.worker}`, 2, y + row.height / 2 + 1);
      continue;
    }
    context.fillStyle = colours.raised;
    context.fillRect(0, y, width, row.height - 2);
    for (let i = firstAfter(row.bars, from); i < row.bars.length && row.bars[i][0] <= to; i += 1) {
      const bar = row.bars[i];
      const left = Math.max(-4, (bar[0] - from) * perSecond);
      const right = Math.min(width + 4, (bar[1] - from) * perSecond);
      const isChosen = chosen !== null && chosen.row.y === row.y && chosen.index === i;
      drawBar(context, bar, { x: left, y, width: Math.max(1, right - left - (right - left > 4 ? 1 : 0)), height: row.height - 2 },
        data.names[bar[2]] ?? "", colours, isChosen);
    }
  }
  drawAxis(context, view, colours);
  if (span) {
    context.fillStyle = colours.accent;
    context.globalAlpha = 0.18;
    context.fillRect(Math.min(...span), AXIS, Math.abs(span[1] - span[0]), height);
    context.globalAlpha = 1;
  }
}

/** What a bar says, in words. */
export function toldBar(data, { row, index }) {
  const bar = row.bars[index];
  const name = data.names[bar[2]] ?? "";
  const count = bar[5] || 1;
  const lasts = `${duration(bar[1] - bar[0])} from ${clock(bar[0], 3)}`;
  if (count > 1) return { title: `${count} tasks`, text: `${name} and others, ${lasts}; zoom in to see them` };
  const id = Array.isArray(bar[3]) ? bar[3].join("/") : bar[3];
  return { title: name, text: `task ${id}, ${STATE_OF[bar[4]]}, ${lasts}` };
}
