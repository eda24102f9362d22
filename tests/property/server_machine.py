"""A server core with pretended clients and workers around it, which check every message they get."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core.actions import Drop, Log, Send
from rain.server.core.core import ServerCore
from rain.server.core.events import PeerJoined, PeerLeft, PeerSaid, ServerEvent, Tick
from rain.server.core.state import CoreOptions
from rain.testing.graphs import ChunkWriter, PlannedSubmit
from rain.testing.reference import Reference, RefObject, RefTask

LARGE = 100_000

Key = tuple[int, int]


@dataclass
class Assignment:
    """A run which a worker was told to do."""

    run: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    cpus: int
    started: bool = False


@dataclass
class FakeWorker:
    """What a worker really has."""

    peer: int
    name: str
    cpus: int
    incarnation: int = 0
    assigned: dict[Key, Assignment] = field(default_factory=dict)
    copies: set[Key] = field(default_factory=set)
    withdrawn: dict[Key, int] = field(default_factory=dict)


@dataclass
class FakeClient:
    """A client and the answers it got."""

    peer: int
    answers: dict[int, Any] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)


@dataclass
class PendingWait:
    """A Wait for all of some ids; seen: those that were finished at some time."""

    client: FakeClient
    seq: int
    session: int
    ids: list[int]
    seen: set[int] = field(default_factory=set)


class ServerWorld:
    """Feeds the core, mirrors each operation in the reference model, compares."""

    def __init__(self) -> None:
        self.core = ServerCore(CoreOptions(check=True))
        self.reference = Reference()
        self.now = 0.0
        self.seq = 0
        self.peers = 0
        self.workers: dict[int, FakeWorker] = {}
        self.clients: dict[int, FakeClient] = {}
        self.client_of: dict[int, FakeClient] = {}
        self.writers: dict[int, ChunkWriter] = {}
        self.next_id: dict[int, int] = {}
        self.cpus_of: dict[Key, int] = {}
        self.last_run: dict[Key, int] = {}
        self.waits: list[PendingWait] = []
        self.logs: list[str] = []

    # --- operations -----------------------------------------------------------------------------

    def client_joins(self) -> FakeClient:
        self.peers += 1
        client = self.clients[self.peers] = FakeClient(self.peers)
        self.feed(PeerJoined(client.peer, "client", f"10.1.0.{client.peer}:40000", "10.0.0.1:7210", "3.11.4"))
        return client

    def client_leaves(self, client: FakeClient) -> None:
        del self.clients[client.peer]
        for number in client.sessions:
            self.reference.close(number)
        self.waits = [wait for wait in self.waits if wait.client is not client]
        self.feed(PeerLeft(client.peer, "test"))

    def worker_joins(self, cpus: int) -> FakeWorker:
        self.peers += 1
        worker = FakeWorker(self.peers, f"10.2.0.{self.peers}:9000", cpus)
        self.workers[worker.peer] = worker
        self.feed(PeerJoined(worker.peer, "worker", f"10.2.0.{self.peers}:40000", "10.0.0.1:7210", "3.11.4"))
        self.reference.worker_joins(worker.name)
        hello = m.WorkerHello(worker.name, {"cpus": cpus, "gpus": [], "memory": 1 << 30}, "host", 1, "3.11.4")
        self.feed(PeerSaid(worker.peer, hello))
        assert worker.incarnation > 0
        return worker

    def worker_leaves(self, worker: FakeWorker) -> None:
        del self.workers[worker.peer]
        running = [key for key, assignment in worker.assigned.items() if assignment.started]
        self.reference.worker_leaves(worker.name, running)
        self.feed(PeerLeft(worker.peer, "test"))

    def open_session(self, client: FakeClient) -> int:
        answer = self.ask(client, m.NewSession(self.new_seq(), "", "fail", False))
        assert isinstance(answer, m.SessionCreated)
        number = answer.session
        assert number not in self.client_of
        self.client_of[number] = client
        client.sessions.add(number)
        self.writers[number] = ChunkWriter(number)
        self.next_id[number] = 10
        self.reference.open(number)
        return number

    def close_session(self, number: int) -> None:
        client = self.client_of[number]
        self.reference.close(number)
        client.sessions.discard(number)
        waits = [wait for wait in self.waits if wait.session == number]
        self.waits = [wait for wait in self.waits if wait.session != number]
        assert isinstance(self.ask(client, m.CloseSession(self.new_seq(), number)), m.Accepted)
        for wait in waits:
            assert isinstance(client.answers.pop(wait.seq), m.Refused)

    def submit(self, number: int, plan: PlannedSubmit) -> bool:
        """Submit; True if it was accepted, as the reference says."""
        client = self.client_of[number]
        tasks = {t.number: RefTask(t.inputs, t.outputs, t.retries) for t in plan.tasks}
        objects = {n: RefObject(None, n in plan.kept) for n in plan.constants}
        for task in plan.tasks:
            for output in task.outputs:
                objects.setdefault(output, RefObject(task.number, output in plan.kept))
        refused = self.reference.refuses(number, tasks, objects)
        writer = self.writers[number] if not refused else ChunkWriter(number)
        chunk = writer.write(plan)
        if not refused:
            self.reference.submit(number, tasks, objects)
            self.cpus_of.update({(number, t.number): t.cpus for t in plan.tasks})
            highest = max([self.next_id[number] - 1, *tasks, *objects])
            self.next_id[number] = highest + 1
        self.feed(PeerSaid(client.peer, chunk), compare=False)
        answer = self.ask(client, m.SubmitCommit(self.new_seq(), number, False))
        assert isinstance(answer, m.Refused if refused else m.Accepted), (refused, answer)
        return not refused

    def unkeep(self, number: int, ids: list[int]) -> None:
        self.reference.unkeep(number, ids)
        answer = self.ask(self.client_of[number], m.UnkeepObjects(self.new_seq(), number, array("I", ids)))
        assert isinstance(answer, m.Accepted), answer

    def wait(self, number: int, ids: list[int]) -> None:
        client = self.client_of[number]
        wait = PendingWait(client, self.new_seq(), number, ids)
        self.waits.append(wait)
        self.feed(PeerSaid(client.peer, m.Wait(wait.seq, number, m.WAIT_ALL, array("I", ids))))

    def start(self, worker: FakeWorker, keys: list[Key]) -> None:
        for number, task in keys:
            assignment = worker.assigned[number, task]
            assignment.started = True
            self.feed(self.said(worker, m.TasksStarted(number, array("I", [task]), array("I", [assignment.run]))))

    def gather(self, worker: FakeWorker, key: Key) -> bool:
        """Transfer the inputs of a run to the worker; False if one cannot be had now."""
        number = key[0]
        stored = []
        for obj in worker.assigned[key].inputs:
            if (number, obj) in worker.copies:
                continue
            known = self.reference.sessions[number].objects[obj]
            if known.producer is not None and not self.reference.sessions[number].available(obj):
                return False
            stored.append(obj)
        for obj in dict.fromkeys(stored):
            worker.copies.add((number, obj))
            self.reference.stored(number, obj, worker.name)
            self.feed(self.said(worker, m.ObjectsStored(number, array("I", [obj]))))
            if key not in worker.assigned:
                return False
        return True

    def finish(self, worker: FakeWorker, number: int, tasks: list[int], inline: bool) -> None:
        """Report several runs of a session in one message."""
        runs, sizes, values = [], [], []
        for task in tasks:
            assignment = worker.assigned.pop((number, task))
            runs.append(assignment.run)
            for obj in assignment.outputs:
                worker.copies.add((number, obj))
                sizes.append(8 if inline else LARGE)
                values.append(b"12345678" if inline else None)
            self.reference.finishes(number, task, worker.name, inline)
        self.feed(self.said(worker, done_message(number, tasks, runs, sizes, values)))

    def fail(self, worker: FakeWorker, key: Key, retriable: bool = True) -> None:
        number, task = key
        assignment = worker.assigned.pop(key)
        if retriable:
            self.reference.fails(number, task)
        else:
            self.reference.sessions[number].failed = task
        failure = Failure("task", "boom", retriable=retriable)
        self.feed(self.said(worker, m.TaskFailed(number, task, assignment.run, failure.to_map(), 1.0, 0.5)))

    def give_back(self, worker: FakeWorker, key: Key) -> None:
        number, task = key
        assignment = worker.assigned.pop(key)
        self.feed(self.said(worker, m.TasksReturned(number, array("I", [task]), array("I", [assignment.run]))))

    def copy_unreadable(self, reporter: FakeWorker, holder: FakeWorker, key: Key) -> None:
        number, obj = key
        holder.copies.discard(key)
        self.reference.copy_gone(number, obj, holder.name)
        self.feed(self.said(reporter, m.ObjectsMissing(number, obj, [holder.name])))

    def outdated_messages(self, worker: FakeWorker, key: Key) -> None:
        """Say things about a run that is over; nothing may change."""
        number, task = key
        run = self.last_run[key]
        current = worker.assigned.get(key)
        if current is not None:
            run = current.run - 1
        if run <= 0:
            return
        outputs = self.reference.sessions[number].tasks[task].outputs
        sizes = [4] * len(outputs)
        values: list[bytes | None] = [b"evil"] * len(outputs)
        one, runs = array("I", [task]), array("I", [run])
        failure = Failure("task", "late").to_map()
        for message in (
            m.TasksStarted(number, one, runs),
            m.TaskFailed(number, task, run, failure, 0.0, 0.0),
            m.TasksReturned(number, one, runs),
            done_message(number, [task], [run], sizes, values),
        ):
            self.feed(self.said(worker, message))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())

    # --- plumbing -------------------------------------------------------------------------------

    def new_seq(self) -> int:
        self.seq += 1
        return self.seq

    def said(self, worker: FakeWorker, message: Any) -> PeerSaid:
        return PeerSaid(worker.peer, message)

    def ask(self, client: FakeClient, message: Any) -> Any:
        self.feed(PeerSaid(client.peer, message))
        return client.answers.pop(message.seq)

    def feed(self, event: ServerEvent, *, compare: bool = True) -> None:
        self.now += 0.001
        for action in self.core.handle([event], self.now):
            if isinstance(action, Send):
                if action.peer in self.workers:
                    self._to_worker(self.workers[action.peer], action.message)
                elif action.peer in self.clients:
                    self._to_client(self.clients[action.peer], action.message)
            elif isinstance(action, Log):
                self.logs.append(action.text)
                assert "internal error" not in action.text
            assert not isinstance(action, Drop), action
        if compare:
            self.compare()

    def _to_client(self, client: FakeClient, message: Any) -> None:
        if isinstance(message, m.SessionWarning):
            return
        assert message.seq not in client.answers, "answered twice"
        client.answers[message.seq] = message

    def _to_worker(self, worker: FakeWorker, message: Any) -> None:
        match message:
            case m.WorkerWelcome():
                worker.incarnation = message.incarnation
                assert message.worker_id == worker.name
            case m.AssignTasks():
                self._assigned(worker, message)
            case m.DeleteObjects():
                for obj in message.objects:
                    worker.copies.discard((message.session, obj))
                    self.reference.deleted(message.session, obj, worker.name)
            case m.EndSession():
                worker.copies = {key for key in worker.copies if key[0] != message.session}
                worker.assigned = {k: a for k, a in worker.assigned.items() if k[0] != message.session}
                worker.withdrawn = {k: r for k, r in worker.withdrawn.items() if k[0] != message.session}
            case m.WithdrawTasks():
                for task, run in zip(message.tasks, message.runs, strict=True):
                    worker.withdrawn[message.session, task] = run
            case m.CancelTasks():
                for task in message.tasks:
                    worker.assigned.pop((message.session, task), None)
            case _:
                raise AssertionError(f"unexpected message {message}")

    def _assigned(self, worker: FakeWorker, message: m.AssignTasks) -> None:
        number = message.session
        session = self.reference.sessions[number]
        assert session.failed is None
        offered = dict(zip(message.objects, range(len(message.objects)), strict=True))
        inputs, outputs = iter(message.inputs), iter(message.outputs)
        assert len(message.tasks) == len(set(message.tasks))
        for obj, position in offered.items():
            value = message.values[position] if message.values else None
            assert value is not None or message.holders[position], f"nobody offered for {number}/{obj}"
            if value is not None:
                worker.copies.add((number, obj))
                self.reference.stored(number, obj, worker.name)
        for k, task in enumerate(message.tasks):
            key = (number, task)
            ins = tuple(next(inputs) for _ in range(message.input_counts[k]))
            outs = tuple(next(outputs) for _ in range(message.output_counts[k]))
            known = session.tasks[task]
            assert (ins, outs) == (known.inputs, known.outputs)
            assert not known.done, f"{key} was finished and is assigned again"
            for other in self.workers.values():
                assert key not in other.assigned, f"{key} is assigned twice"
            run = message.runs[k]
            assert run > self.last_run.get(key, 0), f"{key}: the run number does not rise"
            self.last_run[key] = run
            assert worker.cpus >= self.cpus_of[key], f"{key} does not fit its worker"
            for obj in ins:
                assert obj in offered or (number, obj) in worker.copies, f"{key}: input {obj} was not offered"
            worker.assigned[key] = Assignment(run, ins, outs, self.cpus_of[key])

    # --- comparison -----------------------------------------------------------------------------

    def compare(self) -> None:
        """Everything visible agrees with the reference."""
        for number, session in self.reference.sessions.items():
            client = self.client_of[number]
            ids = sorted([*session.tasks, *session.objects])
            self.seq += 1
            actions = self.core.handle([PeerSaid(client.peer, m.GetInfos(self.seq, number, array("I", ids)))], self.now)
            (answer,) = [a.message for a in actions if isinstance(a, Send)]
            if session.failed is not None:
                assert isinstance(answer, m.Refused)
                failure = Failure.from_map(answer.failure)
                assert failure.kind == "task"
                assert failure.task == session.failed
                continue
            assert isinstance(answer, m.Infos), answer
            for position, obj in enumerate(ids):
                if obj in session.tasks:
                    self._compare_task(number, obj, TaskState(answer.states[position]))
                else:
                    expected = self.reference.object_state(number, obj)
                    assert answer.states[position] == expected, (number, obj, answer.states[position], expected)
                    if expected is DataObjectState.removed:
                        left = [w.name for w in self.workers.values() if (number, obj) in w.copies]
                        assert not left, f"object {number}/{obj} is removed, {left} were not told to delete it"
        self._compare_waits()
        self._compare_idle()

    def _compare_task(self, number: int, task: int, state: TaskState) -> None:
        allowed = self.reference.allowed_task_states(number, task)
        assert state in allowed, f"task {number}/{task}: {state.name}, allowed {[s.name for s in allowed]}"
        having = [w for w in self.workers.values() if (number, task) in w.assigned]
        assert bool(having) == (state in (TaskState.assigned, TaskState.running)), (number, task, state)
        if having:
            assert having[0].assigned[number, task].started == (state is TaskState.running)

    def _compare_waits(self) -> None:
        open_waits = []
        for wait in self.waits:
            session = self.reference.sessions[wait.session]
            answer = wait.client.answers.pop(wait.seq, None)
            if session.failed is not None:
                assert isinstance(answer, m.Refused | m.WaitDone), f"wait {wait.seq} hangs in a failed session"
                continue
            wait.seen.update(n for n in wait.ids if self.reference.wait_is_over(wait.session, [n]))
            if answer is None:
                assert wait.seen != set(wait.ids), f"wait {wait.seq} for {wait.ids} is not answered"
                open_waits.append(wait)
            else:
                assert isinstance(answer, m.WaitDone), answer
                assert wait.seen == set(wait.ids), f"wait {wait.seq} for {wait.ids} was answered early"
        self.waits = open_waits

    def _compare_idle(self) -> None:
        """No worker idles while a task waits which it could run (a reservation may hold it for ten seconds' sake)."""
        idle = [worker for worker in self.workers.values() if worker.incarnation and not worker.assigned]
        if not idle or self.now > 10:
            return
        taken = {key for worker in self.workers.values() for key in worker.assigned}
        for number, session in self.reference.sessions.items():
            for task in session.tasks if session.failed is None else ():
                if session.runnable(task) and (number, task) not in taken:
                    cpus = self.cpus_of[number, task]
                    assert all(worker.cpus < cpus for worker in idle), f"{number}/{task} waits, a worker idles"


def done_message(
    number: int, tasks: list[int], runs: list[int], sizes: list[int], values: list[bytes | None]
) -> m.TasksDone:
    """TasksDone of runs that took 0.2 s."""
    return m.TasksDone(
        session=number,
        tasks=array("I", tasks),
        runs=array("I", runs),
        starts=array("d", [1.0] * len(tasks)),
        durations=array("d", [0.2] * len(tasks)),
        infos=[],
        sizes=array("Q", sizes),
        output_infos=[],
        values=values if any(value is not None for value in values) else [],
    )
