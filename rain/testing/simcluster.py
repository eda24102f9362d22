"""A whole cluster from a seed: real server and worker cores and shells, faults, checked results.

Rerun one seed, with the trace of the run:

    python -m rain.testing.simcluster SEED [KIND]
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rain.common.collecting import collections_paused
from rain.common.errors import RainWarning
from rain.protocol.messages import AssignTasks
from rain.server.core.state import CoreOptions
from rain.testing.faults import FaultPlayer
from rain.testing.simaio import AioScript
from rain.testing.simclient import SimClient
from rain.testing.simclock import SimClock
from rain.testing.simloop import SimLoop
from rain.testing.simnet import SimNetwork
from rain.testing.simparts import MEMORY_EXCEEDED, Functions
from rain.testing.simplan import KINDS, Outcome, Plan
from rain.testing.simscript import ClientScript
from rain.testing.simserver import SimServer
from rain.testing.simtolerant import TolerantScript
from rain.testing.simworker import SimWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME_LIMIT = 1200.0
"""Virtual seconds after which a run counts as hanging."""
SETTLE_SECONDS = (20, 90)
"""Least and most virtual seconds after the last session until nothing may be left: silence limit, reconnect, delete
timeout, and what slow links still bring."""


class SimCluster:
    """A server, workers and clients on one simulated network.

    Args:
        plan: what happens.
        full_trace: the trace holds the content of all messages.

    Attributes:
        blocks: number of blocks that were assigned; linked: of these, the linked ones.
        messages: number of messages sent, by type.
    """

    def __init__(self, plan: Plan, *, full_trace: bool = False) -> None:
        self.plan = plan
        self.loop = SimLoop(plan.seed, time_limit=TIME_LIMIT)
        self.clock = SimClock(self.loop)
        self.net = SimNetwork(self.loop, codec=plan.codec, full_trace=full_trace)
        self.net.watch = self._watch
        self.functions = Functions()
        self.server = SimServer(self.loop, self.net.node("server"), CoreOptions(), check_every=plan.check_every)
        self.workers: list[SimWorker] = []
        self.clients: list[SimClient] = []
        self.outcomes: list[Outcome] = []
        self.faults = FaultPlayer(self)
        self.blocks = 0
        self.linked = 0
        self.messages: Counter[str] = Counter()
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
            wall_clock=self.clock.time(),
            delete_timeout=self.plan.delete_timeout,
            check_every=self.plan.check_every,
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def run(self) -> None:
        """Run to the end and check everything; closes the loop."""
        # no collections: finalisers run at the same moments in every process
        with self.clock.installed(), _errors_reported(self.loop), collections_paused(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RainWarning)  # a worker that could run a task may be lost for a while
            try:
                self.loop.run_until_complete(self._main())
            finally:
                self.loop.shutdown()

    async def _main(self) -> None:
        self.server.start()
        if self.plan.breaking is not None:
            self.net.sabotage.arm(*self.plan.breaking)
        for cpus in self.plan.cpus:
            self.add_worker(cpus)
        scripts = []
        for position, tasks in enumerate(self.plan.tasks):
            client = SimClient(self.net.node(f"client{position}"))
            outcome = Outcome()
            self.clients.append(client)
            self.outcomes.append(outcome)
            rng = random.Random(f"{self.plan.seed}/{position}")
            usual = TolerantScript if self.plan.tolerant else ClientScript
            script = (AioScript if self.plan.real else usual)(self, client, outcome, tasks, rng)
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
        await self._settle()
        self._check_end()

    async def _settle(self) -> None:
        least, most = SETTLE_SECONDS
        await asyncio.sleep(least)
        for _ in range(least, most, 5):
            are_registered = len(self.server.core.state.workers) == len(self.workers)
            if are_registered and self.server.holds_nothing() and all(one.holds_nothing() for one in self.workers):
                return
            await asyncio.sleep(5)

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
            to_blame |= self._is_fault(outcome.failure.message)
            assert to_blame, f"{name}: {key} failed without a reason: {outcome.failure.message}"
        elif outcome.end == "finished":
            assert not any(outcome.planned.values()), f"{name}: a task that always fails did not fail its session"
        if not self.plan.faults and not self.plan.failing and not self.plan.tolerant:
            again = {key: n for key, n in self.functions.starts.items() if n > 1}
            assert not again, f"tasks ran again without a fault: {again}"

    def _is_fault(self, message: str) -> bool:
        """Whether a fault explains that a task failed with this message."""
        played = self.faults.played
        if "was running on 3 workers" in message:
            return self.faults.lost_connections > 2
        if "cannot store a value" in message:
            return played["disk_full"] + played["disk_error"] > 0
        if "boom in" in message or "Lost connection to executor" in message:  # others may have used up the runs
            return any(played[name] for name in ("disk_full", "disk_error", "executor_hangs", "pause_worker"))
        if "Time limit" in message:
            return played["executor_hangs"] + played["pause_worker"] > 0
        return MEMORY_EXCEEDED in message and played["memory_exceeded"] > 0

    def _watch(self, label: str, message: Any) -> None:
        self.messages[type(message).__name__] += 1
        if isinstance(message, AssignTasks):
            members = message.members or [0] * len(message.tasks)
            self.linked += sum(link is not None for link in message.links)
            for first, run, count in zip(message.tasks, message.runs, members, strict=True):
                self.blocks += count > 0
                for task in range(first, first + max(1, count)):
                    key = (message.session, task)
                    assert run > self._runs.get(key, 0), f"{label}: run {run} of {key} does not rise"
                    self._runs[key] = run


class _ErrorReporter(logging.Handler):
    """Ends the simulation when Rain reports an error of its own."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__(logging.ERROR)
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a record."""
        self._loop.errors.append(f"logged: {record.getMessage()}")


@contextmanager
def _errors_reported(loop: SimLoop) -> Iterator[None]:
    logger, reporter = logging.getLogger("rain"), _ErrorReporter(loop)
    logger.addHandler(reporter)
    try:
        yield
    finally:
        logger.removeHandler(reporter)


def run_seed(seed: int, kind: str = "", *, full_trace: bool = False) -> SimCluster:
    """Simulate the cluster of a seed; `kind` as in `Plan.of_seed`.

    Returns:
        The cluster after its end; `loop.trace_hash()` sums up what happened.

    Raises:
        AssertionError: something went wrong; the text tells the seed and how to run it again.
    """
    plan = Plan.of_seed(seed, kind)
    cluster = SimCluster(plan, full_trace=full_trace)
    try:
        cluster.run()
    except Exception as error:
        again = f"python -m rain.testing.simcluster {seed} {kind}".rstrip()
        raise AssertionError(f"seed {seed} failed (again: {again}): {error}\n{plan}") from error
    return cluster


def main() -> None:
    """Run a seed and print the end of its trace."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    if len(sys.argv) not in (2, 3) or (len(sys.argv) == 3 and sys.argv[2] not in (*KINDS, "first")):
        sys.exit(f"usage: python -m rain.testing.simcluster SEED [{' | '.join(KINDS)} | first]")
    plan = Plan.of_seed(int(sys.argv[1]), *sys.argv[2:])
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
