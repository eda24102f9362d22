"""What a workload is, and how results are checked."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.functions import increment
from benchmarks.systems import SYSTEMS, System

Metrics = dict[str, float]

SLOTS = 2
"""Executors of every system."""

WARM_UP_CALLS = 20


class WrongResult(Exception):
    """A system computed something wrong; its figures are worth nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload.

    Attributes:
        code: its short name in docs/performance.md.
        about: what it does, in a few words.
        metric: the metric by which systems are compared.
        unit: of that metric.
        more_is_better: direction of that metric.
        size: default size; what it counts differs.
        measure: takes a running system and the size, returns metrics.
        needs: what a system must be able to do, see `benchmarks.systems.Entry.can`; empty: `map`.
        batched: None, or whether it is for those systems only that send many calls as one task (or for the others).
        smallest: slow systems get smaller sizes, but none below this one; 0: all have the default size.
        only: names of the systems it is written for; empty: for all that are able to.
        unasked: names of the systems measured with it unless others are asked for; empty: all it suits.
        once: it takes so long that it has only one turn.
        measures_start: the start of the system belongs to the measurement.
    """

    code: str
    about: str
    metric: str
    unit: str
    more_is_better: bool
    size: int
    measure: Callable[[System, int], Metrics]
    needs: str = ""
    batched: bool | None = None
    smallest: int = 100
    only: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    once: bool = False
    measures_start: bool = False

    def suits(self, system: str) -> bool:
        """Whether a system (a name of SYSTEMS) can be measured with it."""
        entry = SYSTEMS[system]
        if self.only:
            return system in self.only
        return (not self.needs or self.needs in entry.can) and self.batched in (None, entry.batched)


def expect(what: str, got: object, wanted: object) -> None:
    """Raise WrongResult when a result is wrong."""
    if got != wanted:
        raise WrongResult(f"{what}: got {got!r:.200}, expected {wanted!r:.200}")


_used = itertools.count(1)


def fresh() -> int:
    """A number for the arguments of this measurement: a system that knows calls by their arguments must not find a
    result that it has already."""
    return next(_used) << 21


def after(numbers: Sequence[int]) -> list[int]:
    """What `increment` makes of them."""
    return [number + 1 for number in numbers]


def warm_up(system: System) -> None:
    """Have all executors started and the function known."""
    first = fresh()
    numbers = range(first, first + WARM_UP_CALLS)
    expect("warm-up", system.map(increment, numbers), after(numbers))


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds and result of a call."""
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def rate(tasks: int, seconds: float) -> Metrics:
    """Metrics of so many tasks."""
    return {"seconds": seconds, "tasks": tasks, "tasks_per_second": tasks / seconds}
