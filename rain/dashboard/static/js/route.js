// Addresses inside the page: `#/sessions/3/tasks?state=failed`.
import { useEffect, useState } from "./lib.js";

export function parse(hash) {
  const text = hash.replace(/^#\/?/, "");
  const mark = text.indexOf("?");
  const path = mark < 0 ? text : text.slice(0, mark);
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { parts, params: Object.fromEntries(new URLSearchParams(mark < 0 ? "" : text.slice(mark + 1))) };
}

export function link(parts, params = {}) {
  const set = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const tail = set.length ? `?${new URLSearchParams(set)}` : "";
  return `#/${parts.map(encodeURIComponent).join("/")}${tail}`;
}

export function taskLink(session, task) {
  return link(["tasks", session, task]);
}

export function go(hash) {
  window.location.hash = hash;
}

/** Changes the address without a step in the history. */
export function replace(hash) {
  window.history.replaceState(null, "", hash);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute() {
  const [route, setRoute] = useState(() => parse(window.location.hash));
  useEffect(() => {
    const changed = () => setRoute(parse(window.location.hash));
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return route;
}
