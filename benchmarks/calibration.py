"""How fast this machine is just now, told by fixed work that has nothing to do with Rain."""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from typing import Self

LOOP_SECONDS = 0.15
STEPS_PER_LOOK = 2_000
PINGS = 1500
PING = b"x" * 100
LOOP, END = b"loop", b"end"
COPY_BYTES = 32 << 20
COPIES = 4
ANSWER_SECONDS = 20.0

KINDS = {"loop": "loop steps/s, all cpus", "ping": "pings/s between two processes", "copy": "bytes/s copied"}


class Calibration:
    """Processes that loop and answer; one per cpu. A context manager."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(os.cpu_count() or 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)
        self._ping()  # they are up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.send_bytes(END)
            end.close()
        for process in self._processes:
            process.join(ANSWER_SECONDS)

    def speeds(self) -> dict[str, float]:
        """Each of KINDS per second."""
        return {"loop": self._loop(), "ping": self._ping(), "copy": _copy()}

    def _loop(self) -> float:
        for end in self._ends:
            end.send_bytes(LOOP)
        return sum(float(_answer(end)) for end in self._ends)

    def _ping(self) -> float:
        for end in self._ends:
            end.send_bytes(PING)
            _answer(end)
        start = time.perf_counter()
        for _ in range(PINGS):
            self._ends[0].send_bytes(PING)
            _answer(self._ends[0])
        return PINGS / (time.perf_counter() - start)


def _answer(end: Connection) -> bytes:
    if not end.poll(ANSWER_SECONDS):
        raise TimeoutError(f"The process for the calibration gave no answer in {ANSWER_SECONDS:.0f} s")
    return end.recv_bytes()


def _serve(end: Connection) -> None:
    while (request := end.recv_bytes()) != END:
        end.send_bytes(str(_steps()).encode() if request == LOOP else request)


def _steps() -> float:
    """Steps of a plain Python loop per second."""
    start = time.perf_counter()
    table = dict.fromkeys(range(64), 0)
    steps = 0
    while (taken := time.perf_counter() - start) < LOOP_SECONDS:
        for number in range(STEPS_PER_LOOK):
            table[number & 63] += number
        steps += STEPS_PER_LOOK
    return steps / taken


def _copy() -> float:
    source, target = bytearray(COPY_BYTES), bytearray(COPY_BYTES)
    start = time.perf_counter()
    for _ in range(COPIES):
        target[:] = source
    return COPIES * COPY_BYTES / (time.perf_counter() - start)
