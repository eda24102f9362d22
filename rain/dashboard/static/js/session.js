// One session: its summary, and the tabs.
import { html } from "./lib.js";
import { useApi, useNow } from "./api.js";
import { STATES, count, duration, fullTime, percent, plural, size } from "./format.js";
import { Chart } from "./chart.js";
import { Empty, Fact, Progress, State, Tabs, pending } from "./parts.js";
import { link, taskLink } from "./route.js";
import { GraphView } from "./graph.js";
import { Inspector } from "./inspector.js";
import { StreamView } from "./stream.js";

const TABS = [["summary", "Summary"], ["tasks", "Tasks"], ["graph", "Graph"], ["stream", "Stream"]];
const POLICY = { fail: "the session fails", continue: "only dependents are aborted" };

function Legend({ session }) {
  const { tasks, id } = session;
  const shown = STATES.filter((state) => tasks[state] || ["finished", "running", "waiting"].includes(state));
  return html`<ul class="counts">${shown.map((state) => html`<li key=${state}>
    <a href=${link(["sessions", id, "tasks"], { state })}><${State} state=${state} /> <b class="num">${count(tasks[state])}</b></a></li>`)}</ul>`;
}

function FirstError({ session }) {
  const error = session.first_error;
  if (!error && session.status !== "error") return null;
  return html`<section class="card trouble"><h2>${error ? "First error" : "Error"}</h2>
    ${error && html`<p>Task <a href=${taskLink(session.id, error.task)}>${error.name || error.task}</a> failed:</p>
      <pre class="text">${error.message}</pre>`}
    ${session.status === "error" && session.message && session.message !== error?.message && html`<p class="muted">The session ended with:</p>
      <pre class="text">${session.message}</pre>`}</section>`;
}

function Summary({ session, now }) {
  const { tasks } = session;
  return html`<section class="card">
      <div class="headline"><b class="big num">${percent(tasks.finished, tasks.total)}</b>
        <span class="muted">${count(tasks.finished)} of ${plural(tasks.total, "task")} finished${tasks.running ? `, ${count(tasks.running)} running` : ""}</span></div>
      <${Progress} tasks=${tasks} label="Tasks of the session" thick />
      <${Legend} session=${session} />
    </section>
    <${FirstError} session=${session} />
    <section class="card"><dl class="facts">
      <${Fact} label="Submits">${count(session.submits)}<//>
      <${Fact} label="Data objects">${count(session.objects)}<//>
      <${Fact} label="Size of finished objects">${size(session.bytes)}<//>
      <${Fact} label="Client"><span class="num">${session.client}</span><//>
      <${Fact} label="Created"><span class="num">${fullTime(session.created).slice(0, 19)}</span><//>
      <${Fact} label=${session.ended ? "Ended" : "Runs for"}><span class="num">${session.ended
        ? fullTime(session.ended).slice(0, 19) : duration(now - session.created)}</span><//>
      ${session.ended && session.status !== "error" && session.message && html`<${Fact} label="Why it ended">${session.message}<//>`}
      <${Fact} label="When a task fails">${POLICY[session.on_failure] || session.on_failure}<//>
      <${Fact} label="Events"><a href=${link(["events"], { session: session.id })}>Events of this session</a><//>
    </dl></section>
    ${session.unprocessed.length > 0 && html`<section class="card"><${Chart} label="Unprocessed tasks" points=${session.unprocessed}
      series=${[{ label: "unprocessed", tone: "accent" }]} text=${(n) => count(Math.round(n))} height=${190} area step /></section>`}`;
}

export function SessionPage({ session: id, tab, params }) {
  const answer = useApi(`sessions/${encodeURIComponent(id)}`);
  const now = useNow();
  const wait = pending(answer);
  if (wait) return html`<p class="crumbs"><a href="#/sessions">Sessions</a></p><h1>Session ${id}</h1>${wait}`;
  const session = answer.data;
  const tabs = TABS.map(([name, label]) => ({ id: name, label, href: link(["sessions", id, ...(name === "summary" ? [] : [name])]) }));
  const label = TABS.find(([name]) => name === tab)?.[1] || "Summary";
  const none = session.tasks.total === 0;
  return html`<p class="crumbs"><a href="#/sessions">Sessions</a> <span aria-hidden="true">/</span> ${id}</p>
    <div class="title"><h1>${session.name || `Session ${id}`}</h1><${State} state=${session.status} />
      <span class="muted num">${duration((session.ended ?? now) - session.created)}</span></div>
    <${Tabs} tabs=${tabs} current=${tab} label="Views of the session" />
    <div role="tabpanel" aria-label=${label} class="panel">
      ${none && tab !== "summary" ? html`<${Empty} title="Nothing was submitted yet">Tasks appear here after
        ${" "}<code>session.submit()</code>.<//>`
        : tab === "tasks" ? html`<${Inspector} session=${id} summary=${session} params=${params} />`
        : tab === "graph" ? html`<${GraphView} session=${id} />`
        : tab === "stream" ? html`<${StreamView} key=${id} session=${id} />`
        : html`<${Summary} session=${session} now=${now} />`}
    </div>`;
}
