"""What a simulated worker has instead of a store, executor processes, transfers and built-in tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.errors import RainConnectionError
from rain.common.failure import Failure
from rain.testing.graphs import output_value
from rain.testing.simdata import read_from
from rain.worker.core.events import (
    BuiltinStopped,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    ObjectArrived,
    ObjectUnreachable,
    RunFailed,
    RunKept,
    RunResult,
    RunsEnded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.testing.simloop import SimLoop
    from rain.testing.simnet import SimNode
    from rain.worker.core.actions import FetchObject, Run
    from rain.worker.core.events import ObjectKey, TaskKey, WorkerEvent

INLINE_LIMIT = 64 << 10
FLUSH_AFTER = 0.005
"""An executor reports at once what took longer."""


@dataclass(slots=True)
class Functions:
    """What tasks do, for all workers of a simulation.

    Attributes:
        starts: runs begun, by (session, task).
        mishaps: failed runs, by (session, task).
        blamed: tasks that were running in an executor when a fault killed it.
    """

    starts: dict[tuple[int, int], int] = field(default_factory=dict)
    mishaps: dict[tuple[int, int], int] = field(default_factory=dict)
    blamed: set[tuple[int, int]] = field(default_factory=set)

    def begin(self, run: Run) -> tuple[dict[str, Any], str]:
        """A run begins; returns its arguments and how it will end: `ok`, `fail` or `crash`."""
        args: dict[str, Any] = msgpack.unpackb(run.args or b"\x80")
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


class SimStore:
    """A dict.

    Attributes:
        values: by key.
        damaged: keys whose values other nodes cannot read.
    """

    def __init__(self) -> None:
        self.values: dict[ObjectKey, bytes] = {}
        self.damaged: set[ObjectKey] = set()

    def put(self, key: ObjectKey, value: bytes) -> None:
        """Store a value; an existing one wins."""
        self.values.setdefault(key, value)

    def read(self, key: ObjectKey) -> bytes | None:
        """The value for another node."""
        return None if key in self.damaged else self.values.get(key)

    def get(self, key: ObjectKey) -> bytes | None:
        """The value, None if it is not here."""
        return self.values.get(key)

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove values."""
        for key in keys:
            self.values.pop(key, None)
            self.damaged.discard(key)


def make_outputs(run: Run, args: dict[str, Any], inputs: list[bytes]) -> dict[ObjectKey, bytes]:
    """The values a run produces."""
    return {
        (run.key[0], output): output_value(args["number"], position, size, inputs)
        for position, (output, size) in enumerate(zip(run.outputs, args["sizes"], strict=True))
    }


def result_of(run: Run, start: float, duration: float, outputs: dict[ObjectKey, bytes]) -> RunResult:
    """The report of a successful run."""
    values = [outputs[run.key[0], output] for output in run.outputs]
    columns: list[tuple[int, bytes | None, bytes | None]]
    columns = [(len(value), None, value if len(value) < INLINE_LIMIT else None) for value in values]
    return RunResult(run.key, start, duration, None, columns)


def failure_of(run: Run, text: str) -> Failure:
    """The failure of a run."""
    return Failure("task", f"{text} in {run.key}", run.key[0], run.key[1])


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
        self._results: list[RunResult | RunFailed] = []
        self._now_cached: list[ObjectKey] = []
        self._cpus = 0
        self._forbidden: set[TaskKey] = set()
        self._timer: asyncio.TimerHandle | None = None

    def call(self, runs: list[Run]) -> None:
        """Take a batch; values are read from the store now, as when a frame is composed."""
        coming = {(r.key[0], output) for r, _ in self._line for output in r.outputs}
        if self.current is not None:
            coming.update((self.current.key[0], output) for output in self.current.outputs)
        for run in runs:
            sent: dict[ObjectKey, bytes] = {}
            for wanted in run.inputs:
                key = wanted.object
                if wanted.cached:
                    assert key in self._cached, f"executor {self.number} does not hold {key}, input of {run.key}"
                    sent[key] = self._cached[key]
                elif (value := self._pool.store.get(key)) is not None:
                    sent[key] = value
                else:
                    assert key in coming or key in self._live, f"run {run.key} is sent without its input {key}"
            self._line.append((run, sent))
            coming.update((run.key[0], output) for output in run.outputs)
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
        self.current = run
        self._cpus = self._pool.meter.take(run)
        args, end = self._pool.functions.begin(run)
        start = self._pool.clock()
        self._timer = self._pool.loop.call_later(args["duration"], self._end, run, sent, args, end, start)

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
            self._results.append(RunFailed(run.key, failure_of(run, "boom"), start, duration))
        else:
            inputs = [self._value(wanted.object, sent) for wanted in run.inputs]
            outputs = make_outputs(run, args, inputs)
            self._live.update(outputs)
            self._results.append(result_of(run, start, duration, outputs))
            for key, value in [*zip((i.object for i in run.inputs), inputs, strict=True), *outputs.items()]:
                if key not in self._cached and key not in self._now_cached and pool.loop.rng.random() < 0.3:
                    self._now_cached.append(key)
                    self._cached[key] = value
        if duration > FLUSH_AFTER:
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

    def _flush(self) -> None:
        if self._results:
            for key, value in self._live.items():
                self._pool.store.put(key, value)
            self._live.clear()
            results, self._results = self._results, []
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
    ) -> None:
        self.loop = loop
        self.store = store
        self.functions = functions
        self.meter = meter
        self.clock = clock
        self.report = report
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

    def fault(self) -> bool:
        """Kill one of the registered processes from outside; False if there is none."""
        ready = [number for number, executor in self.running.items() if executor.ready]
        if not ready:
            return False
        executor = self.running[self.loop.rng.choice(ready)]
        running = executor.current
        if running is not None:
            self.functions.blamed.add(running.key[:2])
        self.crash(executor, "Lost connection to executor (killed)")
        return True

    def _registered(self, executor: SimExecutor) -> None:
        if self.running.get(executor.number) is executor:
            executor.ready = True
            self.report(ExecutorReady(executor.number))


class SimBuiltins:
    """Built-in tasks: the same functions, run by the worker itself."""

    def __init__(self, executors: SimExecutors) -> None:
        self._pool = executors
        self._running: dict[TaskKey, tuple[asyncio.TimerHandle, int]] = {}
        self._ending: dict[TaskKey, int] = {}

    def run(self, run: Run) -> None:
        """Start one."""
        pool = self._pool
        inputs = []
        for wanted in run.inputs:
            value = pool.store.get(wanted.object)
            assert value is not None, f"built-in run {run.key} begins without its input {wanted.object}"
            inputs.append(value)
        cpus = pool.meter.take(run)
        args, end = pool.functions.begin(run)
        timer = pool.loop.call_later(args["duration"], self._end, run, inputs, args, end, pool.clock())
        self._running[run.key] = (timer, cpus)

    def stop(self, key: TaskKey, grace: float) -> None:
        """Stop it; with grace it ends a moment later, and that is reported."""
        stopped = self._running.pop(key, None)
        if stopped is not None:
            stopped[0].cancel()
            self._ending[key] = stopped[1]
        if grace:
            loop = self._pool.loop
            loop.call_later(loop.rng.uniform(0.0, grace), self._stopped, key)
        elif key in self._ending:
            self._pool.meter.give(self._ending.pop(key))

    def _stopped(self, key: TaskKey) -> None:
        if key in self._ending:
            self._pool.meter.give(self._ending.pop(key))
        self._pool.report(BuiltinStopped(key))

    def _end(self, run: Run, inputs: list[bytes], args: dict[str, Any], end: str, start: float) -> None:
        pool = self._pool
        pool.meter.give(self._running.pop(run.key)[1])
        result: RunResult | RunFailed
        if end == "ok":
            outputs = make_outputs(run, args, inputs)
            for key, value in outputs.items():
                pool.store.put(key, value)
            result = result_of(run, start, args["duration"], outputs)
        else:
            pool.functions.went_wrong(run)
            result = RunFailed(run.key, failure_of(run, "boom"), start, args["duration"])
        pool.report(RunsEnded(0, [result], []))


class SimTransfers:
    """Transfers over the simulated network.

    Attributes:
        fails: how likely an attempt fails for no reason.
    """

    ATTEMPTS = 3

    def __init__(self, node: SimNode, store: SimStore, report: Callable[[WorkerEvent], None]) -> None:
        self.fails = 0.0
        self._node = node
        self._store = store
        self._report = report
        self._tasks: dict[ObjectKey, asyncio.Task[None]] = {}

    def fetch(self, action: FetchObject) -> None:
        """Start a transfer."""
        assert action.object not in self._tasks, f"two transfers of {action.object}"
        self._tasks[action.object] = asyncio.get_running_loop().create_task(
            self._fetch(action), name=f"transfer of {action.object} to {self._node.name}"
        )

    def stop(self, key: ObjectKey) -> None:
        """Stop it; nothing is reported."""
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def _fetch(self, action: FetchObject) -> None:
        key = action.object
        for address in action.holders:
            for _ in range(self.ATTEMPTS):
                value = await self._attempt(address, key)
                if value is not None:
                    assert len(value) == action.size, f"{key}: {len(value)} bytes came, {action.size} were announced"
                    del self._tasks[key]
                    self._store.put(key, value)
                    self._report(ObjectArrived(key, len(value)))
                    return
        del self._tasks[key]
        self._report(ObjectUnreachable(key, list(action.holders), "not there"))

    async def _attempt(self, address: str, key: ObjectKey) -> bytes | None:
        loop: Any = asyncio.get_running_loop()
        if loop.rng.random() < self.fails:
            await asyncio.sleep(0.01)
            return None
        try:
            return await read_from(self._node, address, key)
        except RainConnectionError:
            return None
