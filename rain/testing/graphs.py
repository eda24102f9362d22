"""Random task graphs whose results can be computed directly, and their submit messages."""

from __future__ import annotations

import hashlib
import random
from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.ids import FIRST_ID
from rain.protocol.messages import INLINE, KEEP, SubmitBlock, SubmitChunk
from rain.testing.linking import LinkedMember, linked_block

if TYPE_CHECKING:
    from collections.abc import Sequence

_CACHED_EACH = 3
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
        timeout: time limit of a run in seconds, 0 = none.
        cache: its result may come from the result cache.
        name: the tasks of a linked block differ by it.
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
    timeout: float = 0.0
    cache: bool = False
    name: str = ""

    def config(self) -> dict[str, Any]:
        """What decides how the task runs and what it gives."""
        return {
            "number": self.number,
            "sizes": list(self.sizes),
            "duration": self.duration,
            "fails": self.fails,
            "crashes": self.crashes,
        }

    def args(self) -> bytes:
        """The same, as the task carries it."""
        packed: bytes = msgpack.packb(self.config())
        return packed

    @property
    def fails_for_good(self) -> bool:
        """More runs fail than may be repeated."""
        return self.fails + self.crashes > self.retries


@dataclass(frozen=True, slots=True)
class PlannedArray:
    """A task array: tasks with the same inputs and options, whose ids follow those of their outputs.

    linked: members in each of its linked blocks, whose inputs are their own; empty: it has no linked blocks.
    """

    members: tuple[PlannedTask, ...]
    linked: tuple[int, ...] = ()

    @classmethod
    def of(cls, first: int, prototypes: Sequence[PlannedTask]) -> PlannedArray:
        """Members like these tasks; `first` is the id of the first output."""
        count = len(prototypes)
        return cls(
            tuple(
                replace(one, number=first + count + index, outputs=(first + index,))
                for index, one in enumerate(prototypes)
            )
        )

    @property
    def first(self) -> int:
        """Id of the first output."""
        return self.members[0].outputs[0]

    @property
    def number(self) -> int:
        """Id of the first task."""
        return self.members[0].number


@dataclass(slots=True)
class PlannedSubmit:
    """A part of a graph. constants: values by id; kept: ids of objects. The outputs of an array without linked blocks
    are kept or not as the first of them is."""

    constants: dict[int, bytes] = field(default_factory=dict)
    tasks: list[PlannedTask] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    arrays: list[PlannedArray] = field(default_factory=list)

    def all_tasks(self) -> list[PlannedTask]:
        """The tasks and the members of arrays, by id: each after the producers of its inputs."""
        members = [task for one in self.arrays for task in one.members]
        return sorted([*self.tasks, *members], key=lambda task: task.number) if members else self.tasks

    def objects(self) -> list[int]:
        """Ids of all objects of this submit."""
        return [*self.constants, *(output for task in self.all_tasks() for output in task.outputs)]


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
    for task in submit.all_tasks():
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
        arrays: some of the tasks are members of task arrays.
        limits: some of the tasks have a time limit, which they keep unless they hang.
        quick: tasks are short and call one function, mostly one after the other.
        cached: results of some tasks may come from the result cache.
        linked: some of the tasks are members of linked blocks.
        fewest_linked: members of an array in linked blocks.
    """

    rng: random.Random
    max_cpus: int = 1
    failing: float = 0.0
    arrays: bool = False
    limits: bool = False
    quick: bool = False
    cached: bool = False
    linked: bool = False
    fewest_linked: int = 1
    next_id: int = FIRST_ID
    reusable: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)

    def plan(self, task_count: int) -> PlannedSubmit:
        """The next submit; tasks come after their inputs."""
        rng = self.rng
        submit = PlannedSubmit()
        for _ in range(rng.randint(0, 3)):
            size = LARGE if rng.random() < 0.1 else rng.randint(0, SMALL)
            submit.constants[self._new_id()] = rng.randbytes(size)
        usable = [*submit.constants, *self.reusable]
        function = (self._new_id(),) if self.quick else ()
        submit.constants.update(dict.fromkeys(function, b"function"))
        fan_in = rng.choice((1, 2, 4))
        recent = rng.random() < 0.4
        left = task_count
        functions = self._functions(submit) if self.linked else []
        while left > 0:
            if functions and rng.random() < 0.3:
                planned = self._linked(usable, functions, max(self.fewest_linked, rng.randint(1, 4 * left)))
                submit.arrays.append(planned)
                outputs = [task.outputs[0] for task in planned.members]
                share = rng.choice((0.0, 0.1, 0.5, 1.0))
                submit.kept.update(number for number in outputs if rng.random() < share)
                usable.extend(outputs)
                left -= len(outputs)
                continue
            if self.arrays and rng.random() < 0.2:
                array_ = self._array(usable, rng.randint(1, 3 * left))
                submit.arrays.append(array_)
                if rng.random() < 0.7:
                    submit.kept.update(task.outputs[0] for task in array_.members)
                usable.extend(task.outputs[0] for task in array_.members)
                left -= len(array_.members)
                continue
            task = self._task(usable, fan_in, recent)
            if function:
                task = _hastened(task, function)
            if self.cached and task.outputs and task.number % _CACHED_EACH == 0:
                task = replace(task, cache=True)
            submit.tasks.append(task)
            usable.extend(task.outputs)
            left -= 1
        for number in self._to_keep_singly(submit):
            if rng.random() < 0.3:
                submit.kept.add(number)
        self.reusable.extend(sorted(submit.kept))
        return submit

    @staticmethod
    def _to_keep_singly(submit: PlannedSubmit) -> list[int]:
        """Constants and outputs, but for those of arrays."""
        return [*submit.constants, *(output for task in submit.tasks for output in task.outputs)]

    def _array(self, usable: list[int], count: int) -> PlannedArray:
        """An array; most members are short, few fail, few have large values."""
        rng = self.rng
        pool = usable[-6:]
        inputs = tuple(rng.choice(pool) for _ in range(rng.choice((1, 1, 1, 2)))) if pool else ()
        cpus, priority = (1, 0) if rng.random() < 0.8 else (rng.randint(0, self.max_cpus), 1)
        retries = rng.choice((0, 2)) if self.failing else 0
        usual = rng.choice((0.0, 0.0, 0.0001, 0.001, 0.1))
        prototypes = []
        for _ in range(count):
            fails = crashes = 0
            if retries and rng.random() < self.failing:
                fails, crashes = rng.choice(((1, 0), (2, 0), (0, 1), (1, 1)))
            elif rng.random() < self.failing / 20:
                fails = FOR_EVER
            prototypes.append(
                PlannedTask(
                    number=0,
                    inputs=inputs,
                    outputs=(),
                    sizes=(LARGE if rng.random() < 0.02 else rng.randint(0, SMALL),),
                    duration=rng.choice((0.3, 0.01)) if rng.random() < 0.05 else usual,
                    cpus=cpus,
                    retries=retries,
                    priority=priority,
                    fails=fails,
                    crashes=crashes,
                )
            )
        first = self.next_id
        self.next_id += 2 * count
        return PlannedArray.of(first, prototypes)

    def _functions(self, submit: PlannedSubmit) -> list[int]:
        """Functions for linked blocks: kept ones of earlier submits and new ones."""
        known = [number for number in self.functions if number in self.reusable]
        new = [self._new_id() for _ in range(self.rng.randint(not known, 2))]
        submit.constants.update(dict.fromkeys(new, b"function"))
        submit.kept.update(new)
        self.functions += new
        return [*known, *new]

    def _linked(self, usable: list[int], functions: list[int], count: int) -> PlannedArray:
        """An array in linked blocks: what a member uses is mostly made by those just before it."""
        rng = self.rng
        retries = rng.choice((0, 2)) if self.failing else 0
        usual = rng.choice((0.0, 0.0, 0.00002, 0.001))
        reach, fan_in = rng.choice((1, 3, 10, count)), rng.choice((1, 2, 4))
        near = rng.choice((0.5, 0.9, 1.0))
        functions = rng.sample(functions, rng.randint(1, len(functions)))
        first, members = self.next_id, []
        for position in range(count):
            function = rng.choice(functions)
            inputs = [function]
            for _ in range(rng.randint(0, fan_in)):
                if position and rng.random() < near:
                    inputs.append(first + rng.randrange(max(0, position - reach), position))
                elif usable:
                    inputs.append(rng.choice(usable))
            fails = crashes = 0
            if retries and rng.random() < self.failing / 2:
                fails, crashes = rng.choice(((1, 0), (2, 0), (0, 1), (1, 1)))
            elif rng.random() < self.failing / 30:
                fails = FOR_EVER
            members.append(
                PlannedTask(
                    number=0,
                    inputs=tuple(inputs),
                    outputs=(),
                    sizes=(LARGE if rng.random() < 0.01 else rng.randint(0, SMALL),),
                    duration=rng.choice((0.3, 0.01)) if rng.random() < 0.02 else usual,
                    retries=retries,
                    fails=fails,
                    crashes=crashes,
                    name=f"function {function}",
                )
            )
        self.next_id += 2 * count
        blocks, left = [], count
        while left:
            blocks.append(min(left, rng.choice((1, 5, 20, 60))))
            left -= blocks[-1]
        return replace(PlannedArray.of(first, members), linked=tuple(blocks))

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
            timeout=10.0 if self.limits and rng.random() < 0.2 else 0.0,
        )

    def _new_id(self) -> int:
        number, self.next_id = self.next_id, self.next_id + 1
        return number


def _hastened(task: PlannedTask, function: tuple[int, ...]) -> PlannedTask:
    """The same task, a thousand times faster, as a call of a function like all others."""
    inputs = (*function, *task.inputs)
    return replace(task, inputs=inputs, duration=task.duration / 1000, cpus=1, priority=0, timeout=0.0, type="py")


class ChunkWriter:
    """Writes submits as messages; keeps the template numbers of the session.

    Args:
        session: its number.
        per_block: members in one SubmitBlock.
    """

    def __init__(self, session: int, per_block: int = 16) -> None:
        self._session = session
        self._per_block = per_block
        self._templates: dict[bytes, int] = {}

    def messages(self, submit: PlannedSubmit) -> list[SubmitChunk | SubmitBlock]:
        """The submit by rising ids: a chunk for the constants and the tasks before each array, blocks for the array."""
        found: list[SubmitChunk | SubmitBlock] = []
        tasks, constants = list(submit.tasks), submit.constants
        for planned in sorted(submit.arrays, key=lambda one: one.first):
            before = [task for task in tasks if task.number < planned.first]
            if before or constants:
                found.append(self._chunk(before, constants, submit.kept))
            tasks, constants = [task for task in tasks if task.number >= planned.first], {}
            found += self._blocks(planned, submit.kept)
        if tasks or constants or not found:
            found.append(self._chunk(tasks, constants, submit.kept))
        return found

    def _template(self, task: PlannedTask, new: list[bytes]) -> int:
        packed = _template(task)
        if packed not in self._templates:
            self._templates[packed] = len(self._templates)
            new.append(packed)
        return self._templates[packed]

    def _chunk(self, tasks: list[PlannedTask], constants: dict[int, bytes], kept: set[int]) -> SubmitChunk:
        new: list[bytes] = []
        task_templates = array("I", [self._template(task, new) for task in tasks])
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
            objects=array("I", constants),
            object_flags=bytes(INLINE | (KEEP if number in kept else 0) for number in constants),
            object_specs=[],
            values=list(constants.values()),
        )

    def _linked_blocks(self, planned: PlannedArray, kept: set[int]) -> list[SubmitBlock]:
        found, start = [], 0
        for count in planned.linked:
            new: list[bytes] = []
            chosen = [
                LinkedMember(self._template(task, new), task.inputs, task.outputs[0] in kept, task.args())
                for task in planned.members[start : start + count]
            ]
            found.append(linked_block(self._session, new, planned.first, len(planned.members), start, chosen))
            start += count
        return found

    def _blocks(self, planned: PlannedArray, kept: set[int]) -> list[SubmitBlock]:
        if planned.linked:
            return self._linked_blocks(planned, kept)
        members, found = planned.members, []
        for start in range(0, len(members), self._per_block):
            args = [task.args() for task in members[start : start + self._per_block]]
            new: list[bytes] = []
            template = self._template(members[0], new)
            found.append(
                SubmitBlock(
                    session=self._session,
                    templates=new,
                    template=template,
                    first=planned.first,
                    members=len(members),
                    start=start,
                    inputs=array("I", members[0].inputs),
                    keep=planned.first in kept,
                    args=b"".join(args),
                    arg_sizes=array("I", map(len, args)),
                )
            )
        return found


def _template(task: PlannedTask) -> bytes:
    data: dict[str, Any] = {"task_type": task.type, "resources": {"cpus": task.cpus}}
    if task.retries:
        data["retries"] = task.retries
    if task.priority:
        data["priority"] = task.priority
    if task.timeout:
        data["timeout"] = task.timeout
    if task.cache:
        data["cache"] = True
    if task.name:
        data["name"] = task.name
    if task.outputs:
        data["outputs"] = [{} for _ in task.outputs]
    packed: bytes = msgpack.packb(data)
    return packed
