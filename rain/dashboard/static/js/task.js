// One task: what was asked, what happened, why it waits, what it wrote.
import { html, useEffect, useRef, useState } from "./lib.js";
import { ask, query, useApi, useConnection, useNow } from "./api.js";
import { duration, fullTime, idText, plural, resources, size } from "./format.js";
import { Choice, Copy, Fact, Problem, State, pending } from "./parts.js";
import { link, taskLink } from "./route.js";

const PIECE = 65536;
const KEPT = 16 * PIECE;
const TERMINAL = ["finished", "failed", "cancelled", "aborted"];

/** JSON for people: lists without lists or objects in them stand on one line if they are short. */
function json(value) {
  return JSON.stringify(value, null, 2).replace(/\[\n\s+([^[\]{}]*?)\n\s+\]/g, (whole, inside) => {
    const line = `[${inside.replace(/,\n\s+/g, ", ")}]`;
    return line.length < 80 ? line : whole;
  });
}

const PAST = "This is a log of the past: there is no server that could be asked.";
const OVER = "The session is over: the server does not keep this any longer.";

/** Why the server cannot be asked about a task; "" when it can, null while that is not known. */
function useSilence(session) {
  const { status } = useConnection();
  const past = status !== null && !status.live;
  const { data, error } = useApi(past ? null : `sessions/${session}`);
  if (past) return PAST;
  if (!data) return error ? "" : null;
  return ["closed", "lost", "expired"].includes(data.status) ? OVER : "";
}

/** Shows its content only when there is a server that can answer. */
function Asking({ session, children }) {
  const silence = useSilence(session);
  return silence === null ? null : silence ? html`<p class="none">${silence}</p>` : children;
}

// --- log --------------------------------------------------------------------------------------------

const NOTHING = { text: "", from: 0, next: null, size: 0, ended: false, hint: "", error: null };

/** Follows one stream from its last piece on; `earlier` gets the piece before. */
function useLog(session, task, stream) {
  const [log, setLog] = useState(NOTHING);
  const current = useRef(null);
  const path = (offset) => `tasks/${session}/${task}/log${query({ stream, offset })}`;

  useEffect(() => {
    let alive = true;
    let timer = null;
    const show = (fields) => {
      current.current = { ...current.current, ...fields };
      setLog(current.current);
    };
    const piece = async () => {
      const { next } = current.current;
      const answer = await ask(path(next ?? 0));
      const isLong = next === null && answer.size > PIECE && answer.next < answer.size;
      return isLong ? ask(path(answer.size - PIECE)) : answer;
    };
    const take = (answer) => {
      const old = current.current;
      // Another run of the task writes a log of its own, from the beginning.
      const isNew = old.next === null || answer.size < old.next;
      if (isNew && old.next !== null) {
        current.current = NOTHING;
        return 0;
      }
      let text = old.text + answer.text;
      if (text.length > KEPT) text = text.slice(-KEPT / 2);
      const from = isNew ? answer.offset : text.length < old.text.length ? answer.next - new TextEncoder().encode(text).length : old.from;
      show({ text, from, next: answer.next, size: answer.size, ended: answer.ended, hint: answer.hint, error: null });
      if (answer.next < answer.size) return 0;
      return answer.ended ? null : 1000;
    };
    const step = async () => {
      let wait = 3000;
      try {
        const answer = await piece();
        if (!alive) return;
        wait = take(answer);
      } catch (error) {
        if (!alive) return;
        show({ error });
        // What the server does not know it will not know later; everything else may come back.
        if (error.status >= 400 && error.status < 500) return;
      }
      if (wait !== null) timer = setTimeout(step, wait);
    };
    current.current = NOTHING;
    setLog(NOTHING);
    step();
    return () => {
      alive = false;
      clearTimeout(timer);
    };
  }, [session, task, stream]);

  const earlier = async () => {
    const { from } = current.current;
    const start = Math.max(0, from - PIECE);
    try {
      const answer = await ask(path(start));
      const text = new TextDecoder().decode(new TextEncoder().encode(answer.text).slice(0, from - start));
      current.current = { ...current.current, from: start, text: text + current.current.text };
    } catch (error) {
      current.current = { ...current.current, error };
    }
    setLog(current.current);
  };
  return [log, earlier];
}

function Log(props) {
  return html`<${Asking} session=${props.session}><${LiveLog} ...${props} /><//>`;
}

function LiveLog({ session, task }) {
  const [stream, setStream] = useState("stdout");
  const [follow, setFollow] = useState(true);
  const [log, earlier] = useLog(session, task, stream);
  const box = useRef(null);
  useEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [log.text, follow]);
  return html`<div class="tools">
      <${Choice} label="Stream" value=${stream} onChange=${setStream} options=${[["stdout", "stdout"], ["stderr", "stderr"]]} />
      <label class="check"><input type="checkbox" checked=${follow} onChange=${(event) => setFollow(event.currentTarget.checked)} /> Follow the end</label>
      <span class="muted num">${log.next === null ? "" : `${size(log.size)}${log.ended ? "" : ", still written"}`}</span>
      ${log.text && html`<${Copy} text=${log.text} what="the log" />`}</div>
    ${log.error && (log.error.status === 404 ? html`<p class="none">${log.error.message}</p>` : html`<${Problem} error=${log.error} />`)}
    ${log.from > 0 && html`<p><button type="button" class="small" onClick=${earlier}>Show what came before</button></p>`}
    ${log.text ? html`<pre class="log" ref=${box} tabindex="0" aria-label=${`${stream} of task ${task}`}>${log.text}</pre>`
      : log.next !== null && html`<p class="none">${log.hint || (log.ended ? `The task wrote nothing to ${stream}.` : "Nothing was written yet.")}</p>`}
    ${log.text && log.hint && html`<p class="muted">${log.hint}</p>`}`;
}

// --- explanation ------------------------------------------------------------------------------------

function Explanation(props) {
  return html`<${Asking} session=${props.session}><${AskedExplanation} ...${props} /><//>`;
}

function AskedExplanation({ session, task }) {
  const answer = useApi(`tasks/${session}/${task}/explain`);
  if (answer.error?.status === 404) return html`<p class="none">${answer.error.message}</p>`;
  return pending(answer) || html`<pre class="text">${answer.data.text}</pre>`;
}

// --- inputs and outputs -----------------------------------------------------------------------------

function ObjectTable({ session, objects, kind }) {
  const [all, setAll] = useState(false);
  if (objects.length === 0) return html`<p class="none">${kind === "inputs" ? "It needs no inputs." : "It has no outputs."}</p>`;
  const shown = all ? objects : objects.slice(0, 20);
  return html`<table class="rows inset"><thead><tr><th>Object</th><th>State</th><th class="right">Size</th><th>${kind === "inputs" ? "From" : "Type"}</th></tr></thead>
    <tbody>${shown.map((object, index) => html`<tr key=${index}>
      <td class="grow"><span class="num">${idText(object.id)}</span> ${object.label}</td>
      <td><${State} state=${object.state} />${object.kept && html` <span class="tag">kept</span>`}</td>
      <td class="num right">${size(object.size)}</td>
      <td>${kind === "inputs"
        ? object.producer ? html`<a href=${taskLink(session, object.producer)}>task ${object.producer}</a>` : html`<span class="muted">constant</span>`
        : html`<span class="muted">${object.content_type || "\u2013"}</span>`}</td></tr>`)}</tbody></table>
    ${!all && objects.length > shown.length && html`<p><button type="button" class="small" onClick=${() => setAll(objects.length <= 500)}
      disabled=${objects.length > 500}>${objects.length > 500 ? `and ${objects.length - 20} more` : `Show all ${objects.length}`}</button></p>`}`;
}

// --- the whole --------------------------------------------------------------------------------------

function Info({ task }) {
  const now = useNow();
  const lasts = task.duration ?? (task.state === "running" && task.start ? Math.max(0, now - task.start) : null);
  return html`<dl class="facts">
    <${Fact} label="Type"><code>${task.type}</code><//>
    <${Fact} label="Worker">${task.worker ? html`<span class="num">${task.worker}</span>` : "\u2013"}<//>
    <${Fact} label="Start"><span class="num">${fullTime(task.start)}</span><//>
    <${Fact} label=${task.state === "running" ? "Runs for" : "Duration"}><span class="num">${duration(lasts)}</span><//>
    <${Fact} label="Runs"><span class="num">${task.attempts}</span><//>
    <${Fact} label="Resources">${resources(task.spec.resources)}<//>
  </dl>`;
}

function Trouble({ task }) {
  if (!task.error && !task.debug) return null;
  return html`<section class=${`card${task.error ? " trouble" : ""}`}><h2>${task.error ? "Error" : "Debug"}</h2>
    ${task.error && html`<pre class="text">${task.error}</pre>`}
    ${task.debug && html`<details open=${!task.error}><summary>Debug output</summary><pre class="text">${task.debug}</pre></details>`}</section>`;
}

/** Asks for what is inside only when it is opened. */
function Later({ title, children }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(event) => setOpen(event.currentTarget.open)}><summary>${title}</summary>${open && children}</details>`;
}

const WHY = { waiting: "Why it waits", aborted: "Why it was aborted" };
const VIEWS = [["info", "Info"], ["spec", "Spec"], ["explain", "Explanation"], ["log", "Log"]];

/** What the inspector shows below a task. */
export function TaskDetails({ session, task: id }) {
  const [view, setView] = useState("info");
  const answer = useApi(`tasks/${session}/${id}`);
  const wait = pending(answer);
  if (wait) return wait;
  const task = answer.data;
  return html`<div class="details"><${Choice} label="What to show" options=${VIEWS} value=${view} onChange=${setView} />
    ${view === "info" && html`<${Info} task=${task} />${task.error && html`<pre class="text">${task.error}</pre>`}
      <p><a href=${taskLink(session, id)}>Open the page of the task</a></p>`}
    ${view === "spec" && html`<pre class="text">${json(task.spec)}</pre>`}
    ${view === "explain" && html`<${Explanation} session=${session} task=${id} />`}
    ${view === "log" && html`<${Log} session=${session} task=${id} />`}</div>`;
}

export function TaskPage({ session, task: id }) {
  const answer = useApi(`tasks/${encodeURIComponent(session)}/${encodeURIComponent(id)}`);
  const wait = pending(answer);
  const crumbs = html`<p class="crumbs"><a href="#/sessions">Sessions</a> <span aria-hidden="true">/</span> <a href=${link(["sessions", session])}>${session}</a>
    ${" "}<span aria-hidden="true">/</span> <a href=${link(["sessions", session, "tasks"])}>tasks</a> <span aria-hidden="true">/</span> ${id}</p>`;
  if (wait) return html`${crumbs}<h1>Task ${id}</h1>${wait}`;
  const task = answer.data;
  const user = Object.keys(task.user || {}).length > 0;
  return html`${crumbs}
    <div class="title"><h1>${task.name || task.type}</h1><${State} state=${task.state} /><span class="muted num">task ${id}</span></div>
    <section class="card"><${Info} task=${task} /></section>
    <${Trouble} task=${task} />
    ${!TERMINAL.includes(task.state) || task.state === "aborted" ? html`<section class="card"><h2>${WHY[task.state] || "Explanation"}</h2>
      <${Explanation} session=${session} task=${id} /></section>` : null}
    <section class="card"><h2>Log</h2><${Log} session=${session} task=${id} /></section>
    <div class="columns">
      <section class="card"><h2>${plural(task.inputs.length, "input")}</h2><${ObjectTable} session=${session} objects=${task.inputs} kind="inputs" /></section>
      <section class="card"><h2>${plural(task.outputs.length, "output")}</h2><${ObjectTable} session=${session} objects=${task.outputs} kind="outputs" /></section>
    </div>
    <section class="card"><h2>History</h2>${task.history.length === 0 ? html`<p class="none">Nothing happened to it yet.</p>`
      : html`<ol class="history">${task.history.slice(-200).map((entry, index) => html`<li key=${index}><time class="num muted">${fullTime(entry.time)}</time>
        <span>${entry.text}</span></li>`)}</ol>`}
      ${task.state !== "aborted" && TERMINAL.includes(task.state) && html`<${Later} title="Explanation"><${Explanation} session=${session} task=${id} /><//>`}</section>
    <section class="card"><h2>Spec</h2><${Copy} text=${json(task.spec)} what="the spec" /><pre class="text">${json(task.spec)}</pre>
      ${user && html`<h2>User info</h2><pre class="text">${json(task.user)}</pre>`}</section>`;
}
