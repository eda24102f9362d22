"""The graph of a session: its tasks and objects if they are few, else groups of tasks by name."""

from __future__ import annotations

from collections import Counter
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from rain.dashboard.details import object_state
from rain.dashboard.names import Node
from rain.dashboard.states import ABORTED, CANCELLED, FAILED, FINISHED, NOTHING, RUNNING, STATES, WAITING
from rain.eventlog.criteria import criteria_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.dashboard.session_view import SessionView
    from rain.eventlog.reader import EventReader

Answer = dict[str, Any]

MOST_NODES = 5000
OTHERS = "(others)"
"""Label of the group of all names for which there is no room."""

_BY_WEIGHT = (FAILED, RUNNING, ABORTED, CANCELLED)
_MOST_OBJECTS = 20
"""Objects per task, above which only groups are shown."""


class Structure:
    """Tasks and objects of a session as they were submitted.

    tasks: (id, label, type, inputs, outputs). labels: of objects, with what they are.
    """

    def __init__(self, reader: EventReader, session: SessionView) -> None:
        self.submitted = session.submitted
        self.session = session.number
        self.tasks: list[tuple[int, list[int], list[int]]] = []
        self.objects: dict[int, tuple[str, str]] = {}
        first = session.submits[0].event if session.submits else 1
        for found in reader.events(criteria_of(session.number, ["ClientSubmit"]), after=first - 1):
            for entry in found.event["tasks"]:
                self._add_task(entry)
            for entry in found.event["dataobjs"]:
                kind = entry.get("content_type") or entry.get("data_type") or ""
                for position in range(entry.get("count", 1)):
                    self.objects[entry["id"][1] + position] = entry.get("label") or "", kind

    def _add_task(self, entry: Answer) -> None:
        inputs = [obj for _, obj in entry["inputs"]]
        outputs = [obj for _, obj in entry["outputs"]]
        for position in range(entry.get("count", 1)):
            self.tasks.append((entry["id"][1] + position, inputs, [obj + position for obj in outputs]))


def fits(session: SessionView, limit: int) -> bool:
    """Whether there are few enough tasks to show each."""
    return session.total <= limit and session.objects <= _MOST_OBJECTS * max(limit, 1)


# --- tasks ---


def task_graph(session: SessionView, structure: Structure, limit: int) -> Answer:
    """One node per task, and per object if there is room."""
    tasks = [entry for entry in structure.tasks if session.state(entry[0])]
    nodes = [_task_node(session, task) for task, _, _ in tasks]
    edges: Counter[tuple[str, str]] = Counter()
    if len(tasks) + len(structure.objects) <= limit:
        nodes += [_object_node(session, obj, *about) for obj, about in structure.objects.items()]
        for task, inputs, outputs in tasks:
            edges.update((f"o{obj}", f"t{task}") for obj in inputs)
            edges.update((f"t{task}", f"o{obj}") for obj in outputs)
    else:
        producers = {obj: task for task, _, outputs in tasks for obj in outputs}
        for task, inputs, _ in tasks:
            edges.update((f"t{producers[obj]}", f"t{task}") for obj in inputs if obj in producers)
    return _answer("tasks", nodes, edges)


def _task_node(session: SessionView, task: int) -> Answer:
    state, template = session.state(task), session.links[task]
    names = session.names
    figures = {"total": 1, "finished": state == FINISHED, "failed": state == FAILED, "running": state == RUNNING}
    return {
        "id": f"t{task}",
        "kind": "task",
        "label": names.texts[template],
        "type": names.types[template],
        "state": STATES[state - 1],
        **{name: int(figure) for name, figure in figures.items()},
    }


def _object_node(session: SessionView, obj: int, label: str, kind: str) -> Answer:
    state = object_state(session, obj)
    figures = {"total": 1, "finished": int(state == "finished"), "failed": 0, "running": 0}
    return {"id": f"o{obj}", "kind": "object", "label": label, "type": kind, "state": state, **figures}


# --- groups ---


def group_graph(session: SessionView, limit: int) -> Answer:
    """One node per name; where there are too many, per beginning of names."""
    shown, standing = _shown(session, max(limit, 1))
    edges: Counter[tuple[str, str]] = Counter()
    for key, count in session.edges.items():
        edges[standing[key >> 32], standing[key & 0xFFFFFFFF]] += count
    types = session.names.types
    nodes = []
    for name, label, node in shown:
        templates = {types[template] for below in node.below() for template in below.templates[:1]}
        nodes.append(_group_node(name, label, min(templates) if len(templates) == 1 else "", node.counts))
    return _answer("groups", nodes, edges)


def _shown(session: SessionView, limit: int) -> tuple[list[tuple[str, str, Node]], dict[int, str]]:
    """Nodes to show, with their ids and labels; by index of each node the id of the one that stands for it."""
    depth = _depth(session.names.root, limit)
    shown: list[tuple[str, str, Node]] = []
    standing: dict[int, str] = {}
    waiting = [(session.names.root, 0, "")]
    while waiting:
        node, level, path = waiting.pop()
        name = f"g:{path}"
        standing[node.index] = name
        if level == depth:
            shown.append((name, path, node))
            standing.update((below.index, name) for below in node.below())
            continue
        if node.templates:
            shown.append((name, path, node.own() if node.children else node))
        waiting.extend((child, level + 1, f"{path}/{part}" if level else part) for part, child in node.children.items())
    shown = [entry for entry in shown if entry[2].total]
    if len(shown) > limit:
        shown = _with_others(shown, standing, limit)
    return shown, standing


def _depth(root: Node, limit: int) -> int:
    """The deepest level down to which there are not too many names; at least 1."""
    depth, level = 1, list(root.children.values())
    ended = sum(not node.children for node in level)
    while level:
        ended += sum(bool(node.templates and node.children) for node in level)
        level = [child for node in level for child in node.children.values()]
        if ended + len(level) > limit:
            return depth
        ended += sum(not node.children for node in level)
        depth += 1
    return depth


def _with_others(
    shown: list[tuple[str, str, Node]], standing: dict[int, str], limit: int
) -> list[tuple[str, str, Node]]:
    """The largest, and one for the rest."""
    largest = nlargest(limit - 1, shown, key=lambda entry: entry[2].total)
    kept = {name for name, _, _ in largest}
    others = Node(OTHERS, None, 0)
    for name, _, node in shown:
        if name not in kept:
            others.counts = [mine + its for mine, its in zip(others.counts, node.counts, strict=True)]
    for index, name in standing.items():
        if name not in kept:
            standing[index] = f"g:{OTHERS}"
    return [*largest, (f"g:{OTHERS}", OTHERS, others)]


def _group_node(name: str, label: str, kind: str, counts: list[int]) -> Answer:
    state = next((state for state in _BY_WEIGHT if counts[state - 1]), NOTHING)
    if not state:
        state = WAITING if counts[WAITING - 1] else FINISHED
    figures = {STATES[number - 1]: counts[number - 1] for number in (FINISHED, FAILED, RUNNING)}
    return {
        "id": name,
        "kind": "group",
        "label": label,
        "type": kind,
        "state": STATES[state - 1],
        "total": sum(counts),
        **figures,
    }


def _answer(mode: str, nodes: Iterable[Answer], edges: Counter[tuple[str, str]]) -> Answer:
    return {"mode": mode, "nodes": list(nodes), "edges": [[begin, end, count] for (begin, end), count in edges.items()]}
