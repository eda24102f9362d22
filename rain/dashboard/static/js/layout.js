// Where the nodes of a directed graph are drawn: layers from left to right. Pure.

const SWEEPS = 6;
const ASPECT = 1.5;

function neighbours(size, edges, index) {
  const before = Array.from({ length: size }, () => []);
  const after = Array.from({ length: size }, () => []);
  for (const [from, to] of edges) {
    const a = index.get(from);
    const b = index.get(to);
    if (a === undefined || b === undefined || a === b) continue;
    after[a].push(b);
    before[b].push(a);
  }
  return { before, after };
}

/** Longest way from a source. Groups of tasks may depend on one another in a circle: the edge that closes it is left out. */
function layersOf(size, before, after) {
  const layer = new Int32Array(size);
  const waits = before.map((list) => list.length);
  const seen = new Uint8Array(size);
  const queue = [];
  for (let v = 0; v < size; v += 1) if (!waits[v]) queue.push(v);
  let next = 0;
  for (let placed = 0; placed < size; placed += 1) {
    if (next === queue.length) {
      let best = -1;
      for (let v = 0; v < size; v += 1) if (!seen[v] && (best < 0 || waits[v] < waits[best])) best = v;
      queue.push(best);
      waits[best] = 0;
    }
    const v = queue[next];
    next += 1;
    seen[v] = 1;
    for (const w of after[v]) {
      if (seen[w]) continue;
      layer[w] = Math.max(layer[w], layer[v] + 1);
      waits[w] -= 1;
      if (waits[w] === 0) queue.push(w);
    }
  }
  // What nothing leads to stands right before what needs it.
  for (let v = 0; v < size; v += 1) {
    if (before[v].length || !after[v].length) continue;
    let first = Infinity;
    for (const w of after[v]) first = Math.min(first, layer[w]);
    layer[v] = Math.max(layer[v], first - 1);
  }
  return layer;
}

function mean(list, values) {
  let sum = 0;
  for (const v of list) sum += values[v];
  return sum / list.length;
}

/** Orders the layers so that few edges cross: each node goes to the mean of its neighbours, back and forth. */
function order(layers, before, after) {
  const rank = new Float64Array(before.length);
  const spread = (nodes) => nodes.forEach((v, i) => {
    rank[v] = (i + 0.5) / nodes.length;
  });
  layers.forEach(spread);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const forth = sweep % 2 === 0;
    for (const nodes of forth ? layers : [...layers].reverse()) {
      const near = forth ? before : after;
      const far = forth ? after : before;
      const wish = new Map(nodes.map((v) => [v, near[v].length ? mean(near[v], rank) : far[v].length ? mean(far[v], rank) : rank[v]]));
      nodes.sort((a, b) => wish.get(a) - wish.get(b) || rank[a] - rank[b]);
      spread(nodes);
    }
  }
}

/** Values nearest to the wished ones that keep their order and a distance of at least `gap`. */
export function spaced(wished, gap) {
  const blocks = [];
  wished.forEach((wish, i) => {
    let block = { sum: wish - i * gap, size: 1 };
    while (blocks.length && blocks[blocks.length - 1].sum / blocks[blocks.length - 1].size > block.sum / block.size) {
      const last = blocks.pop();
      block = { sum: last.sum + block.sum, size: last.size + block.size };
    }
    blocks.push(block);
  });
  const values = [];
  for (const block of blocks) for (let i = 0; i < block.size; i += 1) values.push(block.sum / block.size + values.length * gap);
  return values;
}

/**
 * Places of nodes `[{id}]` joined by edges `[[from, to]]`: {x, y} as arrays, {width, height} of the whole.
 * row, column: distances. A layer with more nodes than fit a well-shaped picture gets several columns.
 */
export function layout(nodes, edges, { row, column, gap }) {
  const size = nodes.length;
  const index = new Map(nodes.map((node, i) => [node.id, i]));
  const { before, after } = neighbours(size, edges, index);
  const layer = layersOf(size, before, after);
  const layers = [];
  for (let v = 0; v < size; v += 1) (layers[layer[v]] ||= []).push(v);
  const filled = layers.filter(Boolean);
  order(filled, before, after);

  const tallest = Math.max(12, Math.ceil(ASPECT * Math.sqrt(size)));
  const x = new Float64Array(size);
  const y = new Float64Array(size);
  let left = 0;
  const shape = filled.map((nodes) => {
    const columns = Math.ceil(nodes.length / tallest);
    const start = left;
    nodes.forEach((v, i) => {
      x[v] = start + (i % columns) * column;
      y[v] = (Math.floor(i / columns) - nodes.length / columns / 2) * row;
    });
    left += columns * column + gap;
    return { nodes, columns };
  });

  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const forth = sweep % 2 === 0;
    for (const { nodes, columns } of forth ? shape : [...shape].reverse()) {
      const near = forth ? before : after;
      const far = forth ? after : before;
      const wished = [];
      for (let i = 0; i < nodes.length; i += columns) {
        const members = nodes.slice(i, i + columns);
        const wish = (v) => (near[v].length ? mean(near[v], y) : far[v].length ? mean(far[v], y) : y[v]);
        wished.push(members.reduce((sum, v) => sum + wish(v), 0) / members.length);
      }
      spaced(wished, row).forEach((value, r) => {
        nodes.slice(r * columns, (r + 1) * columns).forEach((v, i) => {
          y[v] = value + (i % 2 ? row / 2 : 0);
        });
      });
    }
  }
  let top = Infinity;
  let bottom = -Infinity;
  for (const value of y) {
    top = Math.min(top, value);
    bottom = Math.max(bottom, value);
  }
  for (let v = 0; v < size; v += 1) y[v] -= top;
  return { x, y, index, hubs: new Set(), width: Math.max(0, left - gap - column), height: Math.max(0, bottom - top) };
}

/** Constants that many tasks need, functions mostly: lines from them to everywhere would hide the graph. */
const HUB = 8;

/** Which objects stand beside a task: what it makes to its right, a constant that only it needs to its left. */
function guestsOf(nodes, edges) {
  const kind = new Map(nodes.map((node) => [node.id, node.kind]));
  const maker = new Map();
  const users = new Map();
  for (const [from, to] of edges) {
    if (kind.get(to) === "object") maker.set(to, from);
    if (kind.get(from) === "object") {
      if (!users.has(from)) users.set(from, []);
      users.get(from).push(to);
    }
  }
  const host = new Map();
  const hubs = [];
  for (const { id } of nodes) {
    if (kind.get(id) !== "object") continue;
    const using = users.get(id) || [];
    if (maker.has(id)) host.set(id, { task: maker.get(id), side: 1 });
    else if (using.length === 1) host.set(id, { task: using[0], side: -1 });
    else if (using.length > HUB) hubs.push(id);
  }
  return { host, hubs };
}

/** As `layout`, for tasks and objects: the tasks are laid out, objects stand beside them. `hubs` have no lines. */
export function layoutTasks(nodes, edges, space) {
  const { host, hubs } = guestsOf(nodes, edges);
  const isHub = new Set(hubs);
  const place = layout(
    nodes.filter((node) => !host.has(node.id) && !isHub.has(node.id)),
    edges.filter(([from]) => !isHub.has(from)).map(([from, to]) => [host.get(from)?.task ?? from, host.get(to)?.task ?? to]),
    space,
  );
  const index = new Map(nodes.map((node, i) => [node.id, i]));
  const x = new Float64Array(nodes.length);
  const y = new Float64Array(nodes.length);
  const left = hubs.length ? space.column : 0;
  for (const [id, i] of place.index) {
    x[index.get(id)] = left + place.x[i];
    y[index.get(id)] = place.y[i];
  }
  hubs.forEach((id, i) => {
    x[index.get(id)] = 0;
    y[index.get(id)] = place.height / 2 + (i - (hubs.length - 1) / 2) * space.row;
  });
  const guests = new Map();
  for (const [id, { task, side }] of host) {
    const key = `${task} ${side}`;
    if (!guests.has(key)) guests.set(key, []);
    guests.get(key).push(id);
  }
  for (const ids of guests.values()) {
    const { task, side } = host.get(ids[0]);
    const at = index.get(task);
    const step = Math.min(18, (space.row - 8) / ids.length);
    ids.forEach((id, i) => {
      x[index.get(id)] = x[at] + side * 28;
      y[index.get(id)] = y[at] + (i - (ids.length - 1) / 2) * step;
    });
  }
  return { x, y, index, hubs: isHub, width: left + place.width, height: place.height };
}
