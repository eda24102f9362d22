"""Random task graphs whose results can be computed directly, and their submit messages."""

from __future__ import annotations

import hashlib
import random
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.ids import FIRST_ID
from rain.protocol.messages import INLINE, KEEP, SubmitChunk

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL, LARGE = 24, 70_000
"""Sizes of values in bytes, below and above the inline limit."""
FOR_EVER = 1_000_000
"""`fails` of a task that never succeeds."""


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task.

    Attributes:
        type: task type; tasks of type `py` run in executors, others in the worker.
        duration: seconds of one run.
        sizes: bytes per output.
        fails: how many runs fail before one succeeds.
        crashes: how many runs end with the death of the executor before that.
    """

    number: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    sizes: tuple[int, ...]
    type: str = "py"
    duration: float = 0.01
    cpus: int = 1
    retries: int = 0
    priority: int = 0
    fails: int = 0
    crashes: int = 0

    def args(self) -> bytes:
        """What the task carries: all that `run_plan` needs."""
        data = {
            "number": self.number,
            "sizes": list(self.sizes),
            "duration": self.duration,
            "fails": self.fails,
            "crashes": self.crashes,
        }
        packed: bytes = msgpack.packb(data)
        return packed

    @property
    def fails_for_good(self) -> bool:
        """More runs fail than may be repeated."""
        return self.fails + self.crashes > self.retries


@dataclass(slots=True)
class PlannedSubmit:
    """A part of a graph. constants: values by id; kept: ids of objects."""

    constants: dict[int, bytes] = field(default_factory=dict)
    tasks: list[PlannedTask] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)

    def objects(self) -> list[int]:
        """Ids of all objects of this submit."""
        return [*self.constants, *(output for task in self.tasks for output in task.outputs)]


def output_value(number: int, position: int, size: int, inputs: Sequence[bytes | memoryview]) -> bytes:
    """The value of an output: depends on the task, the position and all inputs."""
    digest = hashlib.blake2b(f"{number}:{position}:{len(inputs)}".encode(), digest_size=16)
    for value in inputs:
        digest.update(len(value).to_bytes(8, "little"))
        digest.update(value)
    text = digest.digest()
    return (text * (size // len(text) + 1))[:size]


def evaluate(submit: PlannedSubmit, values: dict[int, bytes]) -> None:
    """Add the values of all objects of the submit, whose earlier inputs are in `values`."""
    values.update(submit.constants)
    for task in submit.tasks:
        inputs = [values[i] for i in task.inputs]
        for position, (output, size) in enumerate(zip(task.outputs, task.sizes, strict=True)):
            values[output] = output_value(task.number, position, size, inputs)


@dataclass(slots=True)
class GraphPlanner:
    """Makes the submits of one session.

    Attributes:
        rng: decides everything.
        max_cpus: largest request.
        failing: how likely a task fails at least once.
    """

    rng: random.Random
    max_cpus: int = 1
    failing: float = 0.0
    next_id: int = FIRST_ID
    reusable: list[int] = field(default_factory=list)

    def plan(self, task_count: int) -> PlannedSubmit:
        """The next submit; tasks come after their inputs."""
        rng = self.rng
        submit = PlannedSubmit()
        for _ in range(rng.randint(0, 3)):
            size = LARGE if rng.random() < 0.1 else rng.randint(0, SMALL)
            submit.constants[self._new_id()] = rng.randbytes(size)
        usable = [*submit.constants, *self.reusable]
        fan_in = rng.choice((1, 2, 4))
        recent = rng.random() < 0.4
        for _ in range(task_count):
            task = self._task(usable, fan_in, recent)
            submit.tasks.append(task)
            usable.extend(task.outputs)
        for number in submit.objects():
            if rng.random() < 0.3:
                submit.kept.add(number)
        self.reusable.extend(sorted(submit.kept))
        return submit

    def _task(self, usable: list[int], fan_in: int, recent: bool) -> PlannedTask:
        rng = self.rng
        pool = usable[-4:] if recent else usable
        inputs = tuple(rng.choice(pool) for _ in range(rng.randint(0, fan_in))) if pool else ()
        number = self._new_id()
        outputs = tuple(self._new_id() for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2, 3))))
        fails = crashes = retries = 0
        if rng.random() < self.failing:
            fails, crashes = rng.choice(((1, 0), (2, 0), (0, 1), (1, 1)))
            retries = fails + crashes
            if rng.random() < 0.2:
                fails, crashes, retries = FOR_EVER, 0, rng.randint(0, 2)
        kind = "buildin/sim" if rng.random() < 0.15 else "py"
        return PlannedTask(
            number=number,
            inputs=inputs,
            outputs=outputs,
            sizes=tuple(LARGE if rng.random() < 0.05 else rng.randint(0, SMALL) for _ in outputs),
            type=kind,
            duration=rng.choice((0.0, 0.001, 0.01, 0.1, 0.5, 2.0)),
            cpus=rng.randint(0, self.max_cpus),
            retries=retries,
            priority=rng.choice((0, 0, 0, 1, -1)),
            fails=fails + (crashes if kind != "py" else 0),
            crashes=crashes if kind == "py" else 0,
        )

    def _new_id(self) -> int:
        number, self.next_id = self.next_id, self.next_id + 1
        return number


class ChunkWriter:
    """Writes submits as messages; keeps the template numbers of the session."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._templates: dict[bytes, int] = {}

    def write(self, submit: PlannedSubmit) -> SubmitChunk:
        """The submit in one chunk."""
        new: list[bytes] = []
        task_templates = array("I")
        for task in submit.tasks:
            packed = _template(task)
            if packed not in self._templates:
                self._templates[packed] = len(self._templates)
                new.append(packed)
            task_templates.append(self._templates[packed])
        tasks, kept = submit.tasks, submit.kept
        outputs = [output for task in tasks for output in task.outputs]
        return SubmitChunk(
            session=self._session,
            templates=new,
            tasks=array("I", [task.number for task in tasks]),
            task_templates=task_templates,
            args=[task.args() for task in tasks],
            input_counts=array("I", [len(task.inputs) for task in tasks]),
            inputs=array("I", [i for task in tasks for i in task.inputs]),
            output_counts=array("I", [len(task.outputs) for task in tasks]),
            outputs=array("I", outputs),
            output_flags=bytes(KEEP if output in kept else 0 for output in outputs),
            objects=array("I", submit.constants),
            object_flags=bytes(INLINE | (KEEP if number in kept else 0) for number in submit.constants),
            object_specs=[],
            values=list(submit.constants.values()),
        )


def _template(task: PlannedTask) -> bytes:
    data: dict[str, Any] = {"task_type": task.type, "resources": {"cpus": task.cpus}}
    if task.retries:
        data["retries"] = task.retries
    if task.priority:
        data["priority"] = task.priority
    if task.outputs:
        data["outputs"] = [{} for _ in task.outputs]
    packed: bytes = msgpack.packb(data)
    return packed
