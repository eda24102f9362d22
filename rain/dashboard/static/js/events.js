// The event log, newest first.
import { html, useState } from "./lib.js";
import { query, useApi } from "./api.js";
import { count, duration, fullTime, gist, idText, logTime, size } from "./format.js";
import { CursorPager, Empty, Problem, pending, useCursor } from "./parts.js";
import { link, replace, taskLink } from "./route.js";

const PAGE = 100;
const TYPES = ["SessionNew", "SessionClosed", "SessionAttached", "SessionDetached", "ClientSubmit", "ClientUnkeep", "ClientNew", "ClientRemoved",
  "ClientInvalidRequest", "TaskStarted", "TaskFinished", "TaskFailed", "TaskRetried", "TaskCancelled", "TaskAborted", "TaskInfeasible",
  "DataObjectFinished", "WorkerNew", "WorkerStopping", "WorkerRemoved", "Monitoring"];
const BAD = new Set(["TaskFailed", "TaskInfeasible", "WorkerRemoved", "ClientInvalidRequest"]);

function brief(text, most = 160) {
  const line = gist(text);
  return line.length > most ? `${line.slice(0, most)}\u2026` : line;
}

function bad(event) {
  return BAD.has(event.type) || Boolean(event.info?.error) || event.reason === "Error";
}

/** What an event says, in a line. */
function told(event) {
  const { type, info } = event;
  const task = event.task === undefined ? "" : `task ${idText(event.task)}`;
  switch (type) {
    case "SessionNew": return `${event.spec?.name || "(no name)"} by ${event.client}`;
    case "SessionClosed": return [event.reason, brief(event.message)].filter(Boolean).join(": ");
    case "ClientSubmit": return `${count(event.tasks?.length)} task specs, ${count(event.dataobjs?.length)} object specs`;
    case "TaskStarted": return `${task} on ${event.worker}`;
    case "TaskFinished":
    case "TaskFailed": return `${task}${info?.error ? `: ${brief(info.error)}` : info?.duration === undefined ? "" : ` in ${duration(info.duration)}`}`;
    case "TaskRetried": return `${task}, run ${event.run}: ${brief(event.reason)}`;
    case "DataObjectFinished": return `object ${idText(event.dataobject)}, ${size(event.size)}, on ${event.worker}`;
    case "WorkerNew":
    case "WorkerStopping": return event.worker;
    case "WorkerRemoved": return [event.worker, brief(event.error_msg)].filter(Boolean).join(": ");
    case "ClientNew":
    case "ClientRemoved":
    case "ClientInvalidRequest": return [event.client, brief(event.error_msg)].filter(Boolean).join(": ");
    case "Monitoring": {
      const cpu = event.cpu_usage || [];
      const mean = cpu.length ? cpu.reduce((sum, n) => sum + n, 0) / cpu.length : 0;
      return `${event.worker}: cpu ${Math.round(mean)} %, memory ${Math.round(event.mem_usage ?? 0)} %`;
    }
    default: return [task, brief(event.reason || event.client || "")].filter(Boolean).join(": ");
  }
}

function Row({ entry }) {
  const [open, setOpen] = useState(false);
  const { event } = entry;
  const task = Array.isArray(event.task) ? event.task : event.task === undefined ? null : [event.session, event.task];
  const session = event.session ?? task?.[0] ?? (Array.isArray(event.dataobject) ? event.dataobject[0] : null);
  return html`<tr class=${bad(event) ? "bad" : ""}>
      <td data-label="Time" class="num"><button type="button" class="twist" aria-expanded=${open} aria-label=${`Event ${entry.id} as JSON`} onClick=${() => setOpen(!open)}>
        <svg viewBox="0 0 16 16" aria-hidden="true"><path d="M6 4l4 4-4 4" /></svg></button><span title=${entry.time}>${fullTime(logTime(entry.time))}</span></td>
      <td data-label="Type"><span class="kind">${event.type}</span></td>
      <td data-label="Session" class="num">${session ? html`<a href=${link(["sessions", session])}>${session}</a>` : ""}</td>
      <td class="grow">${task && task[0] ? html`<a href=${taskLink(task[0], task[1])}>${told(event)}</a>` : told(event)}</td>
    </tr>
    ${open && html`<tr class="inner"><td colspan="4"><pre class="text">${json(event)}</pre></td></tr>`}`;
}

function json(event) {
  const text = JSON.stringify(event, null, 2);
  return text.length > 20000 ? `${text.slice(0, 20000)}\n\u2026 (${count(text.length)} characters; all of it: rain events --output json)` : text;
}

export function EventsPage({ params }) {
  const { session = "", type = "" } = params;
  const [follow, setFollow] = useState(true);
  const cursor = useCursor(`${session}|${type}`);
  // Older pages stay as they are; the newest follows the log.
  const answer = useApi(`events${query({ before: cursor.at || "", session, type, limit: PAGE })}`, { live: follow && cursor.isFirst });
  const set = (fields) => replace(link(["events"], { session, type, ...fields }));
  const wait = pending(answer);
  return html`<h1>Events</h1>
    <div class="tools">
      <label class="field"><span>Session</span><input type="number" min="1" inputmode="numeric" data-filter placeholder="all" value=${session}
        onInput=${(event) => set({ session: event.currentTarget.value })} /></label>
      <label class="field"><span>Type</span><select value=${type} onChange=${(event) => set({ type: event.currentTarget.value })}>
        <option value="">all</option>${TYPES.map((name) => html`<option key=${name}>${name}</option>`)}</select></label>
      ${(session || type) && html`<a class="small" href="#/events">Show all</a>`}
      ${cursor.isFirst && html`<label class="check"><input type="checkbox" checked=${follow} onChange=${(event) => setFollow(event.currentTarget.checked)} /> Follow the log</label>`}
      ${!cursor.isFirst && html`<button type="button" class="small" onClick=${cursor.start}>Newest</button>`}</div>
    ${wait || html`${answer.error && html`<${Problem} error=${answer.error} />`}
      ${answer.data.events.length === 0 ? html`<${Empty} title="No such event">${session || type ? "Nothing in the log matches the filter."
        : "The log is empty: events come when a worker or a client connects."}<//>`
      : html`<div class="card flush"><table class="rows stack events"><thead><tr><th>Time</th><th>Type</th><th>Session</th><th>What</th></tr></thead>
        <tbody>${answer.data.events.map((entry) => html`<${Row} key=${entry.id} entry=${entry} />`)}</tbody></table></div>`}
      <${CursorPager} cursor=${cursor} next=${answer.data.next} back="Newer" forward="Older" label="events" />`}`;
}
