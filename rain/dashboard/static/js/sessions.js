// The home page: all sessions.
import { html, useState } from "./lib.js";
import { useApi, useConnection, useNow } from "./api.js";
import { SESSION_STATUS, count, duration, fullTime, gist, plural, time } from "./format.js";
import { Empty, Pager, Progress, State, done, pending } from "./parts.js";
import { link } from "./route.js";

const PAGE = 50;

function Tile({ label, value, detail }) {
  return html`<div class="tile"><dt>${label}</dt><dd><b class="num">${value}</b><span class="muted">${detail}</span></dd></div>`;
}

function listed(counts, names) {
  return names.filter((name) => counts[name]).map((name) => `${count(counts[name])} ${name}`).join(", ");
}

function Tiles({ status }) {
  const { sessions, workers, tasks, cpus } = status;
  const sum = (counts) => Object.values(counts).reduce((total, n) => total + n, 0);
  return html`<dl class="tiles">
    <${Tile} label="Sessions open" value=${count((sessions.open || 0) + (sessions.detached || 0))}
      detail=${`of ${count(sum(sessions))}${sessions.error ? `, ${count(sessions.error)} with an error` : ""}`} />
    <${Tile} label="Tasks running" value=${count(tasks.running || 0)}
      detail=${listed(tasks, ["waiting", "finished", "failed"]) || "no tasks yet"} />
    <${Tile} label="Workers" value=${count(workers.connected || 0)} detail=${workers.lost ? `${count(workers.lost)} gone` : "connected"} />
    <${Tile} label="Cpus" value=${count(cpus)} detail="offered by the workers" />
  </dl>`;
}

function Row({ session, now }) {
  const { id, tasks } = session;
  return html`<tr>
    <td class="id num">${id}</td>
    <td class="grow" data-label="Name"><a href=${link(["sessions", id])}>${session.name || `Session ${id}`}</a>
      ${session.status === "error" && session.message && html`<div class="message" title=${session.message}>${gist(session.message)}</div>`}</td>
    <td data-label="Status"><${State} state=${session.status} /></td>
    <td data-label="Tasks" class="tasks"><${Progress} tasks=${tasks} label=${`Tasks of session ${id}`} /> ${done(tasks)}</td>
    <td data-label="Client" class="muted num">${session.client}</td>
    <td data-label="Created" class="num" title=${fullTime(session.created)}>${time(session.created, now)}</td>
    <td data-label="Duration" class="num right">${duration((session.ended ?? now) - session.created)}</td>
  </tr>`;
}

export function SessionsPage() {
  const answer = useApi("sessions");
  const { status } = useConnection();
  const now = useNow();
  const [words, setWords] = useState("");
  const [kind, setKind] = useState("");
  const [page, setPage] = useState(0);
  const wait = pending(answer);
  if (wait) return html`<h1>Sessions</h1>${wait}`;
  const all = answer.data.sessions;
  const wanted = words.toLowerCase();
  const found = all.filter((session) => (!kind || session.status === kind)
    && (!wanted || `${session.id} ${session.name}`.toLowerCase().includes(wanted)));
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  const shown = Math.min(page, pages - 1);
  const kinds = Object.keys(SESSION_STATUS).filter((name) => all.some((session) => session.status === name));
  const first = (set) => (event) => {
    set(event.currentTarget.value);
    setPage(0);
  };
  return html`<h1>Sessions</h1>
    ${status && html`<${Tiles} status=${status} />`}
    ${all.length === 0 ? html`<${Empty} title="No session yet">Start one from Python: <code>with Client("${status?.address}") as client,
      client.new_session("first") as session: \u2026</code><//>` : html`
    <div class="tools"><label class="field"><span class="unseen">Filter by id or name</span>
        <input type="search" data-filter placeholder="Filter by id or name" value=${words} onInput=${first(setWords)} /></label>
      <label class="field"><span class="unseen">Status</span><select value=${kind} onChange=${first(setKind)}>
        <option value="">Any status</option>${kinds.map((name) => html`<option key=${name} value=${name}>${SESSION_STATUS[name]}</option>`)}</select></label>
      <span class="muted">${found.length === all.length ? "" : `${count(found.length)} of `}${plural(all.length, "session")}${all.length >= 1000 ? ", the newest" : ""}</span></div>
    <div class="card flush"><table class="rows stack">
      <thead><tr><th>Id</th><th>Name</th><th>Status</th><th>Tasks</th><th>Client</th><th>Created</th><th class="right">Duration</th></tr></thead>
      <tbody>${found.slice(shown * PAGE, (shown + 1) * PAGE).map((session) => html`<${Row} key=${session.id} session=${session} now=${now} />`)}</tbody>
    </table>${found.length === 0 && html`<p class="none">No session matches the filter.</p>`}</div>
    <${Pager} page=${shown} pages=${pages} onPage=${setPage} label="sessions" />`}`;
}
