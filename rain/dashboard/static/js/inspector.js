// The tasks of a session as a tree by name; only the pages that are open are asked for.
import { html, useState } from "./lib.js";
import { query, useApi } from "./api.js";
import { STATES, count, duration, fullTime, percent } from "./format.js";
import { CursorPager, Pager, Problem, Progress, State, done, pending, useCursor } from "./parts.js";
import { go, link, replace, taskLink } from "./route.js";
import { TaskDetails } from "./task.js";

const PAGE = 100;
const COLUMNS = 6;

/** Heat of a share: what takes most of the time stands out. */
function Share({ share }) {
  if (share === null || share === undefined) return html`<span class="muted">\u2013</span>`;
  const heat = Math.round(100 * Math.min(1, Math.sqrt(share)));
  return html`<span class="heat num" style=${{ "--heat": `${heat}%`, "--share": `${100 * share}%` }}>${percent(share, 1)}</span>`;
}

function spread(group) {
  if (group.mean === null || group.mean === undefined) return "\u2013";
  return html`${duration(group.mean)}${group.std ? html` <span class="muted">\u00b1 ${duration(group.std)}</span>` : ""}`;
}

function Twist({ open, onClick, label }) {
  return html`<button type="button" class="twist" aria-expanded=${open} aria-label=${label} onClick=${onClick}>
    <svg viewBox="0 0 16 16" aria-hidden="true"><path d="M6 4l4 4-4 4" /></svg></button>`;
}

function GroupRow({ session, group, depth }) {
  const [open, setOpen] = useState(false);
  const toggle = () => setOpen(!open);
  return html`<tr class="group">
      <td class="grow" style=${{ "--depth": depth }}><${Twist} open=${open} onClick=${toggle} label=${`${group.leaf ? "Tasks" : "Groups"} of ${group.path}`} />
        <span class="name" onClick=${toggle}>${group.name || "(no name)"}${group.leaf ? "" : html`<span class="muted">/</span>`}</span></td>
      <td data-label="Tasks" class="tasks"><${Progress} tasks=${group} label=${`Tasks of ${group.path}`} /> ${done(group)}
        ${group.failed > 0 && html` <${State} state="failed" label=${`${count(group.failed)} failed`} />`}</td>
      <td data-label="Mean" class="num right">${spread(group)}</td>
      <td data-label="Sum" class="num right">${duration(group.sum)}</td>
      <td data-label="Share" class="right"><${Share} share=${group.share} /></td>
      <td class="right"><a class="small" href=${link(["sessions", session, "tasks"], { group: group.path })} aria-label=${`List the tasks of ${group.path}`}>List</a></td>
    </tr>
    ${open && (group.leaf
      ? html`<tr class="inner"><td colspan=${COLUMNS}><${TaskList} session=${session} group=${group.path} /></td></tr>`
      : html`<${Level} session=${session} prefix=${group.path} depth=${depth + 1} />`)}`;
}

function Level({ session, prefix, depth }) {
  const answer = useApi(`sessions/${session}/groups${query({ prefix })}`);
  const [page, setPage] = useState(0);
  const wait = pending(answer);
  if (wait) return html`<tr class="inner"><td colspan=${COLUMNS}>${wait}</td></tr>`;
  const { groups, more } = answer.data;
  const pages = Math.max(1, Math.ceil(groups.length / PAGE));
  const shown = Math.min(page, pages - 1);
  return html`${groups.slice(shown * PAGE, (shown + 1) * PAGE).map((group) =>
      html`<${GroupRow} key=${group.path} session=${session} group=${group} depth=${depth} />`)}
    ${(pages > 1 || more > 0) && html`<tr class="inner"><td colspan=${COLUMNS}>
      <${Pager} page=${shown} pages=${pages} onPage=${setPage} label=${prefix || "groups"} />
      ${more > 0 && html`<p class="muted">${count(more)} more groups with smaller sums are not shown.</p>`}</td></tr>`}`;
}

function TaskRow({ session, task }) {
  const [open, setOpen] = useState(false);
  return html`<tr>
      <td class="grow"><${Twist} open=${open} onClick=${() => setOpen(!open)} label=${`Details of task ${task.id}`} />
        <a href=${taskLink(session, task.id)}><span class="num">${task.id}</span> ${task.name || task.type}</a></td>
      <td data-label="State"><${State} state=${task.state} /></td>
      <td data-label="Worker" class="num muted">${task.worker || "\u2013"}</td>
      <td data-label="Start" class="num">${task.start ? fullTime(task.start).slice(11) : "\u2013"}</td>
      <td data-label="Duration" class="num right">${duration(task.duration)}</td>
    </tr>
    ${open && html`<tr class="inner"><td colspan="5"><${TaskDetails} session=${session} task=${task.id} /></td></tr>`}`;
}

function TaskList({ session, group, state }) {
  const cursor = useCursor(`${group}|${state}`);
  const answer = useApi(`sessions/${session}/tasks${query({ group, state, after: cursor.at || "", limit: PAGE })}`);
  const wait = pending(answer);
  if (wait) return wait;
  const { tasks, next } = answer.data;
  return html`${answer.error && html`<${Problem} error=${answer.error} />`}
    ${tasks.length === 0 ? html`<p class="none">No task is in this state now.</p>` : html`<table class="rows stack inset">
      <thead><tr><th>Task</th><th>State</th><th>Worker</th><th>Start</th><th class="right">Duration</th></tr></thead>
      <tbody>${tasks.map((task) => html`<${TaskRow} key=${task.id} session=${session} task=${task} />`)}</tbody></table>`}
    <${CursorPager} cursor=${cursor} next=${next} label=${group || "tasks"} />`;
}

export function Inspector({ session, summary, params }) {
  const { state = "", group = "" } = params;
  const flat = Boolean(state || group);
  const choose = (event) => replace(link(["sessions", session, "tasks"], { state: event.currentTarget.value, group }));
  const find = (event) => {
    const wanted = event.currentTarget.value.trim();
    if (/^\d+$/.test(wanted)) go(taskLink(session, wanted));
    else replace(link(["sessions", session, "tasks"], { state, group: wanted }));
  };
  return html`<div class="tools"><label class="field"><span class="unseen">Name, group or id of tasks; Enter finds them</span>
      <input type="search" data-filter placeholder="Name, group or id" value=${group} onChange=${find} /></label>
    <label class="field"><span>State</span><select value=${state} onChange=${choose}>
      <option value="">Any</option>${STATES.map((name) => html`<option key=${name} value=${name}>${name} (${summary.tasks[name] || 0})</option>`)}</select></label>
      ${flat && html`<span>${group ? html`Tasks of <b>${group}</b>` : "All groups"}</span>
        <a class="small" href=${link(["sessions", session, "tasks"])}>Back to the tree</a>`}</div>
    <div class="card flush">${flat ? html`<${TaskList} session=${session} group=${group} state=${state} />` : html`<table class="rows stack tree">
      <thead><tr><th>Name</th><th>Tasks</th><th class="right">Mean duration</th><th class="right">Sum</th><th class="right">Share</th><th></th></tr></thead>
      <tbody><${Level} session=${session} prefix="" depth=${0} /></tbody></table>`}</div>`;
}
