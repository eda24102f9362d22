"""Pictures of task graphs, drawn by Graphviz."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.client.task import Task
from rain.common.errors import RainException
from rain.common.structs import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    from rain.client.base import BaseSession
    from rain.client.data import DataObject

RENDER_TIMEOUT = 120.0
"""Seconds that Graphviz may take."""

_TASK_COLOR = "#c6dbef"
_OBJECT_COLOR = "#fdd0a2"
_KEPT_COLOR = "#d62728"


@dataclass(slots=True)
class Arc:
    """An arc to `node`; `data` is its label, None for none."""

    node: Node
    data: Any = None


class Node:
    """A node of a graph. Its attributes color, fillcolor, label, shape and fontcolor are those of Graphviz; None =
    the default of Graphviz.

    Args:
        key: by which the graph finds it.

    Attributes:
        key: see above.
        arcs: that begin here.
    """

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.arcs: list[Arc] = []
        self.color: str | None = None
        self.fillcolor: str | None = None
        self.label: str | None = None
        self.shape: str | None = None
        self.fontcolor: str | None = None

    def add_arc(self, node: Node, data: Any = None) -> None:
        """Add an arc to another node."""
        self.arcs.append(Arc(node, data))

    def arc_by_data(self, data: Any) -> Arc | None:
        """The first arc with this data, None if there is none."""
        return next((arc for arc in self.arcs if arc.data == data), None)

    def merge_arcs(self, fn: Callable[[Any, Any], Any]) -> None:
        """Make one arc of those that lead to the same node; `fn` makes one data of two."""
        merged: dict[int, Arc] = {}
        for arc in self.arcs:
            first = merged.get(id(arc.node))
            if first is None:
                merged[id(arc.node)] = Arc(arc.node, arc.data)
            else:
                first.data = fn(first.data, arc.data)
        self.arcs = list(merged.values())

    def __repr__(self) -> str:
        return f"<Node {self.key!r}>"


class Graph:
    """A directed graph."""

    def __init__(self) -> None:
        self._nodes: dict[Hashable, Node] = {}

    @property
    def nodes(self) -> Collection[Node]:
        """All nodes, in the order they were made."""
        return self._nodes.values()

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self._nodes)

    def has_node(self, key: Hashable) -> bool:
        """Whether there is a node with this key."""
        return key in self._nodes

    def node(self, key: Hashable) -> Node:
        """The node with this key; it is made if it does not exist."""
        return self.node_check(key)[0]

    def node_check(self, key: Hashable) -> tuple[Node, bool]:
        """The node with this key, and whether it existed; it is made if not."""
        node = self._nodes.get(key)
        if node is not None:
            return node, True
        node = self._nodes[key] = Node(key)
        return node, False

    def merge_arcs(self, fn: Callable[[Any, Any], Any]) -> None:
        """Make one arc of those between the same two nodes; `fn` makes one data of two."""
        for node in self.nodes:
            node.merge_arcs(fn)

    def make_dot(self, name: str) -> str:
        """The graph in the language of Graphviz."""
        names = {id(node): f"v{position}" for position, node in enumerate(self.nodes)}
        lines = [f"digraph {_quoted(name)} {{"]
        for node in self.nodes:
            lines.append(f"  {names[id(node)]}{_attributes(node)};")
            for arc in node.arcs:
                label = "" if arc.data is None else f" [label={_quoted(str(arc.data))}]"
                lines.append(f"  {names[id(node)]} -> {names[id(arc.node)]}{label};")
        lines.append("}\n")
        return "\n".join(lines)

    def write(self, filename: str | os.PathLike[str]) -> None:
        """Write a picture: `.dot` is text, what other suffixes (`.svg`, `.png`, ...) mean is up to Graphviz.

        Raises:
            ValueError: the name has no suffix.
            RainException: Graphviz is missing, or fails.
            OSError: the file cannot be written.
        """
        path = Path(filename)
        kind = path.suffix[1:]
        if not kind:
            raise ValueError(f"{os.fspath(filename)!r} has no suffix that says which kind of picture to write")
        if kind == "dot":
            path.write_text(self.make_dot("G"), encoding="utf-8")
        else:
            path.write_bytes(self._render(kind))

    def show(self) -> None:
        """Show the graph in a window of xdot; returns when it is closed.

        Raises:
            RainException: xdot is missing, or fails.
        """
        _run(["xdot", "-"], self.make_dot("G"), "xdot", timeout=None)

    def _render(self, kind: str) -> bytes:
        return _run(["dot", f"-T{kind}"], self.make_dot("G"), "Graphviz", timeout=RENDER_TIMEOUT)

    def _repr_svg_(self) -> str:
        return self._render("svg").decode()


def session_graph(session: BaseSession, show_ids: bool = True) -> Graph:
    """Tasks (ovals) and data objects (boxes, outlined if kept) of a session; keys of the nodes are their ids."""
    graph = Graph()
    things = session._things
    for thing in things:
        _draw(graph, thing, show_ids)
    for thing in things:
        if isinstance(thing, Task):
            _draw_arcs(graph, thing, show_ids)
    return graph


def _draw(graph: Graph, thing: Task | DataObject, show_ids: bool) -> Node:
    node, existed = graph.node_check(thing.id)
    if not existed:
        is_task = isinstance(thing, Task)
        node.fillcolor = _TASK_COLOR if is_task else _OBJECT_COLOR
        node.shape = "oval" if is_task else "box"
        node.label = _label_of(thing, show_ids)
        if not isinstance(thing, Task) and thing.is_kept():
            node.color = _KEPT_COLOR
    return node


def _label_of(thing: Task | DataObject, show_ids: bool) -> str:
    if isinstance(thing, Task):
        parts = [thing.name or "", thing.task_type]
    else:
        parts = [thing.label or ("directory" if thing.is_directory() else "blob")]
    if show_ids:
        parts.append(str(thing.id))
    return "\n".join(part for part in parts if part)


def _draw_arcs(graph: Graph, task: Task, show_ids: bool) -> None:
    """Inputs and outputs of which there are no handles any more are drawn here."""
    node = graph.node(task.id)
    for position, (label, dataobj) in enumerate(task.inputs.items()):
        _draw(graph, dataobj, show_ids).add_arc(node, _arc_label(position, label))
    for position, (label, dataobj) in enumerate(task.outputs.items()):
        node.add_arc(_draw(graph, dataobj, show_ids), _arc_label(position, label))


def _arc_label(position: int, label: str | None) -> str:
    return str(position) if label is None else f"{position}: {label}"


def _attributes(node: Node) -> str:
    given = {name: getattr(node, name) for name in ("color", "fillcolor", "label", "shape", "fontcolor")}
    if node.fillcolor is not None:
        given["style"] = "filled"
    if node.color is not None:
        given["penwidth"] = "3"
    shown = ", ".join(f"{name}={_quoted(str(value))}" for name, value in given.items() if value is not None)
    return f" [{shown}]" if shown else ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _run(command: list[str], dot: str, what: str, *, timeout: float | None) -> bytes:
    """Give a graph to a program; returns what it prints."""
    try:
        done = subprocess.run(command, input=dot.encode(), capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise RainException(
            f"{what} is not installed: the program {command[0]!r} was not found; install it, or write a '.dot' file"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RainException(f"{what} could not draw the graph: {error}") from error
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()
        raise RainException(f"{what} could not draw the graph (exit code {done.returncode}): {text}")
    return done.stdout


__all__ = ["Arc", "Graph", "Node"]
