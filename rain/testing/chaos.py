"""Kills and pauses real processes of a local cluster while it works.

Example:
    with LocalCluster(4, cpus=1, timeout=60) as cluster, ChaosMonkey(cluster, Harm(kill_worker=2.0), seed=1) as monkey:
        ...
    assert monkey.count("kill worker") > 3
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rain.launch.processes import tail

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rain.client import LocalCluster
    from rain.launch.processes import LocalProcess

KILL_WORKER, KILL_EXECUTOR, PAUSE_WORKER = "kill worker", "kill executor", "pause worker"

_STOP_SECONDS = 120.0
_ERROR_MARKS = (" ERROR ", " CRITICAL ", "Traceback (most recent call last)", "Warning: ")


@dataclass(frozen=True, slots=True)
class Harm:
    """What is done, and how often; None: never.

    Attributes:
        kill_worker: seconds from one SIGKILL of a worker to the next; another worker is started at once.
        kill_executor: seconds from one SIGKILL of an executor to the next.
        pause_worker: seconds from one SIGSTOP of a worker to the next.
        pause_seconds: shortest and longest pause.
        workers: so many must live before one is killed or paused.
    """

    kill_worker: float | None = None
    kill_executor: float | None = None
    pause_worker: float | None = None
    pause_seconds: tuple[float, float] = (1.0, 4.0)
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done: when (monotonic seconds), what, to which process; `worker`: of which worker that process is."""

    time: float
    what: str
    pid: int
    worker: int


class ChaosMonkey:
    """Does harm from a thread of its own, chosen by a seed, until it is stopped.

    Args:
        cluster: whose workers suffer.
        harm: what is done.
        seed: of the choices. The moments depend on the machine, so a seed repeats the choices only.
        cpus: of new workers.

    Attributes:
        deeds: what was done so far.
    """

    def __init__(self, cluster: LocalCluster, harm: Harm, *, seed: int, cpus: int = 1) -> None:
        self.deeds: list[Deed] = []
        self._cluster = cluster
        self._harm = harm
        self._random = random.Random(seed)
        self._cpus = cpus
        self._paused: dict[int, float] = {}  # pid of a worker -> when it goes on
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="chaos-monkey", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._error is not None and error is None:
            raise self._error

    def stop(self) -> None:
        """Do no harm any more; paused workers go on."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)
        for pid in list(self._paused):
            self._resume(pid)

    def count(self, what: str) -> int:
        """How often this was done."""
        return Counter(deed.what for deed in self.deeds)[what]

    def victims(self) -> set[int]:
        """Process ids of workers and executors to which something was done."""
        return {deed.pid for deed in self.deeds}

    def check_survivors(self) -> None:
        """No worker ended but those that were killed, and no process logged an error. Call it before the cluster ends.

        Raises:
            AssertionError: with the log of who ended, or the lines.
        """
        killed = {deed.pid for deed in self.deeds if deed.what == KILL_WORKER}
        for process in self._cluster._group.processes:
            code = process.poll()
            if code is not None and process.popen.pid not in killed:
                raise AssertionError(f"{process.name} ended by itself with {code}:\n{tail(process.log)}")
        lines = errors_in_logs(self._cluster.logdir)
        if lines:
            raise AssertionError("errors in the logs:\n" + "\n".join(lines[:20]))

    def __repr__(self) -> str:
        done = Counter(deed.what for deed in self.deeds)
        return f"<ChaosMonkey {', '.join(f'{what}: {count}' for what, count in sorted(done.items()))}>"

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._do_harm()
        except BaseException as error:
            self._error = error

    def _do_harm(self) -> None:
        harm = self._harm
        plan = {
            self._kill_worker: harm.kill_worker,
            self._kill_executor: harm.kill_executor,
            self._pause_worker: harm.pause_worker,
        }
        now = time.monotonic()
        due = {deed: now + interval for deed, interval in plan.items() if interval is not None}
        while due:
            first = min(due, key=due.__getitem__)
            wake = min([due[first], *self._paused.values()])
            if self._stopping.wait(max(wake - time.monotonic(), 0.0)):
                return
            for pid, end in list(self._paused.items()):
                if end <= time.monotonic():
                    self._resume(pid)
            if due[first] <= time.monotonic():
                first()
                # What took long is not made up for: that would be a burst.
                due[first] = max(due[first], time.monotonic()) + (plan[first] or 0.0)

    def _living(self) -> list[LocalProcess]:
        found = [process for process in self._cluster._group.processes if process.name.startswith("worker")]
        return [process for process in found if process.poll() is None]

    def _victim(self) -> LocalProcess | None:
        """A worker that is not paused, if enough others live."""
        living = self._living()
        free = [process for process in living if process.popen.pid not in self._paused]
        return self._random.choice(free) if len(living) >= self._harm.workers and free else None

    def _note(self, what: str, pid: int, worker: int) -> None:
        self.deeds.append(Deed(time.monotonic(), what, pid, worker))

    def _kill_worker(self) -> None:
        victim = self._victim()
        if victim is None:
            return
        victim.popen.kill()
        victim.popen.wait(10)
        self._note(KILL_WORKER, victim.popen.pid, victim.popen.pid)
        self._cluster.add_worker(self._cpus)

    def _kill_executor(self) -> None:
        candidates = [
            (executor, worker.popen.pid) for worker in self._living() for executor in executors_of(worker.popen.pid)
        ]
        if not candidates:
            return
        executor, worker = self._random.choice(candidates)
        with contextlib.suppress(psutil.NoSuchProcess):
            executor.kill()
            self._note(KILL_EXECUTOR, executor.pid, worker)

    def _pause_worker(self) -> None:
        victim = self._victim()
        if victim is None:
            return
        pid = victim.popen.pid
        os.kill(pid, signal.SIGSTOP)
        self._paused[pid] = time.monotonic() + self._random.uniform(*self._harm.pause_seconds)
        self._note(PAUSE_WORKER, pid, pid)

    def _resume(self, pid: int) -> None:
        del self._paused[pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def errors_in_logs(logdir: str | os.PathLike[str]) -> list[str]:
    """Lines of errors in the logs of servers and workers: what only tells of the harm done is a warning at most."""
    return [
        f"{log.name}: {line}"
        for log in sorted(Path(logdir).glob("*.err"))
        for line in log.read_text("utf-8", errors="replace").splitlines()
        if any(mark in line for mark in _ERROR_MARKS)
    ]


def executors_of(worker: int) -> list[psutil.Process]:
    """Executor processes of a worker.

    Args:
        worker: its process id.
    """
    try:
        children = psutil.Process(worker).children()
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if _is_executor(child)]


def _is_executor(process: psutil.Process) -> bool:
    try:
        return "rain.executor" in process.cmdline()
    except psutil.NoSuchProcess:
        return False
