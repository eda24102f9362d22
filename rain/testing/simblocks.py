"""What a simulated executor does with a block: its members one after the other, as ordinary runs would.

Those of a linked block find among their inputs what members before them gave; what only they use is not reported.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.blocks import FULL, LATE, STORED, BlockResult
from rain.common.failure import Failure
from rain.common.links import Link, unpack_assigned
from rain.testing.graphs import output_value
from rain.worker.core.events import BlockEnd, RunResult

if TYPE_CHECKING:
    import random

    from rain.worker.core.actions import Run
    from rain.worker.core.events import ObjectKey

INLINE_LIMIT = 64 << 10
BLOCK_SECONDS = 0.25
"""A block that takes longer ends."""

_EARLY = 0.01
"""How likely a member ends its block for no reason that the simulation knows, per kind of end."""


CALL_ARGUMENTS = ("number", "size", "duration", "fails", "crashes")
"""Of a call of a Python function in the simulation, whose first input is the function."""


def read_args(packed: bytes | None) -> dict[str, Any]:
    """The arguments of a run, be it a task with a config or a call."""
    args = msgpack.unpackb(packed or b"\x80")
    if isinstance(args, dict):
        return args
    values = dict(zip(CALL_ARGUMENTS, args[0], strict=False))
    return {**values, "sizes": [values["size"]], "is_call": True}


def make_outputs(run: Run, args: dict[str, Any], inputs: list[bytes]) -> dict[ObjectKey, bytes]:
    """The values a run produces."""
    if "is_call" in args:
        inputs = inputs[1:]
    return {
        (run.key[0], output): output_value(args["number"], position, size, inputs)
        for position, (output, size) in enumerate(zip(run.outputs, args["sizes"], strict=True))
    }


def failure_of(run: Run, text: str) -> Failure:
    """The failure of a run."""
    return Failure("task", f"{text} in {run.key}", run.key[0], run.key[1])


class SimBlock:
    """A block that runs.

    Args:
        run: of the block; its arguments are a list of those of tasks.
        inputs: values of its inputs, which all members share unless it is linked.
        rng: chooses early ends.

    Attributes:
        run: as given.
    """

    def __init__(self, run: Run, inputs: list[bytes], rng: random.Random) -> None:
        self.run = run
        self._inputs = inputs
        self._rng = rng
        self._args: list[Any] = msgpack.unpackb(run.args or b"")
        assert len(self._args) == run.members, f"{len(self._args)} arguments of {run.members} members of {run.key}"
        self._link: Link | None = None
        self._wanted = bytes([1]) * run.members
        if run.link is not None:
            self._link, self._wanted = unpack_assigned(run.link.packed, run.members, len(run.inputs))
        self._values: list[bytes] = []
        self._start: float | None = None
        self._now = 0.0
        self._result = BlockResult(infos=[None])
        self._stored: tuple[ObjectKey, bytes] | None = None

    @property
    def member(self) -> Run:
        """The run of the member whose turn it is."""
        session, number, attempt = self.run.key
        at = self._result.done
        return replace(
            self.run,
            key=(session, number + at, attempt),
            args=msgpack.packb(self._args[at]),
            outputs=(self.run.outputs[0] + at,),
            members=0,
        )

    @property
    def is_over(self) -> bool:
        """Whether no other member runs."""
        return self._result.end is not None or self._result.done == self.run.members

    def member_ends(self, args: dict[str, Any], ok: bool, start: float) -> dict[ObjectKey, bytes]:
        """The member whose turn it is has ended; returns what it gave that does not ride in the report."""
        result, duration = self._result, args["duration"]
        if self._start is None:
            self._start = start
        self._now = start + duration
        if not ok:
            result.end = failure_of(self.member, "boom").to_map()
            result.start, result.duration = start, duration
            return {}
        outputs = make_outputs(self.member, args, self._inputs_of(result.done))
        ((key, value),) = outputs.items()
        if len(value) >= INLINE_LIMIT or self._rng.random() < _EARLY:
            result.end, self._stored = STORED, (key, value)
            result.start, result.duration = start, duration
            return outputs
        result.durations.append(duration)
        self._values.append(value)
        if result.done < self.run.members:
            if self._now - self._start > BLOCK_SECONDS or self._rng.random() < _EARLY:
                result.end = LATE
            elif self._rng.random() < _EARLY:
                result.end = FULL
        return {}

    def _inputs_of(self, position: int) -> list[bytes]:
        """Values of the inputs of a member."""
        if self._link is None:
            return self._inputs
        values = [*self._inputs, *self._values]
        return [values[reference] for reference in self._link.references_of(position)]

    def _reported(self) -> list[bytes]:
        """Values of the members that succeeded; empty ones where nobody outside of a linked block can want them."""
        if self._link is None:
            return self._values
        link, inputs, done = self._link, len(self._inputs), len(self._values)
        needed = {ref - inputs for rest in range(done, self.run.members) for ref in link.references_of(rest)}
        return [
            value if self._wanted[position] or position in needed else b""
            for position, value in enumerate(self._values)
        ]

    def result(self) -> RunResult:
        """The report."""
        assert self._start is not None
        end, done = self._result.end, self._result.done
        values = self._reported()
        self._result.sizes, self._result.values = array("I", map(len, values)), b"".join(values)
        ran = done + (end == STORED or isinstance(end, dict))
        outputs: list[tuple[int, bytes | None, bytes | None]] = []
        stored = None
        if self._stored is not None:
            (_, stored), value = self._stored
            outputs = [(len(value), None, value if len(value) < INLINE_LIMIT else None)]
        block = BlockEnd(self._result.pack(), ran, stored)
        return RunResult(self.run.key, self._start, self._now - self._start, None, outputs, block)
