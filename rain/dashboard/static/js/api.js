// Asking the server, and knowing whether it is there.
import { useEffect, useRef, useState } from "./lib.js";

const PATIENCE = 20000;
const POLL = 1000;
const CHECK = 10000;

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** GET of a path below `api/`, relative to the page: it works below any prefix. */
export async function ask(path, patience = PATIENCE) {
  let response;
  try {
    response = await fetch(`api/${path}`, { signal: AbortSignal.timeout(patience), cache: "no-store" });
  } catch (error) {
    throw new ApiError(`The server does not answer (${error.message}).`, 0);
  }
  let body;
  try {
    body = await response.json();
  } catch {
    throw new ApiError(`The server answered ${response.status} with something that is not JSON.`, response.status);
  }
  if (!response.ok) throw new ApiError(body.error || `The server answered ${response.status}.`, response.status);
  return body;
}

export function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

// --- the connection ---------------------------------------------------------------------------------

/** What is known of the server. link: "connecting" | "live" | "polling" | "gone" | "denied"; tick grows with the log. */
export const connection = { link: "connecting", status: null, error: null, tick: 0, since: Date.now() };
const listeners = new Set();

function change(fields) {
  const linked = fields.link && fields.link !== connection.link;
  Object.assign(connection, fields);
  if (linked) connection.since = Date.now();
  for (const listener of listeners) listener();
}

let missed = false;

/** Has what is shown asked for again; a page that nobody sees waits until it is looked at. */
function bump(fields = {}) {
  missed = document.hidden;
  change(missed ? fields : { ...fields, tick: connection.tick + 1 });
}

document.addEventListener("visibilitychange", () => {
  if (missed && !document.hidden) bump();
});

export function useConnection() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((n) => n + 1);
    listeners.add(listener);
    listener();
    return () => listeners.delete(listener);
  }, []);
  return connection;
}

let lastEvent = -1;
let socket = null;
let nextSocket = 0;

async function checkStatus() {
  try {
    const status = await ask("status", 5000);
    const link = socket && socket.readyState === WebSocket.OPEN ? "live" : "polling";
    const back = connection.link !== link && connection.link !== "polling" && connection.link !== "live";
    const another = connection.status !== null && connection.status.started !== status.started;
    if (back || another || status.last_event !== lastEvent) {
      lastEvent = status.last_event;
      bump({ link, status, error: null });
    } else change({ link, status, error: null });
  } catch (error) {
    change({ link: error.status === 401 || error.status === 403 ? "denied" : "gone", error: error.message });
    if (socket) socket.close();
  }
}

function openSocket() {
  const url = new URL("api/live", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  const opened = new WebSocket(url);
  socket = opened;
  opened.onopen = () => checkStatus();
  opened.onmessage = (message) => {
    const { last_event: id } = JSON.parse(message.data);
    if (id === undefined || id === lastEvent) return;
    lastEvent = id;
    bump();
    checkSoon();
  };
  opened.onclose = () => {
    if (socket !== opened) return;
    socket = null;
    nextSocket = Date.now() + (connection.link === "polling" ? 15000 : 2000);
    checkStatus();
  };
}

let soon = null;
function checkSoon() {
  if (soon === null) {
    soon = setTimeout(() => {
      soon = null;
      checkStatus();
    }, 500);
  }
}

let lastCheck = 0;
async function watch() {
  const live = connection.link === "live";
  if (!live || Date.now() - lastCheck > CHECK) {
    lastCheck = Date.now();
    await checkStatus();
  }
  const there = connection.link === "live" || connection.link === "polling";
  if (there && socket === null && Date.now() >= nextSocket) openSocket();
  setTimeout(watch, POLL);
}

export function connect() {
  watch();
}

// --- answers ----------------------------------------------------------------------------------------

/**
 * The answer to a path, asked again whenever the log grew; null asks nothing.
 * While a newer answer is on its way the old one of the same path stays.
 */
export function useApi(path, { live = true } = {}) {
  const [state, setState] = useState({ path, data: null, error: null });
  const { tick } = useConnection();
  const flight = useRef({ path: null, busy: false, again: false, alive: true });

  useEffect(() => {
    flight.current.alive = true;
    return () => {
      flight.current.alive = false;
    };
  }, []);

  useEffect(() => {
    const current = flight.current;
    if (path === null) return;
    if (current.busy && current.path === path) {
      current.again = true;
      return;
    }
    const load = async () => {
      Object.assign(current, { path, busy: true, again: false });
      const mine = () => current.alive && current.path === path;
      try {
        const data = await ask(path);
        if (mine()) setState({ path, data, error: null });
      } catch (error) {
        if (mine()) setState((old) => ({ path, data: old.path === path ? old.data : null, error }));
      }
      if (!mine()) return;
      current.busy = false;
      if (current.again) setTimeout(() => mine() && !current.busy && load(), 300);
    };
    load();
  }, [path, live ? tick : 0]);

  return state.path === path ? state : { path, data: null, error: null };
}

/** The time by the server's clock, each `every` ms; it stands still while the server is gone. */
export function useNow(every = 1000) {
  const { link, status } = useConnection();
  const skew = useRef({ status: null, offset: 0 });
  if (status && skew.current.status !== status) skew.current = { status, offset: status.now - Date.now() / 1000 };
  const [, redraw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => redraw((n) => n + 1), every);
    return () => clearInterval(timer);
  }, [every]);
  return link === "gone" && status ? status.now : Date.now() / 1000 + skew.current.offset;
}
