"""Loads whose results are known beforehand: what a fault-free run gives is computed here, without a cluster."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rain.client import Session, TaskArray, delayed
from rain.executor.context import get_context
from rain.testing.graphs import output_value
from rain.testing.history import note_start

RETRIES = 20
"""A killed executor fails the task it was running; no task may run out of retries by that."""

DIGEST_SIZE = 64


def step(log: str, number: int, seconds: float, size: int, parts: Sequence[bytes]) -> bytes:
    """A task: notes its start, takes its time, gives a value that depends on all before it."""
    note_start(log, str(number), get_context().attempt)
    time.sleep(seconds)
    return output_value(number, 0, size, parts)


def keep_step(log: str, number: int, seconds: float, size: int, *parts: bytes) -> bytes:
    """The same as a function for `Session.map`."""
    return step(log, number, seconds, size, parts)


def duration(rng: random.Random, seconds: tuple[float, float]) -> float:
    """A random duration between two; the mean is a third of the way."""
    low, high = seconds
    return float(low + (high - low) * rng.random() ** 2)


@dataclass(slots=True)
class Step:
    """A planned task. inputs: numbers of earlier ones."""

    number: int
    inputs: list[int]
    seconds: float
    size: int


@dataclass(slots=True)
class TreeLoad:
    """Independent trees of tasks, each with 24 tasks in 7 levels and one small kept result.

    Args:
        trees: how many.
        bytes: of all values together, about.
        seconds: shortest and longest duration of a task; most are short.
        seed: of durations and sizes.
    """

    trees: int
    bytes: int
    seconds: tuple[float, float]
    seed: int
    steps: list[Step] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        mean = self.bytes // (self.trees * 23)
        for _ in range(self.trees):
            level: list[list[int]] = [[] for _ in range(8)]
            for width in (8, 8, 4, 2, 1):
                share = len(level) // width
                level = [
                    [self._add(rng, [number for group in level[i * share : (i + 1) * share] for number in group], mean)]
                    for i in range(width)
                ]
            self.roots.append(self._add(rng, level[0], None))

    def _add(self, rng: random.Random, inputs: list[int], mean: int | None) -> int:
        size = DIGEST_SIZE if mean is None else rng.randint(mean // 2, mean + mean // 2)
        number = len(self.steps)
        self.steps.append(Step(number, inputs, duration(rng, self.seconds), size))
        return number

    def inputs(self) -> dict[str, list[str]]:
        """All tasks, each with those on which it depends."""
        return {str(one.number): [str(number) for number in one.inputs] for one in self.steps}

    def expected(self) -> str:
        """Digest of all results of a fault-free run."""
        digest = hashlib.blake2b(digest_size=16)
        values: dict[int, bytes] = {}
        roots = set(self.roots)
        for one in self.steps:
            values[one.number] = output_value(one.number, 0, one.size, [values[i] for i in one.inputs])
            if one.number in roots:
                digest.update(values[one.number])
                values.clear()
        return digest.hexdigest()

    def run(self, session: Session, log: str, timeout: float) -> str:
        """Run it; returns the digest of all results."""
        inner, outer = delayed(step, keep=False, retries=RETRIES), delayed(step, retries=RETRIES)
        roots = set(self.roots)
        made: dict[int, Any] = {}
        with session.bind_only():
            for one in self.steps:
                function = outer if one.number in roots else inner
                parts = [made[i] for i in one.inputs]
                made[one.number] = function(log, one.number, one.seconds, one.size, parts)
            session.submit()
        session.wait_all(timeout=timeout)
        digest = hashlib.blake2b(digest_size=16)
        for number in self.roots:
            digest.update(made[number].result(timeout=timeout))
        return digest.hexdigest()


@dataclass(slots=True)
class ArrayLoad:
    """A task array, a second one over the results of the first, and one over both.

    Args:
        members: of each array.
        size: bytes of each value of the first two.
        seconds: shortest and longest duration of a task.
        seed: of durations.
    """

    members: int
    size: int
    seconds: tuple[float, float]
    seed: int

    def inputs(self) -> dict[str, list[str]]:
        """All tasks, each with those on which it depends."""
        n = self.members
        return {str(i): [str(i - n), str(i - 2 * n)][: i // n] for i in range(3 * n)}

    def _durations(self) -> list[float]:
        rng = random.Random(self.seed)
        return [duration(rng, self.seconds) for _ in range(3 * self.members)]

    def expected(self) -> str:
        """Digest of all results of a fault-free run."""
        n = self.members
        first = [output_value(i, 0, self.size, []) for i in range(n)]
        second = [output_value(n + i, 0, self.size, [first[i]]) for i in range(n)]
        third = [output_value(2 * n + i, 0, DIGEST_SIZE, [first[i], second[i]]) for i in range(n)]
        return hashlib.blake2b(b"".join(third), digest_size=16).hexdigest()

    def run(self, session: Session, log: str, timeout: float) -> str:
        """Run it; returns the digest of all results."""
        n, durations = self.members, self._durations()

        def level(depth: int, size: int, *parts: TaskArray) -> TaskArray:
            numbers = range(depth * n, (depth + 1) * n)
            columns = ([log] * n, numbers, durations[depth * n : (depth + 1) * n], [size] * n)
            return session.map(keep_step, *columns, *parts, retries=RETRIES)

        first = level(0, self.size)
        second = level(1, self.size, first)
        third = level(2, DIGEST_SIZE, first, second)
        session.submit()
        values = third.result(timeout=timeout)
        return hashlib.blake2b(b"".join(values), digest_size=16).hexdigest()
