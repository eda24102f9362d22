"""The real asyncio client in a simulated cluster: its graphs, its questions, its cancelled coroutines."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.client.aio import AsyncClient, as_completed, gather
from rain.client.connect import Target
from rain.client.linking import FEWEST_LINKED
from rain.client.loop_front import LoopFront, Receiver
from rain.common.errors import RainConnectionError, RainTimeoutError, TaskException
from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.net.address import Address
from rain.net.dataclient import Source
from rain.net.secret import Secret
from rain.testing.graphs import GraphPlanner, evaluate
from rain.testing.netfaults import ASKED
from rain.testing.simdata import read_from
from rain.testing.simhandles import Handles

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Coroutine

    from rain.client.aio import AsyncSession
    from rain.client.data import DataObject
    from rain.client.task import Task
    from rain.testing.graphs import PlannedSubmit
    from rain.testing.simclient import SimClient
    from rain.testing.simcluster import SimCluster
    from rain.testing.simnet import SimNode
    from rain.testing.simplan import Outcome

CLOSE_SECONDS = 10.0
FETCH_ROUNDS = 20
_ODD_CALLS = 100
"""Of so many the client may find that they are not to be linked: they use none of the others."""
BAD = frozenset({TaskState.failed, TaskState.cancelled, TaskState.aborted})


class SimDataClient:
    """Fetches values from data ports of the simulated network; see `rain.net.loopdata.LoopDataClient`."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    async def fetch_bytes(self, address: Address | str, session: int, object_id: int) -> memoryview:
        """Fetch a value."""
        source = Source(str(address), session, object_id)
        try:
            value = await read_from(self._node, source.address, (session, object_id))
        except RainConnectionError as error:
            raise source.unavailable(str(error), "connection") from error
        if value is None:
            raise source.unavailable("it is not there", "missing")
        return memoryview(value)

    async def fetch_file(self, address: Address | str, session: int, object_id: int, path: str | Path) -> None:
        """Fetch a value into a file."""
        value = await self.fetch_bytes(address, session, object_id)
        await asyncio.to_thread(Path(path).write_bytes, value)

    def close(self) -> None:
        """No connection is kept."""

    async def closed(self) -> None:
        """No connection is kept."""


async def connect(node: SimNode, address: str) -> AsyncClient:
    """A client on a node of the simulated network.

    Raises:
        RainConnectionError: no connection.
    """
    receiver = Receiver()
    channel = await node.connect(address, "client", receiver)
    clock = asyncio.get_running_loop().time
    front = LoopFront(channel, receiver, SimDataClient(node), address, clock=clock)
    return AsyncClient(front, Target(Address.parse(address), Secret(None, "the simulation")))


class AioScript:
    """What a client does: submits, waits, fetches, unkeeps, cancels; every value is compared."""

    def __init__(
        self, cluster: SimCluster, client: SimClient, outcome: Outcome, tasks: int, rng: random.Random
    ) -> None:
        self._cluster = cluster
        self._node = client.node
        self._outcome = outcome
        self._count = tasks
        self._rng = rng
        self._values: dict[int, bytes] = {}
        self._handles = Handles()
        self._kept: list[int] = []
        self._has_cancelled = False
        self._built: list[PlannedSubmit] = []
        self._client: AsyncClient | None = None

    async def run(self) -> None:
        """The whole script; the outcome says how it ended."""
        try:
            self._client = await connect(self._node, self._cluster.server.address)
            await self._session(self._client)
        except (RainConnectionError, RainTimeoutError):
            self._outcome.end = "lost"
        for submit in self._built:  # not before: calls whose ids were seen are not linked
            self._handles.note_failing(submit, self._outcome.planned)
        if self._client is not None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await self._client.close(CLOSE_SECONDS)
            assert loop.time() - began <= CLOSE_SECONDS + 0.1, "close takes too long"

    async def _session(self, client: AsyncClient) -> None:
        tolerant = self._cluster.plan.tolerant
        async with client.new_session(on_failure="continue" if tolerant else "fail") as session:
            self._outcome.session = session.session_id
            if self._cluster.plan.breaking is not None and self._cluster.plan.breaking[0] in ASKED:
                await self._ask(session, [])
            error = await _task_exception_of(self._work(session))
            if error is None:
                self._outcome.end = "tolerated" if tolerant else "finished"
                return
            assert not tolerant, error
            assert error.task_id is not None, "a failure names its task"
            self._outcome.failure = Failure("task", error.message, *error.task_id)
            await self._check_failed(session, error)
            self._outcome.end = "failed"

    async def _work(self, session: AsyncSession) -> None:
        rng, plan = self._rng, self._cluster.plan
        failing = 0.15 if plan.tolerant else plan.failing
        planner = GraphPlanner(rng, max_cpus=max(plan.cpus), failing=failing, arrays=plan.arrays, limits=True)
        planner.quick, planner.cached, planner.linked = plan.quick, plan.cached, plan.linked
        planner.fewest_linked = FEWEST_LINKED + _ODD_CALLS
        left = self._count
        while left > 0:
            count = min(left, rng.randint(1, self._count))
            left -= count
            submit = _as_the_client_has_it(planner.plan(count))
            evaluate(submit, self._values)
            self._handles.build(session, submit)
            self._built.append(submit)
            if rng.random() < 0.1:
                await self._interrupted(session.submit())
            await session.submit()
            self._kept += sorted(submit.kept)
            for _ in range(rng.randint(0, 4)):
                await self._something(session, submit, planner)
        if plan.tolerant:
            await self._check_tolerant_end(session)
        else:
            await session.wait_all()
            await self._check_values(session, self._kept)
            counts = await session.counts()
            assert plan.faults or set(counts) <= {"finished"}, counts

    async def _something(self, session: AsyncSession, submit: PlannedSubmit, planner: GraphPlanner) -> None:
        rng = self._rng
        numbers = [*(task.number for task in submit.all_tasks()), *submit.objects()]
        things = self._handles.some(rng.sample(numbers, rng.randint(1, min(5, len(numbers)))))
        match rng.choice(("sleep", "wait", "wait", "some", "fetch", "fetch", "unkeep", "cancel", "ask", "completed")):
            case "sleep":
                await asyncio.sleep(rng.choice((0.0, 0.1, 3.0)))
            case "wait":
                await self._perhaps_interrupted(session.wait(things, timeout=rng.choice((None, 0.0, 0.5))))
            case "some":
                await self._perhaps_interrupted(self._wait_for_some(session, things))
            case "completed":
                await self._perhaps_interrupted(self._first_completed(things))
            case "fetch" if self._kept and not self._cluster.plan.tolerant:
                chosen = rng.sample(self._kept, rng.randint(1, min(4, len(self._kept))))
                await self._perhaps_interrupted(self._check_values(session, chosen))
            case "unkeep" if self._kept:
                chosen = rng.sample(self._kept, rng.randint(1, min(4, len(self._kept))))
                self._kept = [number for number in self._kept if number not in chosen]
                planner.reusable[:] = self._kept
                await self._perhaps_interrupted(session.unkeep([self._handles.objects[n] for n in chosen]))
            case "cancel" if self._cluster.plan.tolerant:
                await self._cancel(session, submit)
            case "ask":
                await self._perhaps_interrupted(self._ask(session, things))

    # --- single steps -----------------------------------------------------------------------------

    async def _perhaps_interrupted(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        if self._rng.random() < 0.3:
            await self._interrupted(coroutine)
        else:
            await self._tolerate(coroutine)

    async def _interrupted(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Cancel it after a moment; what it was about goes on."""
        task = asyncio.create_task(self._tolerate(coroutine), name=f"interrupted step of {self._node.name}")
        await asyncio.wait([task], timeout=self._rng.choice((0.0, 0.01, 0.3)))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _tolerate(self, awaitable: Awaitable[Any]) -> None:
        """A limit may be over, and where sessions go on tasks may have failed."""
        try:
            await awaitable
        except RainTimeoutError as error:
            if not str(error).startswith("Timeout of"):
                raise
        except TaskException:
            if not self._cluster.plan.tolerant:
                raise

    async def _wait_for_some(self, session: AsyncSession, things: list[Task | DataObject]) -> None:
        tasks, objects = await session.wait_some(things)
        found = {one.id for one in tasks} | {one.id for one in objects}
        assert found
        assert found <= {one.id for one in things}

    async def _first_completed(self, things: list[Task | DataObject]) -> None:
        seen = []
        async for thing in as_completed(things):
            seen.append(thing.id)
            if len(seen) == 3:
                break
        assert len(seen) == len(set(seen)) >= min(3, len({thing.id for thing in things}))

    async def _ask(self, session: AsyncSession, things: list[Task | DataObject]) -> None:
        assert self._client is not None
        info = await self._client.get_server_info()
        assert len(info["workers"]) <= len(self._cluster.plan.cpus) + len(self._cluster.plan.faults)
        await session.update(things)
        await session.counts()

    async def _cancel(self, session: AsyncSession, submit: PlannedSubmit) -> None:
        self._has_cancelled = True
        if self._rng.random() < 0.1:
            await self._perhaps_interrupted(session.cancel())
            return
        chosen = self._rng.choice(submit.all_tasks()).number
        await self._perhaps_interrupted(self._handles.tasks[chosen].cancel())  # type: ignore[arg-type]

    # --- values and states ------------------------------------------------------------------------

    async def _check_values(self, session: AsyncSession, numbers: list[int]) -> None:
        objects = [self._handles.objects[number] for number in numbers]
        for attempt in range(FETCH_ROUNDS):
            try:
                found = await gather(*objects) if self._rng.random() < 0.5 else await self._fetched(session, objects)
                break
            except RainConnectionError as error:
                # Holders may be out of reach for a while, the server is not.
                if "from any holder" not in str(error) or attempt == FETCH_ROUNDS - 1:
                    raise
                await asyncio.sleep(1.0)
        for number, value in zip(numbers, found, strict=True):
            assert bytes(value) == self._values[number], f"object {session.session_id}/{number} has a wrong value"

    @staticmethod
    async def _fetched(session: AsyncSession, objects: list[DataObject]) -> list[bytes]:
        return [bytes((await session.fetch(one)).get_bytes()) for one in objects]

    async def _check_tolerant_end(self, session: AsyncSession) -> None:
        failed = False
        try:
            await session.wait_all()
        except TaskException:
            failed = True
        faulty = bool(self._cluster.plan.faults)
        await session.update(list(self._handles.tasks.values()))
        states = {number: task.state for number, task in self._handles.tasks.items()}
        assert failed or TaskState.failed not in states.values(), "wait_all hides a failure"
        for number, state in states.items():
            planned = self._handles.planned[number]
            if state == TaskState.cancelled:
                assert self._has_cancelled, f"{number} is cancelled, nobody asked for it"
            elif state == TaskState.failed:
                blamed = (session.session_id, self._handles.tasks[number].id.id) in self._cluster.functions.blamed
                assert planned.fails_for_good or blamed or faulty, f"{number} failed without a reason"
            else:
                assert faulty or state in BAD or state == TaskState.finished, f"{number} is {state} at the end"
        await self._check_finished_values(session)

    async def _check_finished_values(self, session: AsyncSession) -> None:
        kept = [self._handles.objects[number] for number in self._kept]
        await session.update(kept)
        for number, one in zip(self._kept, kept, strict=True):
            if one.state == DataObjectState.finished:
                try:
                    await self._check_values(session, [number])
                except TaskException:  # a loss took it back, and making it again failed
                    assert self._cluster.plan.faults

    async def _check_failed(self, session: AsyncSession, failure: TaskException) -> None:
        tasks = list(self._handles.tasks.values())[:1]
        for ask in (session.wait_all, lambda: session.wait(tasks), session.counts):
            error = await _task_exception_of(ask())
            assert error is not None, "a failed session answers"
            assert error.task_id == failure.task_id


async def _task_exception_of(request: Coroutine[Any, Any, Any]) -> TaskException | None:
    """The TaskException that a coroutine raises, None if it raises none."""
    try:
        await request
    except TaskException as error:
        return error
    return None


def _as_the_client_has_it(submit: PlannedSubmit) -> PlannedSubmit:
    """A call has each input once; the functions of linked calls are for the client to make."""
    for position, planned in enumerate(submit.arrays):
        first = 1 if planned.linked else 0
        members = [replace(one, inputs=tuple(dict.fromkeys(one.inputs[first:]))) for one in planned.members]
        submit.arrays[position] = replace(planned, members=tuple(members))
    return submit
