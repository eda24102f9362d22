"""What a simulated worker has instead of transfers and of what it runs itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainConnectionError
from rain.testing.simblocks import failure_of, make_outputs
from rain.testing.simdata import read_from
from rain.testing.simstore import result_of, stored
from rain.worker.core.events import (
    BuiltinStopped,
    ObjectArrived,
    ObjectUnreachable,
    RunFailed,
    RunsEnded,
    StoreFailed,
)
from rain.worker.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.testing.simnet import SimNode
    from rain.testing.simparts import SimExecutors
    from rain.testing.simstore import SimStore
    from rain.worker.core.actions import FetchObject, Run
    from rain.worker.core.events import ObjectKey, RunEnd, TaskKey, WorkerEvent


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
            if value is None:
                assert pool.store.refusals, f"built-in run {run.key} begins without its input {wanted.object}"
                pool.report(StoreFailed(wanted.object, "the value is not in the store"))
                failed = RunFailed(run.key, failure_of(run, "an input is missing"), pool.clock(), 0.0)
                pool.report(RunsEnded(0, [failed], []))
                return
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
        result: RunEnd
        if end == "ok":
            outputs = make_outputs(run, args, inputs)
            result = stored(pool.store, run, result_of(run, start, args["duration"], outputs), outputs)
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
                    self._report(self._stored(key, value))
                    return
        del self._tasks[key]
        self._report(ObjectUnreachable(key, list(action.holders), "not there"))

    def _stored(self, key: ObjectKey, value: bytes) -> WorkerEvent:
        try:
            self._store.put(key, value)
        except StoreError as error:
            return StoreFailed(key, str(error))
        return ObjectArrived(key, len(value))

    async def _attempt(self, address: str, key: ObjectKey) -> bytes | None:
        loop: Any = asyncio.get_running_loop()
        if loop.rng.random() < self.fails:
            await asyncio.sleep(0.01)
            return None
        try:
            return await read_from(self._node, address, key)
        except RainConnectionError:
            return None
