"""A simulated client whose sessions go on after failures, and which cancels tasks at random."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING

from rain.common.errors import RainConnectionError
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.testing.graphs import GraphPlanner, evaluate
from rain.testing.simclient import RefusedError

if TYPE_CHECKING:
    import random

    from rain.testing.graphs import PlannedSubmit, PlannedTask
    from rain.testing.simclient import SimClient, SimSession
    from rain.testing.simcluster import SimCluster
    from rain.testing.simplan import Outcome

BAD = frozenset({TaskState.failed, TaskState.cancelled, TaskState.aborted})
UNFINISHED = frozenset({TaskState.notAssigned, TaskState.ready, TaskState.assigned, TaskState.running})


class TolerantScript:
    """Submits, waits, cancels; in the end every state must have a reason and every value must be right."""

    def __init__(
        self, cluster: SimCluster, client: SimClient, outcome: Outcome, tasks: int, rng: random.Random
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._outcome = outcome
        self._count = tasks
        self._rng = rng
        self._values: dict[int, bytes] = {}
        self._tasks: dict[int, PlannedTask] = {}
        self._producer: dict[int, int] = {}
        self._kept: set[int] = set()
        self._cancelled: set[int] = set()

    async def run(self) -> None:
        """The whole script; the outcome says how it ended."""
        try:
            await self._client.connect(self._cluster.server.address)
            session = await self._client.new_session(on_failure="continue")
            self._outcome.session = session.number
            await self._work(session)
            await session.close()
            self._client.close()
            self._outcome.end = "tolerated"
        except RainConnectionError:
            self._outcome.end = "lost"

    async def _work(self, session: SimSession) -> None:
        rng = self._rng
        plan = self._cluster.plan
        planner = GraphPlanner(rng, max_cpus=max(plan.cpus), failing=0.15, arrays=plan.arrays, limits=not plan.is_first)
        planner.quick, planner.cached, planner.linked = plan.quick, plan.cached, plan.linked
        left = self._count
        while left > 0:
            count = min(left, rng.randint(1, self._count))
            left -= count
            submit = planner.plan(count)
            self._note(submit)
            await session.submit(submit)
            await self._something(session, submit)
        failed = await self._refusal(session.wait_all())
        states = await self._check_states(session)
        assert failed or TaskState.failed not in states.values(), "wait_all hides a failure"
        await self._check_values(session)

    def _note(self, submit: PlannedSubmit) -> None:
        evaluate(submit, self._values)
        self._kept |= submit.kept
        for task in submit.all_tasks():
            self._tasks[task.number] = task
            self._producer.update(dict.fromkeys(task.outputs, task.number))

    async def _something(self, session: SimSession, submit: PlannedSubmit) -> None:
        rng = self._rng
        numbers = [task.number for task in submit.all_tasks()]
        for _ in range(rng.randint(0, 4)):
            match rng.choice(("sleep", "wait", "some", "cancel", "cancel_all")):
                case "sleep":
                    await asyncio.sleep(rng.choice((0.0, 0.1, 3.0)))
                case "wait":
                    await self._refusal(session.wait(rng.sample(numbers, rng.randint(0, min(5, len(numbers))))))
                case "some":
                    assert await session.wait_some(rng.sample(numbers, rng.randint(1, min(5, len(numbers)))))
                case "cancel":
                    await self._cancel(session, rng.sample(numbers, rng.randint(1, min(3, len(numbers)))))
                case "cancel_all" if rng.random() < 0.2:
                    await self._cancel(session, [])

    async def _cancel(self, session: SimSession, ids: list[int]) -> None:
        client = self._client
        answer = await client.request(m.Cancel(client.next_seq(), session.number, array("I", ids)))
        assert not ids or set(answer.ids) <= set(ids)
        self._cancelled |= set(answer.ids)
        states = await session.states(answer.ids)
        assert set(states) <= {TaskState.cancelled}, "an acknowledged cancel is final"

    async def _refusal(self, request: object) -> bool:
        """Whether the server answers with the failure of a task."""
        try:
            await request  # type: ignore[misc]
        except RefusedError as error:
            if error.failure.kind in ("task", "cancelled"):
                return True
            raise
        return False

    async def _check_states(self, session: SimSession) -> dict[int, TaskState]:
        numbers = sorted(self._tasks)
        states = {n: TaskState(s) for n, s in zip(numbers, await session.states(numbers), strict=True)}
        faulty = bool(self._cluster.plan.faults)
        for number in numbers:
            self._check_state(number, states, faulty)
        return states

    def _check_state(self, number: int, states: dict[int, TaskState], faulty: bool) -> None:
        task, state = self._tasks[number], states[number]
        blocked = any(states[self._producer[i]] in BAD for i in task.inputs if i in self._producer)
        if state == TaskState.cancelled:
            assert number in self._cancelled, f"{number} is cancelled, nobody asked for it"
        elif state == TaskState.aborted:
            assert blocked, f"{number} is aborted without a reason"
        elif state == TaskState.failed:
            blamed = (self._outcome.session, number) in self._cluster.functions.blamed
            assert task.fails_for_good or blamed or faulty, f"{number} failed without a reason"
        elif state == TaskState.finished:
            assert faulty or not (task.fails_for_good or blocked), f"{number} cannot have finished"
        else:
            assert faulty, f"{number} is {state.name} at the end"
        assert (number in self._cancelled) == (state == TaskState.cancelled)

    async def _check_values(self, session: SimSession) -> None:
        """Kept objects that are finished have the right values; a loss may take them back meanwhile."""
        kept = sorted(self._kept)
        states = await session.states(kept)
        for number, state in zip(kept, states, strict=True):
            if state != DataObjectState.finished:
                continue
            try:
                values = await session.fetch([number])
            except RefusedError:
                assert self._cluster.plan.faults, f"{number} is finished but cannot be fetched"
                continue
            assert values[number] == self._values[number], f"object {session.number}/{number} has a wrong value"
