"""Task graphs in a form that every system's adapter can translate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """Stands for the result of the node with this index."""

    node: int


@dataclass(slots=True)
class Graph:
    """Nodes in an order in which they could be run.

    Attributes:
        nodes: function and arguments; arguments are plain values or `Result`s of earlier nodes.
        wanted: indices of the nodes whose results the client fetches.
    """

    nodes: list[tuple[Callable[..., Any], tuple[Any, ...]]] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)

    def node(self, function: Callable[..., Any], *arguments: Any) -> Result:
        """Add a node."""
        self.nodes.append((function, arguments))
        return Result(len(self.nodes) - 1)

    def want(self, result: Result) -> None:
        """Have the result fetched."""
        self.wanted.append(result.node)
