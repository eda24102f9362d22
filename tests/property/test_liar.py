"""Lying workers and confused clients: nothing escapes from the cores, and honest ones are not harmed.

`RAIN_LIAR_SEEDS=N` runs N seeds for each core instead of 150; with `-m slow` ten times as many further ones.
"""

from __future__ import annotations

import os
import random
from array import array
from typing import Any, get_args

import pytest

from rain.common.failure import Failure
from rain.protocol import messages as m
from rain.protocol.codec import MESSAGE_CLASSES
from rain.server.core.actions import Drop, Exit, Log, Send
from rain.server.core.core import ServerCore
from rain.server.core.events import PeerJoined, PeerLeft, PeerSaid, Tick
from rain.server.core.state import CoreOptions
from rain.testing.server_builders import SubmitBuilder
from rain.testing.worker_builders import WorkerStory, failure_of, success
from rain.worker.core.actions import CallExecutor, Exit as WorkerExit, FetchObject, Run, RunBuiltin, StartExecutor
from rain.worker.core.events import (
    ExecutorLost,
    ExecutorReady,
    ObjectArrived,
    ObjectUnreachable,
    RunsEnded,
    StoreFailed,
)
from tests.property.liar import Liar

SEEDS = int(os.environ.get("RAIN_LIAR_SEEDS", "150"))
CHUNK = 50
STEPS = 60
HONEST = 30
"""Tasks of the honest client."""

WORKER_CLASSES = [*get_args(m.WorkerMessage), m.TasksDone, m.TasksDone, m.TasksStarted]
POWERS = (m.StopServer, m.StopWorkers)
"""Every client may end these; that is no lie."""
CLIENT_CLASSES = [cls for cls in get_args(m.ClientMessage) if cls not in POWERS]
CLIENT_CLASSES += [m.SubmitChunk, m.SubmitChunk, m.SubmitCommit, m.SubmitCommit, m.SubmitCommit]
ANY_CLASSES = [cls for cls in MESSAGE_CLASSES if cls not in POWERS]


class ServerUnderLies:
    """A server core with an honest client and worker, a confused client and a lying worker."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.liar = Liar(self.source)
        self.core = ServerCore(CoreOptions(check=True, test_mode=self.source.random() < 0.3))
        self.now = 0.0
        self.peers = 0
        self.assigned: dict[tuple[int, int], tuple[int, int, bool]] = {}
        self.answers: list[Any] = []
        self.dropped: set[int] = set()
        self.honest_client = self.join("client")
        self.honest_worker = self.join("worker")
        self.confused_client = self.join("client")
        self.lying_worker = self.join("worker")
        resources = {"cpus": 2, "honest": 2}
        self.say(self.honest_worker, m.WorkerHello("10.0.0.2:9000", resources, "host", 1, "3.11.4"))
        self.say(self.honest_client, m.NewSession(1, "honest", "fail", False))
        self.session: int = self.answers.pop().session
        self.say(self.lying_worker, m.WorkerHello("10.0.0.4:9000", {"cpus": 4}, "host", 2, "3.11.4"))
        self.submit()

    def submit(self) -> None:
        """The honest client submits chains and waits for their end."""
        builder = SubmitBuilder()
        builder.constant(100)
        for number in range(HONEST):
            source = 100 if number < 5 else 300 + number - 5
            builder.task(200 + number, (source,), (300 + number,), resources={"cpus": 1, "honest": 1})
        self.say(self.honest_client, builder.chunk(self.session), m.SubmitCommit(2, self.session, False))
        self.say(self.honest_client, m.Wait(3, self.session, m.WAIT_SESSION, array("I")))
        assert [type(answer) for answer in self.answers] == [m.Accepted]

    def join(self, role: Any) -> int:
        self.peers += 1
        address = f"10.0.0.{self.peers}:1000"
        self.feed(PeerJoined(self.peers, role, address, "10.0.0.99:7210", "3.11.4"))
        return self.peers

    def say(self, peer: int, *messages: Any) -> None:
        self.feed(*[PeerSaid(peer, message) for message in messages])

    def feed(self, *events: Any) -> None:
        self.now += 0.01
        for action in self.core.handle(list(events), self.now):
            if isinstance(action, Send):
                self.sent(action.peer, action.message)
            elif isinstance(action, Drop):
                self.dropped.add(action.peer)
            elif isinstance(action, Log):
                assert "Traceback" not in action.text, action.text
            assert not isinstance(action, Exit)

    def sent(self, peer: int, message: Any) -> None:
        if peer == self.honest_client:
            self.answers.append(message)
        elif peer == self.lying_worker and isinstance(message, m.AssignTasks):
            self.liar.runs += [
                (message.session, task, run) for task, run in zip(message.tasks, message.runs, strict=True)
            ]
        elif peer == self.honest_worker:
            self.honest_worker_heard(message)

    def honest_worker_heard(self, message: Any) -> None:
        match message:
            case m.AssignTasks():
                members = message.members or [0] * len(message.tasks)
                rows = zip(message.tasks, message.runs, message.output_counts, members, strict=True)
                for task, run, outputs, block in rows:
                    self.assigned[message.session, task] = run, outputs, bool(block)
            case m.WithdrawTasks() | m.CancelTasks():
                for task in message.tasks:
                    self.assigned.pop((message.session, task), None)
                answer = m.TasksReturned if isinstance(message, m.WithdrawTasks) else m.TasksStopped
                self.later.append(answer(message.session, message.tasks, message.runs))
            case m.EndSession():
                self.assigned = {key: run for key, run in self.assigned.items() if key[0] != message.session}

    later: list[Any]

    # --- steps ---

    def step(self) -> None:
        chosen = self.source.random()
        if chosen < 0.4:
            self.lie(self.lying_worker, WORKER_CLASSES)
        elif chosen < 0.65:
            self.lie(self.confused_client, CLIENT_CLASSES)
        elif chosen < 0.8:
            self.submit_something()
        elif chosen < 0.9:
            self.work()
        elif chosen < 0.92:
            self.feed(PeerLeft(self.lying_worker, "it crashed"))
            self.lying_worker = self.join("worker")
        else:
            self.now += self.source.choice((0.1, 1.0))
            self.feed(Tick())

    def lie(self, peer: int, classes: list[type[Any]]) -> None:
        if peer in self.dropped:  # as the shell does
            self.feed(PeerLeft(peer, "dropped"))
            role = "worker" if peer == self.lying_worker else "client"
            fresh = self.join(role)
            if role == "worker":
                self.lying_worker = fresh
            else:
                self.confused_client = fresh
            return
        if peer == self.lying_worker and peer in self.core.state.joining:
            if self.source.random() < 0.7:
                self.say(peer, m.WorkerHello(f"10.0.0.{peer}:9000", {"cpus": 4}, "host", 2, "3.11.4"))
                return
            classes = [m.WorkerHello]
        if self.source.random() < 0.01:
            classes = ANY_CLASSES
        known = [number for number in self.core.state.sessions if number != self.session]
        self.liar.sessions = known or [self.session + 100]
        if peer == self.lying_worker and self.source.random() < 0.3:
            self.liar.sessions = [self.session]
            classes = [cls for cls in classes if cls is not m.ObjectsMissing]  # it may say so, it is believed
        messages = [self.liar.say(self.source.choice(classes)) for _ in range(self.source.choice((1, 1, 3)))]
        self.say(peer, *[message for message in messages if message is not None])

    def submit_something(self) -> None:
        """The confused client opens a session or submits tasks, so that the worker has what to lie about."""
        client, source = self.confused_client, self.source
        if client in self.dropped:
            return
        own = sorted(self.core.state.clients[client].sessions)
        if not own or source.random() < 0.1:
            self.say(client, m.NewSession(5, "confused", source.choice(("fail", "continue", "continue")), False))
            return
        session = source.choice(own)
        known = self.core.state.sessions[session]
        if known.failure is not None:
            self.say(client, m.CloseSession(6, session))
            return
        base = len(known.graph) + 1
        builder = SubmitBuilder()
        for number in range(base, base + 8, 2):
            inputs = [base + 2 * source.randrange(4) + 1] if source.random() < 0.3 else []
            builder.task(number, inputs, (number + 1,), keep=source.random() < 0.7, retries=source.randrange(2))
        chunk = builder.chunk(session, len(known.templates))
        self.say(client, chunk, m.SubmitCommit(7, session, False))

    def work(self) -> None:
        """The honest worker finishes what it has."""
        later, self.later = self.later, []
        self.say(self.honest_worker, *later)
        done, self.assigned = self.assigned, {}
        for (session, task), (run, outputs, block) in done.items():
            one, runs = array("I", [task]), array("I", [run])
            if block:
                self.say(self.honest_worker, m.TasksReturned(session, one, runs))
            else:
                sizes, times = array("Q", [1] * outputs), array("d", [1.0])
                self.say(self.honest_worker, m.TasksDone(session, one, runs, times, times, [], sizes, [], []))

    def finish(self) -> None:
        """Liars leave; the honest client gets what it waits for."""
        self.feed(PeerLeft(self.lying_worker, "end"), PeerLeft(self.confused_client, "end"))
        for _ in range(2 * HONEST):
            self.work()
        waiting = [answer for answer in self.answers if not isinstance(answer, m.Accepted | m.SessionWarning)]
        assert waiting == [m.WaitDone(3, array("I"))], waiting
        assert not self.dropped & {self.honest_client, self.honest_worker}


def lies_to_the_server(seed: int) -> None:
    ServerUnderLies.later = []
    world = ServerUnderLies(seed)
    for _ in range(STEPS):
        world.step()
    world.finish()


# --- the worker core --------------------------------------------------------------------------------

SERVER_CLASSES = [*get_args(m.ServerToWorker), m.AssignTasks, m.AssignTasks, m.AssignTasks, m.AssignTasks]
SERVER_CLASSES = [cls for cls in SERVER_CLASSES if cls is not m.StopWorker]


def lies_to_the_worker(seed: int) -> None:
    """A server that assigns nonsense, transfers and executors that report anything that was not refused before."""
    source = random.Random(seed)
    liar = Liar(source)
    story = WorkerStory(cpus=2, spare_executors=1, resources={"gpus": [0, 1], "memory": 1 << 30})
    executors: set[int] = {0}
    runs: dict[int, list[Run]] = {}
    objects: list[tuple[int, int]] = [(1, 1)]
    liar.sessions = [1, 1, 2]
    for _ in range(STEPS):
        events: list[Any] = []
        chosen = source.random()
        executor = source.choice(sorted(executors))
        if chosen < 0.5:
            message = liar.say(source.choice(SERVER_CLASSES))
            if message is not None:
                story.say(message)
        elif chosen < 0.7 and runs.get(executor):
            due = runs.pop(executor)
            results = [success(run) if source.random() < 0.7 else failure_of(run.key) for run in due]
            events = [RunsEnded(executor, results, [source.choice(objects)])] if executor else []
            events = events or [RunsEnded(0, [result], []) for result in results]
        elif chosen < 0.8 and executor:
            events = [ExecutorReady(executor)]
        elif chosen < 0.83 and executor:
            runs.pop(executor, None)
            events = [ExecutorLost(executor, None, Failure("task", "lost"))]
        elif chosen < 0.93:
            key = source.choice(objects)
            events = [
                source.choice((ObjectArrived(key, 5), ObjectUnreachable(key, ["x"], "gone"), StoreFailed(key, "x")))
            ]
        else:
            story.tick(source.choice((0.1, 5.0)))
        if events:
            story.happens(*events)
        for action in story.actions:
            assert not isinstance(action, WorkerExit)
            if isinstance(action, StartExecutor):
                executors.add(action.executor)
            elif isinstance(action, CallExecutor):
                runs.setdefault(action.executor, []).extend(action.runs)
            elif isinstance(action, RunBuiltin):
                runs.setdefault(0, []).append(action.run)
            elif isinstance(action, FetchObject):
                objects.append(action.object)


@pytest.mark.parametrize("lies", [lies_to_the_server, lies_to_the_worker])
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_lies(lies: Any, first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        try:
            lies(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("lies", [lies_to_the_server, lies_to_the_worker])
def test_many_lies(lies: Any, record_property: Any) -> None:
    record_property("lies", 10 * SEEDS)
    for seed in range(SEEDS, 11 * SEEDS):
        lies(seed)
