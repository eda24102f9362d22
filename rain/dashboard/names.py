"""The tree of task names: `/` separates levels; each node counts the tasks below it."""

from __future__ import annotations

import math
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from rain.dashboard.states import FINISHED, STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LEVELS = 16
"""What is deeper is one level."""
MOST_GROUPS = 1000
NODE_BYTES = 400
"""Memory of a node, roughly."""


class Node:
    """A level of names.

    Attributes:
        name: its last part; empty: the root. parent: None for the root. index: in `Names.nodes`.
        children: nodes by the next part of the name. templates: numbers of the templates with exactly this name.
        counts: tasks below by state, as in STATES. sum, square: seconds of those that finished, and their squares.
    """

    __slots__ = ("children", "counts", "index", "name", "parent", "square", "sum", "templates")

    def __init__(self, name: str, parent: Node | None, index: int) -> None:
        self.name = name
        self.parent = parent
        self.index = index
        self.children: dict[str, Node] = {}
        self.templates: list[int] = []
        self.counts = [0] * len(STATES)
        self.sum = 0.0
        self.square = 0.0

    @property
    def path(self) -> str:
        """The whole name."""
        parts = []
        node = self
        while node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return "/".join(reversed(parts))

    @property
    def total(self) -> int:
        """Tasks below."""
        return sum(self.counts)

    def upwards(self) -> Iterator[Node]:
        """The node and all above it."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def below(self) -> Iterator[Node]:
        """The node and all below it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values())

    def move(self, before: int, after: int, count: int) -> None:
        """This many of its own tasks have another state; 0 as state before: they are new."""
        for node in self.upwards():
            if before:
                node.counts[before - 1] -= count
            node.counts[after - 1] += count

    def add_seconds(self, seconds: float, square: float) -> None:
        """Its own tasks took so long; negative: they did not after all."""
        for node in self.upwards():
            node.sum += seconds
            node.square += square

    def own(self) -> Node:
        """What is left without the nodes below: the tasks with exactly this name."""
        own = Node(self.name, self.parent, self.index)
        own.templates = self.templates
        children = self.children.values()
        own.counts = [count - sum(child.counts[k] for child in children) for k, count in enumerate(self.counts)]
        own.sum = self.sum - sum(child.sum for child in children)
        own.square = self.square - sum(child.square for child in children)
        return own


class Names:
    """The names of a session's tasks.

    Attributes:
        root: of the tree. nodes: all. leaves: node of each template. types: task type of each template. texts: name of
            each template, as given.
    """

    def __init__(self) -> None:
        self.root = Node("", None, 0)
        self.nodes = [self.root]
        self.leaves: list[Node] = []
        self.types: list[str] = []
        self.texts: list[str] = []

    def add_template(self, task_type: str, name: str) -> None:
        """The next template."""
        node = self.root
        for part in parts_of(name):
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = Node(part, node, len(self.nodes))
                self.nodes.append(child)
            node = child
        node.templates.append(len(self.leaves))
        self.leaves.append(node)
        self.types.append(task_type)
        self.texts.append(name)

    def find(self, path: str) -> Node | None:
        """The node of a name or of the first parts of one; the root for the empty one."""
        node: Node | None = self.root
        for part in parts_of(path) if path else ():
            if node is not None:
                node = node.children.get(part)
        return node

    def groups(self, node: Node) -> dict[str, Any]:
        """The level below a node; the tasks with exactly its name come as a group with an empty name."""
        shown = list(node.children.values())
        if node.templates and shown:
            own = node.own()
            own.name = ""
            shown.append(own)
        largest = nlargest(MOST_GROUPS, shown, key=lambda child: child.sum)
        path = node.path
        return {
            "prefix": path,
            "groups": [self._group(child, path) for child in largest],
            "more": len(shown) - len(largest),
        }

    def _group(self, node: Node, above: str) -> dict[str, Any]:
        name = node.name
        mean, std = mean_and_deviation(node)
        return {
            "name": name,
            "path": above + "/" + name if above and name else name or above,
            "leaf": not node.children,
            "total": node.total,
            **dict(zip(STATES, node.counts, strict=True)),
            "mean": mean,
            "std": std,
            "sum": max(node.sum, 0.0),
            "share": max(node.sum, 0.0) / self.root.sum if self.root.sum > 0 else 0.0,
        }


def mean_and_deviation(node: Node) -> tuple[float | None, float | None]:
    """Mean and standard deviation of the seconds of its finished tasks."""
    finished = node.counts[FINISHED - 1]
    if not finished:
        return None, None
    mean = node.sum / finished
    return mean, math.sqrt(max(node.square / finished - mean * mean, 0.0))


def parts_of(name: str) -> list[str]:
    """Levels of a name; empty ones do not count."""
    parts = [part for part in name.split("/") if part] or [name]
    return parts if len(parts) <= MOST_LEVELS else [*parts[: MOST_LEVELS - 1], "/".join(parts[MOST_LEVELS - 1 :])]
