"""What one simulated client does in a session that must not fail: every value is compared."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainConnectionError
from rain.common.states import DataObjectState, TaskState
from rain.testing.graphs import GraphPlanner, evaluate
from rain.testing.simclient import RefusedError

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine

    from rain.common.failure import Failure
    from rain.testing.graphs import PlannedSubmit
    from rain.testing.simclient import SimClient, SimSession
    from rain.testing.simcluster import SimCluster
    from rain.testing.simplan import Outcome


class ClientScript:
    """What one client does: some submits, waits, fetches and unkeeps; every value is compared."""

    def __init__(
        self, cluster: SimCluster, client: SimClient, outcome: Outcome, tasks: int, rng: random.Random
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._outcome = outcome
        self._tasks = tasks
        self._rng = rng
        self._values: dict[int, bytes] = {}
        self._kept: list[int] = []
        self._unkept: set[int] = set()

    async def run(self) -> None:
        """The whole script; the outcome says how it ended."""
        outcome = self._outcome
        try:
            await self._client.connect(self._cluster.server.address)
            session = await self._client.new_session()
            outcome.session = session.number
            failure = await _failure_of(self._work(session))
            if failure is None:
                outcome.end = "finished"
            else:
                assert failure.kind == "task", failure
                outcome.failure = failure
                await self._check_failed(session, failure.task)
                outcome.end = "failed"
            await session.close()
            self._client.close()
        except RainConnectionError:
            outcome.end = "lost"

    async def _work(self, session: SimSession) -> None:
        rng = self._rng
        cpus = max(self._cluster.plan.cpus)
        plan = self._cluster.plan
        planner = GraphPlanner(rng, max_cpus=cpus, failing=plan.failing, arrays=plan.arrays, limits=not plan.is_first)
        planner.quick, planner.cached, planner.linked = plan.quick, plan.cached, plan.linked
        left = self._tasks
        while left > 0:
            count = min(left, rng.randint(1, self._tasks))
            left -= count
            submit = planner.plan(count)
            evaluate(submit, self._values)
            self._outcome.planned.update((task.number, task.fails_for_good) for task in submit.all_tasks())
            await session.submit(submit)
            self._kept += sorted(submit.kept)
            await self._something(session, submit, planner)
        await session.wait_all()
        await self._check_fetch(session, self._kept)
        await self._check_states(session)

    async def _something(self, session: SimSession, plan: PlannedSubmit, planner: GraphPlanner) -> None:
        rng = self._rng
        ids = [*(task.number for task in plan.all_tasks()), *plan.objects()]
        for _ in range(rng.randint(0, 3)):
            match rng.choice(("sleep", "wait", "some", "fetch", "unkeep")):
                case "sleep":
                    await asyncio.sleep(rng.choice((0.0, 0.1, 3.0)))
                case "wait":
                    await session.wait(rng.sample(ids, rng.randint(0, min(5, len(ids)))))
                case "some":
                    asked = rng.sample(ids, rng.randint(1, min(5, len(ids))))
                    done = await session.wait_some(asked)
                    assert done
                    assert set(done) <= set(asked)
                case "fetch" if self._kept:
                    await self._check_fetch(session, rng.sample(self._kept, rng.randint(1, min(4, len(self._kept)))))
                case "unkeep" if self._kept:
                    chosen = rng.sample(self._kept, rng.randint(1, min(4, len(self._kept))))
                    await session.unkeep(chosen)
                    self._unkept.update(chosen)
                    self._kept = [n for n in self._kept if n not in self._unkept]
                    planner.reusable[:] = self._kept

    async def _check_fetch(self, session: SimSession, ids: list[int]) -> None:
        for number, value in (await session.fetch(ids)).items():
            assert value == self._values[number], f"object {session.number}/{number} has a wrong value"

    async def _check_states(self, session: SimSession) -> None:
        tasks = sorted(self._outcome.planned)
        objects = sorted(self._values)
        states = await session.states(tasks + objects)
        unfinished = {TaskState.notAssigned, TaskState.ready, TaskState.assigned, TaskState.running}
        faulty = bool(self._cluster.plan.faults)
        for number, state in zip(tasks, states, strict=False):
            # A loss after the end of the wait may have made a task run again for a kept result.
            assert state == TaskState.finished or (faulty and state in unfinished), f"{number}: {TaskState(state).name}"
        for number, state in zip(objects, states[len(tasks) :], strict=True):
            kept = number in self._kept
            allowed = {DataObjectState.finished if kept else DataObjectState.removed}
            if faulty:
                allowed |= (
                    {DataObjectState.unfinished} if kept else {DataObjectState.unfinished, DataObjectState.finished}
                )
            assert state in allowed, f"object {number}: {DataObjectState(state).name}, kept: {kept}"

    async def _check_failed(self, session: SimSession, task: int) -> None:
        for ask in (session.wait_all, lambda: session.wait([10]), lambda: session.states([10])):
            failure = await _failure_of(ask())
            assert failure is not None, "a failed session answers"
            assert failure.task == task


async def _failure_of(request: Coroutine[Any, Any, Any]) -> Failure | None:
    """The failure with which the server refuses something, None if it does not."""
    try:
        await request
    except RefusedError as error:
        return error.failure
    return None
