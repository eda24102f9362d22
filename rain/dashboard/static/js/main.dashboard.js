// The frame of the page: navigation, connection, shortcuts; which page is shown.
import { html, render, useEffect, useRef, useState } from "./lib.js";
import { connect, useConnection } from "./api.js";
import { fullTime, plural } from "./format.js";
import { Dialog, Empty } from "./parts.js";
import { go, link, useRoute } from "./route.js";
import { applyTheme, useTheme } from "./theme.js";
import { EventsPage } from "./events.js";
import { SessionPage } from "./session.js";
import { SessionsPage } from "./sessions.js";
import { TaskPage } from "./task.js";
import { WorkersPage } from "./workers.js";
import { ClusterStreamPage } from "./stream.js";

const PAGES = [
  ["sessions", "Sessions", "s"],
  ["workers", "Workers", "w"],
  ["stream", "Stream", "t"],
  ["events", "Events", "e"],
];

const SHORTCUTS = [
  ["g then s, w, t, e", "Sessions, workers, stream, events"],
  ["/", "Go to the filter or search of the page"],
  ["\u2190 \u2192", "Move between tabs"],
  ["Enter", "Open what has the focus"],
  ["+ \u2212 0", "Graph and stream: zoom in, zoom out, everything"],
  ["\u2190 \u2192 \u2191 \u2193", "Graph and stream: move"],
  ["n p", "Graph and stream: next and previous task; Enter opens it"],
  ["d", "Light, dark, or as the system says"],
  ["?", "This list"],
  ["Esc", "Close"],
];

function Page({ route }) {
  const [page = "sessions", first, second] = route.parts;
  if (page === "sessions" && first === undefined) return html`<${SessionsPage} />`;
  if (page === "sessions") return html`<${SessionPage} key=${first} session=${first} tab=${second || "summary"} params=${route.params} />`;
  if (page === "tasks" && second !== undefined) {
    return html`<${TaskPage} key=${`${first}/${second}`} session=${first} task=${second} />`;
  }
  if (page === "workers") return html`<${WorkersPage} />`;
  if (page === "stream") return html`<${ClusterStreamPage} />`;
  if (page === "events") return html`<${EventsPage} params=${route.params} />`;
  return html`<${Empty} title="There is no such page">Go to the <a href="#/sessions">sessions</a>.<//>`;
}

const LINKS = {
  connecting: ["Connecting", "wait"],
  live: ["Live", "good"],
  polling: ["Live", "good"],
  gone: ["Server gone", "bad"],
  denied: ["No access", "bad"],
};

function LinkState({ connection }) {
  const past = connection.status && !connection.status.live && !["gone", "denied"].includes(connection.link);
  const [text, tone] = past ? ["Log of the past", "past"] : LINKS[connection.link];
  const title = connection.link === "polling" ? "Asks each second: the WebSocket could not be opened" : text;
  return html`<span class=${`link ${tone}`} role="status" title=${title}><i aria-hidden="true"></i>${text}</span>`;
}

function Banner({ connection }) {
  const { link: state, status, error, since } = connection;
  if (state === "gone") {
    return html`<div class="banner bad" role="alert"><strong>The server is gone.</strong> ${error} What you see is as of
      ${" "}${fullTime(since / 1000).slice(11, 19)}. This page connects again by itself.</div>`;
  }
  if (state === "denied") {
    return html`<div class="banner bad" role="alert"><strong>The server wants the secret.</strong> ${error} Open the address that
      ${" "}<code>rain start</code> printed or <code>client.dashboard_url</code> gives: it contains the secret once.</div>`;
  }
  if (status && !status.live) {
    return html`<div class="banner past" role="status"><strong>A log of the past.</strong> Nothing runs here: this is what the event
      log holds, as of the last event. Logs and explanations of tasks cannot be asked for.</div>`;
  }
  return null;
}

const THEMES = { system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const THEME_SHAPE = {
  system: "M8 2.500a5.5 5.5 0 1 0 0.01 0zM8 2.500v11a5.5 5.5 0 0 0 0-11z",
  light: "M8 5a3 3 0 1 0 0.01 0zM8 1v1.500M8 13.500V15M1 8h1.500M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  dark: "M13 9.500A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.500z",
};

function typing(event) {
  return event.target.closest("input, select, textarea, [contenteditable]") !== null;
}

function useShortcuts(actions) {
  const leader = useRef(0);
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event) || document.querySelector("dialog[open]")) return;
      const page = PAGES.find(([, , key]) => key === event.key);
      if (Date.now() - leader.current < 1500 && page) go(link([page[0]]));
      else if (event.key === "?") actions.help();
      else if (event.key === "d") actions.theme();
      else if (event.key === "/") {
        const filter = document.querySelector("[data-filter]");
        if (!filter) return;
        event.preventDefault();
        filter.focus();
      }
      leader.current = event.key === "g" ? Date.now() : 0;
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  });
}

const TITLES = { sessions: "Sessions", workers: "Workers", stream: "Stream", events: "Events", tasks: "Task" };

function App() {
  const route = useRoute();
  const connection = useConnection();
  const [theme, nextTheme] = useTheme();
  const [help, setHelp] = useState(false);
  const main = useRef(null);
  const page = route.parts[0] || "sessions";
  const section = page === "tasks" ? "sessions" : page;
  useShortcuts({ help: () => setHelp(true), theme: nextTheme });
  useEffect(() => {
    const what = route.parts.slice(1, 3).join(" ");
    document.title = `${TITLES[page] || "Rain"}${what ? ` ${what}` : ""} \u00b7 Rain`;
  }, [page, route]);
  useEffect(() => window.scrollTo(0, 0), [page, route.parts[1]]);
  const { status } = connection;
  // A plain link to #main would change the page shown.
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/sessions" aria-label="Rain, sessions"><svg viewBox="0 0 32 32" aria-hidden="true">
        <path d="M16 2C11 10 6 14.5 6 20a10 10 0 0 0 20 0C26 14.5 21 10 16 2z" /></svg>Rain</a>
      <nav aria-label="Pages">${PAGES.map(([id, text]) => html`<a key=${id} href=${link([id])}
        aria-current=${section === id ? "page" : undefined}>${text}</a>`)}</nav>
      <div class="right">
        ${status && html`<span class="muted wide" title=${`Rain ${status.version}`}>${status.address}</span>`}
        <${LinkState} connection=${connection} />
        <button type="button" class="icon" onClick=${nextTheme} aria-label=${THEMES[theme]} title=${THEMES[theme]}>
          <svg viewBox="0 0 16 16" class=${`theme-${theme}`} aria-hidden="true"><path d=${THEME_SHAPE[theme]} /></svg></button>
        <button type="button" class="icon" onClick=${() => setHelp(true)} aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)">?</button>
      </div>
    </header>
    <${Banner} connection=${connection} />
    <main id="main" tabindex="-1" ref=${main}><${Page} route=${route} /></main>
    ${help && html`<${Dialog} title="Keyboard" onClose=${() => setHelp(false)}>
      <dl class="keys">${SHORTCUTS.map(([keys, text]) => html`<div key=${text}><dt>${keys.split(" ").map((key) =>
        key === "then" || key.endsWith(",") && key.length > 2 ? ` ${key} ` : html`<kbd>${key.replace(",", "")}</kbd> `)}</dt><dd>${text}</dd></div>`)}</dl>
      ${status && html`<p class="muted">Rain ${status.version} at ${status.address}, up since ${fullTime(status.started).slice(0, 19)};
        ${" "}${plural(status.last_event, "event")} in the log.</p>`}<//>`}`;
}

applyTheme();
connect();
render(html`<${App} />`, document.getElementById("app"));
