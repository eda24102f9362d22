"""Rain with plain functions: `delayed` and task arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.systems.rain_system import Rain
from rain.client import Client, delayed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.systems.rain_system import Maker


class RainDelayed(Rain):
    """Every task is a call of a `delayed` function."""

    def make(self, function: Callable[..., Any]) -> Maker:
        """What makes a task from a plain function."""
        return delayed(function)


class RainEmbedded(RainDelayed):
    """The cluster of a plain `Client()`."""

    def __init__(self) -> None:
        self.client = Client()
        self.default = self.client.new_session("calls", default=True)
        self.made: dict[Callable[..., Any], Maker] = {}

    def close(self) -> None:
        """End client and cluster."""
        self.client.close()


class RainMap(Rain):
    """`session.map`: one task array for all calls."""

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Many calls per message, each of them a member that can be addressed."""
        with self.client.new_session("map") as session:
            results: list[Any] = session.map(function, arguments).result()
            return results
