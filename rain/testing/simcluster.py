"""A whole cluster from a seed: real server and worker cores and shells, faults, checked results.

Rerun one seed, with the trace of the run:

    python -m rain.testing.simcluster SEED
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainConnectionError
from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import AssignTasks
from rain.server.core.state import CoreOptions
from rain.testing.faults import FAULTS, FaultPlayer
from rain.testing.graphs import GraphPlanner, PlannedSubmit, evaluate
from rain.testing.simclient import RefusedError, SimClient
from rain.testing.simloop import SimLoop
from rain.testing.simnet import SimNetwork
from rain.testing.simparts import Functions
from rain.testing.simserver import SimServer
from rain.testing.simtolerant import TolerantScript
from rain.testing.simworker import SimWorker

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rain.testing.simclient import SimSession

TIME_LIMIT = 1200.0
"""Virtual seconds after which a run counts as hanging."""
SETTLE_SECONDS = 40.0
"""Virtual seconds after the last session until nothing may be left: silence limit, reconnect, delete timeout."""


@dataclass(slots=True)
class Plan:
    """What happens in a simulation; all of it follows from the seed.

    Attributes:
        cpus: of each worker.
        tasks: number of tasks of each client.
        faults: (time in seconds, name) in order.
        failing: how likely a task fails at least once.
        codec: messages go through the real codec.
        delete_timeout: of the workers, in seconds.
        check_every: batches of events from one walk through the invariants to the next.
        tolerant: sessions go on after failures, and tasks are cancelled.
    """

    seed: int
    cpus: list[int]
    tasks: list[int]
    faults: list[tuple[float, str]]
    failing: float
    codec: bool
    delete_timeout: float
    check_every: int
    tolerant: bool = False

    @classmethod
    def of_seed(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = random.Random(seed)
        cpus = [rng.randint(1, 4) for _ in range(rng.randint(2, 6))]
        clients = rng.randint(1, 3)
        tasks = [rng.randint(20, 120) // clients for _ in range(clients)]
        count = 0 if rng.random() < 0.1 else rng.randint(3, 10)
        span = rng.choice((1.0, 5.0, 20.0))
        faults = sorted((rng.uniform(0, span), rng.choice(FAULTS)) for _ in range(count))
        return cls(
            seed=seed,
            cpus=cpus,
            tasks=tasks,
            faults=faults,
            failing=rng.choice((0.0, 0.0, 0.05)),
            codec=rng.random() < 0.25,
            delete_timeout=rng.choice((0.0, 1.0)),
            check_every=rng.choice((1, 10, 10, 10)),
        )


@dataclass(slots=True)
class Outcome:
    """How a client fared: `finished`, `failed` (its session did), `lost` (its connection was), `crashed`
    or `tolerated` (whatever failed)."""

    end: str = "running"
    failure: Failure | None = None
    planned: dict[int, bool] = field(default_factory=dict)
    session: int = 0


class SimCluster:
    """A server, workers and clients on one simulated network.

    Args:
        plan: what happens.
        full_trace: the trace holds the content of all messages.
    """

    def __init__(self, plan: Plan, *, full_trace: bool = False) -> None:
        self.plan = plan
        self.loop = SimLoop(plan.seed, time_limit=TIME_LIMIT)
        self.net = SimNetwork(self.loop, codec=plan.codec, full_trace=full_trace)
        self.net.watch = self._watch
        self.functions = Functions()
        self.server = SimServer(self.loop, self.net.node("server"), CoreOptions(), check_every=plan.check_every)
        self.workers: list[SimWorker] = []
        self.clients: list[SimClient] = []
        self.outcomes: list[Outcome] = []
        self.faults = FaultPlayer(self)
        self._worker_count = 0
        self._runs: dict[tuple[int, int], int] = {}

    def add_worker(self, cpus: int) -> SimWorker:
        """Start a worker."""
        self._worker_count += 1
        node = self.net.node(f"worker{self._worker_count}")
        worker = SimWorker(
            self.loop,
            node,
            self.server.address,
            self.functions,
            cpus=cpus,
            delete_timeout=self.plan.delete_timeout,
            check_every=self.plan.check_every,
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def run(self) -> None:
        """Run to the end and check everything; closes the loop."""
        try:
            self.loop.run_until_complete(self._main())
        finally:
            self.loop.shutdown()

    async def _main(self) -> None:
        self.server.start()
        for cpus in self.plan.cpus:
            self.add_worker(cpus)
        scripts = []
        for position, tasks in enumerate(self.plan.tasks):
            client = SimClient(self.net.node(f"client{position}"))
            outcome = Outcome()
            self.clients.append(client)
            self.outcomes.append(outcome)
            kind = TolerantScript if self.plan.tolerant else ClientScript
            script = kind(self, client, outcome, tasks, random.Random(f"{self.plan.seed}/{position}"))
            scripts.append(client.node.process.spawn(script.run(), f"script of {client.node.name}"))
        playing = self.loop.create_task(self.faults.play(), name="faults")
        for client, outcome, task in zip(self.clients, self.outcomes, scripts, strict=True):
            while not task.done() and client.node.process.alive:
                await asyncio.wait([task], timeout=1.0)
            if not client.node.process.alive:
                outcome.end = "crashed"
            else:
                task.result()
        await playing
        self.faults.heal_all()
        await asyncio.sleep(SETTLE_SECONDS)
        self._check_end()

    def _check_end(self) -> None:
        assert self.server.exit_code is None, "the server ended by itself"
        self.server.core.sanity_check()
        assert self.server.holds_nothing(), f"the server still has {sorted(self.server.core.state.sessions)}"
        for worker in self.workers:
            assert worker.exit_code is None, f"{worker.name} ended by itself"
            worker.core.sanity_check()
            left = f"{worker.core.info()}, values {sorted(worker.store.values)}"
            assert worker.holds_nothing(), f"{worker.name} still has {left}"
        registered = len(self.server.core.state.workers)
        assert registered == len(self.workers), f"{registered} of {len(self.workers)} workers are registered"
        for client, outcome in zip(self.clients, self.outcomes, strict=True):
            self._check_outcome(client.node.name, outcome)

    def _check_outcome(self, name: str, outcome: Outcome) -> None:
        assert outcome.end != "running"
        if outcome.end == "lost":
            assert name in self.faults.disturbed_clients, f"{name} lost its connection without a fault"
        if outcome.failure is not None:
            key = (outcome.session, outcome.failure.task)
            to_blame = outcome.planned.get(outcome.failure.task, False) or key in self.functions.blamed
            to_blame |= self.faults.lost_connections > 2 and "was running on 3 workers" in outcome.failure.message
            assert to_blame, f"{name}: {key} failed without a reason: {outcome.failure.message}"
        elif outcome.end == "finished":
            assert not any(outcome.planned.values()), f"{name}: a task that always fails did not fail its session"
        if not self.plan.faults and not self.plan.failing and not self.plan.tolerant:
            again = {key: n for key, n in self.functions.starts.items() if n > 1}
            assert not again, f"tasks ran again without a fault: {again}"

    def _watch(self, label: str, message: Any) -> None:
        if isinstance(message, AssignTasks):
            for task, run in zip(message.tasks, message.runs, strict=True):
                key = (message.session, task)
                assert run > self._runs.get(key, 0), f"{label}: run {run} of {key} does not rise"
                self._runs[key] = run


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
        planner = GraphPlanner(rng, max_cpus=cpus, failing=self._cluster.plan.failing)
        left = self._tasks
        while left > 0:
            count = min(left, rng.randint(1, self._tasks))
            left -= count
            plan = planner.plan(count)
            evaluate(plan, self._values)
            self._outcome.planned.update((task.number, task.fails_for_good) for task in plan.tasks)
            await session.submit(plan)
            self._kept += sorted(plan.kept)
            await self._something(session, plan, planner)
        await session.wait_all()
        await self._check_fetch(session, self._kept)
        await self._check_states(session)

    async def _something(self, session: SimSession, plan: PlannedSubmit, planner: GraphPlanner) -> None:
        rng = self._rng
        ids = [*(task.number for task in plan.tasks), *plan.objects()]
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
        for request in (session.wait_all(), session.wait([10]), session.states([10])):
            failure = await _failure_of(request)
            assert failure is not None, "a failed session answers"
            assert failure.task == task


async def _failure_of(request: Coroutine[Any, Any, Any]) -> Failure | None:
    """The failure with which the server refuses something, None if it does not."""
    try:
        await request
    except RefusedError as error:
        return error.failure
    return None


def run_seed(seed: int, *, tolerant: bool = False, full_trace: bool = False) -> SimCluster:
    """Simulate the cluster of a seed; `tolerant` as in `Plan`.

    Returns:
        The cluster after its end; `loop.trace_hash()` sums up what happened.

    Raises:
        AssertionError: something went wrong; the text tells the seed and how to run it again.
    """
    plan = Plan.of_seed(seed)
    plan.tolerant = tolerant
    cluster = SimCluster(plan, full_trace=full_trace)
    try:
        cluster.run()
    except Exception as error:
        again = f"python -m rain.testing.simcluster {'--tolerant ' if tolerant else ''}{seed}"
        raise AssertionError(f"seed {seed} failed (again: {again}): {error}\n{plan}") from error
    return cluster


def main() -> None:
    """Run the seeds given as arguments and print the end of each trace."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    tolerant = "--tolerant" in sys.argv
    for argument in sys.argv[2 if tolerant else 1 :]:
        plan = Plan.of_seed(int(argument))
        plan.tolerant = tolerant
        plan.check_every = 1
        print(plan)
        cluster = SimCluster(plan, full_trace=True)
        try:
            cluster.run()
        finally:
            print("\n".join(cluster.loop.recent))
        print([outcome.end for outcome in cluster.outcomes], cluster.loop.trace_hash())


if __name__ == "__main__":
    main()
