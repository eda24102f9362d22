// How numbers, times and names are written. Pure.

export const STATES = ["finished", "running", "failed", "cancelled", "aborted", "waiting"];

export const SESSION_STATUS = {
  open: "Open",
  closed: "Closed",
  error: "Error",
  lost: "Server lost",
  detached: "Detached",
  expired: "Expired",
};

const NONE = "\u2013";
const THIN = "\u202f";

export function count(n) {
  if (n === null || n === undefined) return NONE;
  return String(n).replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

export function plural(n, one, many = one + "s") {
  return `${count(n)} ${n === 1 ? one : many}`;
}

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function size(bytes) {
  if (bytes === null || bytes === undefined) return NONE;
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : trim(value, value >= 10 ? 1 : 2)} ${UNITS[unit]}`;
}

export function rate(bytes) {
  return bytes === null || bytes === undefined ? NONE : `${size(bytes)}/s`;
}

function trim(value, digits) {
  return String(Number(value.toFixed(digits)));
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s === 0) return "0 s";
  if (s < 0.001) return `${Math.max(1, Math.round(s * 1e6))} µs`;
  if (s < 0.9995) return `${trim(s * 1000, s < 0.01 ? 1 : 0)} ms`;
  if (s < 9.995) return `${trim(s, 2)} s`;
  if (s < 59.95) return `${trim(s, 1)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function two(n) {
  return String(n).padStart(2, "0");
}

export function clock(unix, digits = 0) {
  const date = new Date(Math.round(unix * 1000));
  const base = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return digits ? `${base}.${String(date.getMilliseconds()).padStart(3, "0").slice(0, digits)}` : base;
}

export function day(unix) {
  const date = new Date(unix * 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** The time of day, with the date unless it is today. */
export function time(unix, now = Date.now() / 1000) {
  if (unix === null || unix === undefined) return NONE;
  return day(unix) === day(now) ? clock(unix) : `${day(unix)} ${clock(unix)}`;
}

export function fullTime(unix) {
  return unix === null || unix === undefined ? NONE : `${day(unix)} ${clock(unix, 3)}`;
}

/** Unix seconds of a time as the event log writes it: `2026-01-31 08:09:10.123456789 UTC`. */
export function logTime(text) {
  const whole = Date.parse(`${text.slice(0, 10)}T${text.slice(11, 19)}Z`) / 1000;
  return Number.isNaN(whole) ? null : whole + Number.parseFloat(`0${text.slice(19)}`);
}

/** Of `part` in `whole`; 100 only when nothing is left. */
export function percent(part, whole) {
  if (!whole) return "0 %";
  const value = (100 * part) / whole;
  if (part >= whole) return "100 %";
  if (value > 99) return `${Math.floor(value * 10) / 10} %`;
  return value > 0 && value < 1 ? "< 1 %" : `${Math.floor(value)} %`;
}

export function plain(value) {
  if (value === null || value === undefined) return NONE;
  return typeof value === "number" ? `${Math.round(value)} %` : String(value);
}

/** Ids of Rain come as numbers or as pairs [session, number]. */
export function idText(id) {
  return Array.isArray(id) ? `${id[0]}/${id[1]}` : String(id);
}

/** What comes after the last slash: `py/parse_file` -> `parse_file`; Python functions of clients have an empty method. */
export function method(type) {
  return (type || "").slice((type || "").lastIndexOf("/") + 1);
}

/** Resources of a worker or task: a number, bytes of memory, or a list of things with numbers. */
export function resources(amounts) {
  const shown = Object.entries(amounts || {}).map(([name, amount]) => {
    if (Array.isArray(amount)) return amount.length ? `${amount.length} ${name}` : "";
    return name === "memory" ? `${size(amount)} memory` : plural(amount, name.replace(/s$/, ""), name);
  });
  return shown.filter(Boolean).join(", ") || NONE;
}

/** The line of a message that says most: of a traceback the last one. */
export function gist(message) {
  const lines = String(message ?? "").split("\n").filter((text) => text.trim());
  return (/^Traceback/.test(lines[0]) ? lines[lines.length - 1] : lines[0]) || "";
}

const seen = new Map();

/** A hue for a name, far from those given before and from the red of what failed; the same as long as the page lives. */
export function hueOf(name) {
  if (!seen.has(name)) seen.set(name, 205 + 310 * ((seen.size * 0.618034) % 1));
  const hue = seen.get(name);
  return hue > 335 ? hue - 310 : hue;
}
