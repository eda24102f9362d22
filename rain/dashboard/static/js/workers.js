// Workers: what they offer, what they do, how loaded they are.
import { html, useState } from "./lib.js";
import { useApi, useConnection, useNow } from "./api.js";
import { count, duration, fullTime, plain, rate, resources, size } from "./format.js";
import { Chart } from "./chart.js";
import { Choice, Empty, Fact, Pager, Problem, State, pending } from "./parts.js";

const PAGE = 12;

function Meter({ label, value }) {
  const known = value !== null && value !== undefined;
  return html`<div class="meter"><span>${label}</span><span class="track" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${known ? Math.round(value) : undefined} aria-valuetext=${plain(value)}><i style=${{ width: `${known ? Math.min(100, value) : 0}%` }}></i></span>
    <b class="num">${plain(value)}</b></div>`;
}

function pairs(counts, none) {
  const shown = Object.entries(counts || {}).filter(([, n]) => n);
  return shown.length ? shown.map(([name, n]) => `${count(n)} ${name}`).join(", ") : none;
}

function Worker({ worker, now }) {
  const { history, store, net } = worker;
  const pick = (...columns) => history.map((point) => [point[0], ...columns.map((column) => point[column])]);
  return html`<section class="card worker" aria-label=${`Worker ${worker.id}`}>
    <div class="title small"><h2>${worker.hostname || worker.id}</h2><${State} state=${worker.state} />
      <span class="muted num">${worker.id}${worker.pid ? `, pid ${worker.pid}` : ""}</span></div>
    ${worker.reason && html`<p class="reason">${worker.reason}</p>`}
    <div class="meters"><${Meter} label="Cpu" value=${worker.cpu} /><${Meter} label="Memory" value=${worker.memory} /></div>
    <dl class="facts tight">
      <${Fact} label="Resources">${resources(worker.resources)}<//>
      <${Fact} label="Tasks"><span class="num">${count(worker.running)} running, ${count(worker.finished)} finished</span><//>
      <${Fact} label="Executors">${pairs(worker.executors, "none")}<//>
      <${Fact} label="Store"><span class="num">${size(store?.memory)} memory, ${size(store?.disk)} disk</span><//>
      <${Fact} label="Network"><span class="num">${rate(net?.rx)} in, ${rate(net?.tx)} out</span><//>
      <${Fact} label=${worker.lost ? "Was there" : "Connected"}><span class="num" title=${`${fullTime(worker.since)} \u2013 ${fullTime(worker.lost)}`}>
        ${duration((worker.lost ?? now) - worker.since)}</span><//>
    </dl>
    ${history.length > 1 ? html`<div class="charts">
      <${Chart} label="Load" points=${pick(1, 2)} series=${[{ label: "cpu", tone: "accent" }, { label: "memory", tone: "second" }]} text=${plain} top=${100} height=${110} />
      <${Chart} label="Network" points=${pick(3, 4)} series=${[{ label: "in", tone: "accent" }, { label: "out", tone: "second" }]} text=${rate} top=${1000} height=${110} />
      <${Chart} label="Store" points=${pick(5)} series=${[{ label: "bytes", tone: "accent" }]} text=${size} top=${1000} height=${110} area /></div>`
      : html`<p class="none">Measurements come every few seconds.</p>`}
  </section>`;
}

export function WorkersPage() {
  const answer = useApi("workers");
  const { status } = useConnection();
  const now = useNow();
  const [kind, setKind] = useState("there");
  const [page, setPage] = useState(0);
  const wait = pending(answer);
  if (wait) return html`<h1>Workers</h1>${wait}`;
  const { workers } = answer.data;
  const there = workers.filter((worker) => worker.state !== "lost");
  const lost = workers.length - there.length;
  const listed = kind === "there" && there.length > 0 ? there : workers;
  const pages = Math.max(1, Math.ceil(listed.length / PAGE));
  const shown = Math.min(page, pages - 1);
  return html`<h1>Workers</h1>
    ${answer.error && html`<${Problem} error=${answer.error} />`}
    ${workers.length === 0 ? html`<${Empty} title="No worker yet">Start one: <code>rain worker ${status?.address}</code>. Tasks wait until then.<//>` : html`
    ${lost > 0 && there.length > 0 && html`<div class="tools"><${Choice} label="Which workers" value=${kind} onChange=${setKind}
      options=${[["there", `Connected (${there.length})`], ["all", `All (${workers.length})`]]} /></div>`}
    <div class="workers">${listed.slice(shown * PAGE, (shown + 1) * PAGE).map((worker) => html`<${Worker} key=${`${worker.id} ${worker.since}`} worker=${worker} now=${now} />`)}</div>
    <${Pager} page=${shown} pages=${pages} onPage=${setPage} label="workers" />`}`;
}
