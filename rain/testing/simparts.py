"""What a simulated worker has instead of executor processes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rain.common.failure import Failure
from rain.testing.simblocks import SimBlock, failure_of, make_outputs, read_args
from rain.testing.simstore import result_of, stored
from rain.worker.core.events import (
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    LimitExceeded,
    RunFailed,
    RunKept,
    RunsEnded,
    RunSkipped,
    StoreFailed,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from rain.testing.simloop import SimLoop
    from rain.testing.simstore import SimStore
    from rain.worker.core.actions import Run
    from rain.worker.core.events import ObjectKey, RunEnd, TaskKey, WorkerEvent

MEMORY_EXCEEDED = "Memory limit of 1 MiB exceeded"
FLUSH_AFTER = 0.005
"""An executor reports at once what took longer."""


@dataclass(slots=True)
class Functions:
    """What tasks do, for all workers of a simulation.

    Attributes:
        starts: runs begun, by (session, task).
        mishaps: failed runs, by (session, task).
        blamed: tasks that were running in an executor when a fault killed it.
        results: the result cache of all workers.
    """

    starts: dict[tuple[int, int], int] = field(default_factory=dict)
    mishaps: dict[tuple[int, int], int] = field(default_factory=dict)
    blamed: set[tuple[int, int]] = field(default_factory=set)
    results: dict[tuple[object, ...], list[bytes]] = field(default_factory=dict)

    def begin(self, run: Run) -> tuple[dict[str, Any], str]:
        """A run begins; returns its arguments and how it will end: `ok`, `fail` or `crash`."""
        args = read_args(run.args)
        key = run.key[:2]
        self.starts[key] = self.starts.get(key, 0) + 1
        before = self.mishaps.get(key, 0)
        if before < args["crashes"]:
            return args, "crash"
        return args, "fail" if before < args["crashes"] + args["fails"] else "ok"

    def went_wrong(self, run: Run) -> None:
        """A run ended badly by its own fault."""
        key = run.key[:2]
        self.mishaps[key] = self.mishaps.get(key, 0) + 1


class CpuMeter:
    """Checks that no more cpus are in use than there are."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._used = 0

    def take(self, run: Run) -> int:
        """A run begins; returns what `give` gets back at its end."""
        cpus = int((run.template_data.get("resources") or {}).get("cpus", 1))
        self._used += cpus
        assert self._used <= self._cpus, f"run {run.key} begins: {self._used} of {self._cpus} cpus in use"
        return cpus

    def give(self, cpus: int) -> None:
        """A run ended."""
        self._used -= cpus


def _promised(run: Run) -> list[ObjectKey]:
    """What the executor will have live after this run."""
    return [] if run.members else [(run.key[0], output) for output in run.outputs]


class SimExecutor:
    """One executor process: runs what it is sent, one after the other."""

    def __init__(self, pool: SimExecutors, number: int) -> None:
        self.number = number
        self.ready = False
        self.current: Run | None = None
        self._pool = pool
        self._line: deque[tuple[Run, dict[ObjectKey, bytes]]] = deque()
        self._cached: dict[ObjectKey, bytes] = {}
        self._live: dict[ObjectKey, bytes] = {}
        self._results: list[tuple[Run, RunEnd, dict[ObjectKey, bytes]]] = []
        self._now_cached: list[ObjectKey] = []
        self._cpus = 0
        self._forbidden: set[TaskKey] = set()
        self._hopeless: set[TaskKey] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._then: Callable[[], None] | None = None

    def call(self, runs: list[Run]) -> None:
        """Take a batch; values are read from the store now, as when a frame is composed."""
        coming = {key for r, _ in self._line for key in _promised(r)}
        if self.current is not None:
            coming.update(_promised(self.current))
        for run in runs:
            sent: dict[ObjectKey, bytes] = {}
            for wanted in run.inputs:
                key = wanted.object
                if wanted.cached:
                    assert key in self._cached, f"executor {self.number} does not hold {key}, input of {run.key}"
                    sent[key] = self._cached[key]
                elif (value := self._pool.store.get(key)) is not None:
                    sent[key] = value
                elif wanted.live:
                    assert key in coming, f"run {run.key} is to find {key} live, but nothing before it makes that"
                elif key not in coming and key not in self._live:
                    assert self._pool.store.refusals, f"run {run.key} is sent without its input {key}"
                    self._pool.report(StoreFailed(key, "the value is not in the store"))
                    self._hopeless.add(run.key)
            self._line.append((run, sent))
            coming.update(_promised(run))
        if self.current is None:
            self._next()

    def drop_cached(self, objects: list[ObjectKey]) -> None:
        """Forget decoded objects."""
        for key in objects:
            self._cached.pop(key, None)

    def end_session(self, session: int) -> None:
        """Forget what is known of a session."""
        self._cached = {key: value for key, value in self._cached.items() if key[0] != session}

    def forbid(self, key: TaskKey) -> bool:
        """End instead of beginning this run; False if it has begun."""
        if all(run.key != key for run, _ in self._line):
            return False
        self._forbidden.add(key)
        return True

    def hold(self) -> None:
        """Begin nothing more and say nothing more; what runs goes on till `stop`."""
        if self._timer is not None:
            self._timer.cancel()
        self._line.clear()

    def stop(self) -> None:
        """The process ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self.current is not None:
            self._pool.meter.give(self._cpus)
        self.current = None
        self._line.clear()

    def _next(self) -> None:
        if not self._line:
            self._flush()
            return
        run, sent = self._line.popleft()
        if run.key in self._forbidden:
            self._flush()
            self._pool.crash(self, "a forbidden run was next")
            return
        if run.key in self._hopeless:
            failed = RunFailed(run.key, failure_of(run, "an input is missing"), self._pool.clock(), 0.0)
            self._results.append((run, failed, {}))
            self._next()
            return
        if any(wanted.live and not self._has(wanted.object) for wanted in run.inputs):
            self._results.append((run, RunSkipped(run.key), {}))
            self._next()
            return
        self.current = run
        self._cpus = self._pool.meter.take(run)
        if run.members:
            inputs = [self._value(wanted.object, sent) for wanted in run.inputs]
            self._next_member(SimBlock(run, inputs, self._pool.loop.rng))
            return
        args, end = self._pool.functions.begin(run)
        start = self._pool.clock()
        self._after(args["duration"], lambda: self._end(run, sent, args, end, start))

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._then = then
        self._timer = self._pool.loop.call_later(seconds, self._pool.hear, then)

    def hang(self, seconds: float) -> None:
        """What runs now ends so many seconds from now."""
        if self.current is not None and self._timer is not None and self._then is not None:
            self._timer.cancel()
            self._after(seconds, self._then)

    def _end(self, run: Run, sent: dict[ObjectKey, bytes], args: dict[str, Any], end: str, start: float) -> None:
        pool, duration = self._pool, args["duration"]
        if end == "crash":
            pool.functions.went_wrong(run)
            pool.crash(self, "Lost connection to executor")
            return
        pool.meter.give(self._cpus)
        self.current = None
        if end == "fail":
            pool.functions.went_wrong(run)
            self._results.append((run, RunFailed(run.key, failure_of(run, "boom"), start, duration), {}))
        else:
            inputs = [self._value(wanted.object, sent) for wanted in run.inputs]
            outputs = make_outputs(run, args, inputs)
            self._live.update(outputs)
            self._results.append((run, result_of(run, start, duration, outputs), outputs))
            for key, value in [*zip((i.object for i in run.inputs), inputs, strict=True), *outputs.items()]:
                if key not in self._cached and key not in self._now_cached and pool.loop.rng.random() < 0.3:
                    self._now_cached.append(key)
                    self._cached[key] = value
        if duration > FLUSH_AFTER:
            self._flush()
        self._next()

    def _next_member(self, block: SimBlock) -> None:
        pool = self._pool
        args, end = pool.functions.begin(block.member)
        start = pool.clock()
        self._after(args["duration"], lambda: self._member_ends(block, args, end, start))

    def _member_ends(self, block: SimBlock, args: dict[str, Any], end: str, start: float) -> None:
        pool = self._pool
        if end == "crash":
            pool.functions.went_wrong(block.member)
            pool.crash(self, "Lost connection to executor")
            return
        if end == "fail":
            pool.functions.went_wrong(block.member)
        outputs = block.member_ends(args, end == "ok", start)
        self._live.update(outputs)
        if not block.is_over:
            self._next_member(block)
            return
        pool.meter.give(self._cpus)
        self.current = None
        self._results.append((block.run, block.result(), outputs))
        self._flush()
        self._next()

    def _value(self, key: ObjectKey, sent: dict[ObjectKey, bytes]) -> bytes:
        value = sent.get(key)
        if value is None:
            value = self._live.get(key)
        if value is None:
            value = self._pool.store.get(key)
        assert value is not None, f"executor {self.number} has no value of {key}"
        return value

    def _has(self, key: ObjectKey) -> bool:
        """Whether the value of an input that an earlier run was to make is at hand."""
        return key in self._live or self._pool.store.get(key) is not None

    def _flush(self) -> None:
        if self._results:
            results = [stored(self._pool.store, run, result, outputs) for run, result, outputs in self._results]
            self._results = []
            self._live.clear()
            cached, self._now_cached = self._now_cached, []
            self._pool.report(RunsEnded(self.number, results, cached))


class SimExecutors:
    """The executor pool of a simulated worker."""

    def __init__(
        self,
        loop: SimLoop,
        store: SimStore,
        functions: Functions,
        meter: CpuMeter,
        clock: Callable[[], float],
        report: Callable[[WorkerEvent], None],
        hear: Callable[[Callable[[], None]], None],
    ) -> None:
        self.loop = loop
        self.store = store
        self.functions = functions
        self.meter = meter
        self.clock = clock
        self.report = report
        self.hear = hear
        self.running: dict[int, SimExecutor] = {}
        self._ending: dict[int, SimExecutor] = {}

    def start(self, executor: int, type: str, env: tuple[tuple[str, str | None], ...]) -> None:
        """Start a process; it registers a moment later."""
        started = self.running[executor] = SimExecutor(self, executor)
        self.loop.call_later(self.loop.rng.uniform(0.01, 0.3), self._registered, started)

    def call(self, executor: int, runs: list[Run]) -> None:
        """Send a batch."""
        called = self.running.get(executor)
        if called is not None:
            assert called.ready, f"executor {executor} is called before it registered"
            called.call(runs)

    def drop_cached(self, executor: int, objects: list[ObjectKey]) -> None:
        """Let it forget objects."""
        if executor in self.running:
            self.running[executor].drop_cached(objects)

    def end_session(self, session: int) -> None:
        """Let all forget what they know of a session."""
        for executor in self.running.values():
            executor.end_session(session)

    def kill(self, executor: int, grace: float) -> None:
        """Kill it; with grace it ends a moment later, and that is reported."""
        killed = self.running.pop(executor, None)
        if killed is not None:
            self._ending[executor] = killed
            killed.hold()
        if grace:
            self.loop.call_later(self.loop.rng.uniform(0.0, grace), self._ended, executor)
        elif executor in self._ending:
            self._ending.pop(executor).stop()

    def _ended(self, executor: int) -> None:
        ended = self._ending.pop(executor, None)
        if ended is not None:
            ended.stop()
        self.report(ExecutorStopped(executor))

    def forbid(self, executor: int, key: TaskKey) -> None:
        """It shall end instead of beginning this run."""
        called = self.running.get(executor)
        if called is not None and called.forbid(key):
            self.loop.call_later(self.loop.rng.uniform(0.0, 0.05), self.report, RunKept(executor, key))

    def crash(self, executor: SimExecutor, reason: str) -> None:
        """The process dies by itself; what it had not reported is lost with it."""
        running = executor.current.key if executor.current is not None else None
        self.running.pop(executor.number, None)
        executor.stop()
        failure = Failure("task", reason) if running is None else Failure("task", reason, running[0], running[1])
        self.report(ExecutorLost(executor.number, running, failure))

    def _victim(self, *, busy: bool) -> SimExecutor | None:
        numbers = [number for number, one in self.running.items() if one.ready and not (busy and one.current is None)]
        return self.running[self.loop.rng.choice(numbers)] if numbers else None

    def _blame(self, run: Run | None) -> None:
        if run is not None and not run.members:  # nobody is to blame for a block
            self.functions.blamed.add(run.key[:2])

    def fault(self, reason: str = "killed by signal 9") -> None:
        """One of the registered processes ends by a fault."""
        executor = self._victim(busy=False)
        if executor is not None:
            self._blame(executor.current)
            self.crash(executor, f"Lost connection to executor ({reason})")

    def hang(self, seconds: float) -> None:
        """What one of the processes runs takes so many seconds longer."""
        executor = self._victim(busy=True)
        if executor is not None:
            self._blame(executor.current)
            executor.hang(seconds)

    def exceed(self) -> None:
        """What one of the processes runs uses more memory than it asked for."""
        executor = self._victim(busy=True)
        if executor is not None and executor.current is not None:
            self._blame(executor.current)
            self.report(LimitExceeded(executor.current.key, MEMORY_EXCEEDED))

    def _registered(self, executor: SimExecutor) -> None:
        if self.running.get(executor.number) is executor:
            executor.ready = True
            self.report(ExecutorReady(executor.number))
