// Light, dark, or what the system says.
import { useEffect, useState } from "./lib.js";

const KEY = "rain-theme";
const ORDER = ["system", "light", "dark"];

function stored() {
  const value = window.localStorage.getItem(KEY);
  return ORDER.includes(value) ? value : "system";
}

export function applyTheme() {
  const theme = stored();
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/** The choice, and a function that goes on to the next. */
export function useTheme() {
  const [theme, setTheme] = useState(stored);
  const next = () => {
    const value = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    window.localStorage.setItem(KEY, value);
    applyTheme();
    setTheme(value);
    window.dispatchEvent(new Event("themechange"));
  };
  return [theme, next];
}

/** Grows when colours change: what draws on a canvas draws again. */
export function useColours() {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    const changed = () => setVersion((n) => n + 1);
    const media = window.matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", changed);
    window.addEventListener("themechange", changed);
    return () => {
      media.removeEventListener("change", changed);
      window.removeEventListener("themechange", changed);
    };
  }, []);
  return version;
}

/** The colours of the style sheet by their short names. */
export function colours() {
  const style = window.getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["surface", "raised", "ink", "muted", "line", "accent", "finished", "running", "failed", "waiting",
    "cancelled", "aborted", "bar-l", "bar-s", "font"];
  return Object.fromEntries(names.map((name) => [name, of(name)]));
}
