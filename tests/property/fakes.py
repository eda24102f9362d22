"""What pretended clients and workers of a server core know, and what workers report."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rain.common.blocks import STORED, BlockResult
from rain.common.failure import Failure
from rain.common.links import Link
from rain.protocol import messages as m

LARGE = 100_000

Key = tuple[int, int]


def value_of(number: int) -> bytes:
    """The value of an object, if it is a small one."""
    return b"%08d" % number


def seconds_of(task: int, *, is_linked: bool = False) -> float:
    """What a member of an array takes: short enough for blocks, and for linked ones."""
    return (0.00001 if is_linked else 0.0005) * (1 + task % 3)


def seconds_of_task(task: int) -> float:
    """What an ordinary task takes: mostly short enough to be sent ahead."""
    return 0.2 if task % 8 == 0 else 0.001


@dataclass
class Assignment:
    """A run which a worker was told to do. members: of a block, 0 for a task; link, wanted: of a linked block."""

    run: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cpus: int
    started: bool = False
    members: int = 0
    link: Link | None = None
    wanted: bytes = b""

    def inputs_of(self, position: int) -> tuple[int, ...]:
        """Those of a member."""
        if self.link is None:
            return self.inputs
        made = range(self.outputs[0], self.outputs[0] + position)
        return tuple([*self.inputs, *made][reference] for reference in self.link.references_of(position))

    def hidden(self, done: int) -> set[int]:
        """Positions of the members whose values are not reported when so many of them succeeded."""
        if self.link is None:
            return set()
        rest = {number for position in range(done, self.members) for number in self.inputs_of(position)}
        return {k for k in range(done) if not self.wanted[k] and self.outputs[0] + k not in rest}

    def tasks(self, first: int) -> range:
        """The tasks in it."""
        return range(first, first + max(1, self.members))


@dataclass
class FakeWorker:
    """What a worker really has. stopping: runs that it was told to cancel, by session, task and run."""

    peer: int
    name: str
    cpus: int
    incarnation: int = 0
    assigned: dict[Key, Assignment] = field(default_factory=dict)
    copies: set[Key] = field(default_factory=set)
    withdrawn: dict[Key, int] = field(default_factory=dict)
    stopping: dict[tuple[int, int, int], Assignment] = field(default_factory=dict)


@dataclass
class FakeClient:
    """A client and the answers it got."""

    peer: int
    answers: dict[int, Any] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)


@dataclass
class PendingWait:
    """A Wait; seen: those of its ids that were finished at some time."""

    client: FakeClient
    seq: int
    session: int
    ids: list[int]
    mode: int = m.WAIT_ALL
    seen: set[int] = field(default_factory=set)


@dataclass
class PendingFetch:
    """A FetchObjects."""

    client: FakeClient
    seq: int
    session: int
    ids: list[int]


@dataclass
class PendingCancel:
    """A Cancel. chosen: the tasks that were open; running: their runs, by peer of the worker and key in `stopping`."""

    client: FakeClient
    seq: int
    session: int
    chosen: set[int]
    running: set[tuple[int, tuple[int, int, int]]] = field(default_factory=set)


@dataclass(frozen=True)
class BlockEnd:
    """How a run of a block ends.

    Attributes:
        kind: as in BlockResult, or `failed`.
        done: number of members reported as succeeded.
        retriable: of the failure.
    """

    kind: str | None
    done: int
    retriable: bool = True

    @property
    def fails(self) -> bool:
        """The member behind the reported ones failed."""
        return self.kind == "failed"


class DoneColumns:
    """A TasksDone being filled."""

    def __init__(self, session: int) -> None:
        self.session = session
        self._tasks, self._runs = array("I"), array("I")
        self._durations = array("d")
        self._sizes = array("Q")
        self._values: list[bytes | None] = []
        self._blocks: list[bytes | None] = []

    def add(self, task: int, run: int, outputs: tuple[int, ...], inline: bool, seconds: float) -> None:
        """A task that succeeded."""
        self._begin(task, run, seconds, None)
        for obj in outputs:
            self._output(obj, inline)

    def add_block(
        self,
        run: int,
        members: range,
        first_output: int,
        end: BlockEnd,
        hidden: Collection[int] = (),
        *,
        is_linked: bool = False,
    ) -> None:
        """A block: the tasks of its members, and the output of the first. hidden: positions of values not reported."""
        ending: str | dict[str, Any] | None = end.kind
        if end.fails:
            failure = Failure("task", "boom", self.session, members[end.done], retriable=end.retriable)
            ending = failure.to_map()
        good = members[: end.done]
        values = [b"" if k in hidden else value_of(first_output + k) for k in range(end.done)]
        seconds = partial(seconds_of, is_linked=is_linked)
        result = BlockResult(
            durations=array("f", map(seconds, good)),
            sizes=array("I", map(len, values)),
            values=b"".join(values),
            end=ending,
            start=0.0 if end.kind is None else 7.0,
            duration=0.0 if end.kind is None else seconds(members[min(end.done, len(members) - 1)]),
        )
        self._begin(members[0], run, 0.01, result.pack())
        if end.kind == STORED:
            self._output(first_output + end.done, inline=False)

    def message(self) -> m.TasksDone:
        """The message."""
        return m.TasksDone(
            session=self.session,
            tasks=self._tasks,
            runs=self._runs,
            starts=array("d", [1.0] * len(self._tasks)),
            durations=self._durations,
            infos=[],
            sizes=self._sizes,
            output_infos=[],
            values=self._values if any(value is not None for value in self._values) else [],
            blocks=self._blocks if any(self._blocks) else [],
        )

    def _begin(self, task: int, run: int, seconds: float, block: bytes | None) -> None:
        self._tasks.append(task)
        self._runs.append(run)
        self._durations.append(seconds)
        self._blocks.append(block)

    def _output(self, obj: int, inline: bool) -> None:
        self._sizes.append(8 if inline else LARGE)
        self._values.append(value_of(obj) if inline else None)
