"""A server core with pretended clients and workers around it, which check every message they get."""

from __future__ import annotations

from array import array
from typing import Any

import msgpack

from rain.common.blocks import STORED
from rain.common.failure import Failure
from rain.common.links import unpack_assigned
from rain.protocol import messages as m
from rain.server.core.actions import Drop, Log, Send
from rain.server.core.core import ServerCore
from rain.server.core.events import PeerJoined, PeerLeft, PeerSaid, ServerEvent, Tick
from rain.server.core.state import CoreOptions
from rain.testing.graphs import ChunkWriter, PlannedSubmit
from rain.testing.reference import Reference, RefObject, RefTask
from tests.property.comparison import compare_idle, compare_sessions
from tests.property.fakes import (
    LARGE,
    Assignment,
    BlockEnd,
    DoneColumns,
    FakeClient,
    FakeWorker,
    Key,
    PendingCancel,
    PendingFetch,
    PendingWait,
    seconds_of,
    seconds_of_task,
)
from tests.property.pending import compare_pending


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
        self.args_of: dict[Key, Any] = {}
        self.members: set[Key] = set()
        self.linked: set[Key] = set()
        self.last_run: dict[Key, int] = {}
        self.block_runs: dict[tuple[int, int, int], int] = {}
        self.crashed: set[Key] = set()
        self.durations: dict[Key, float] = {}
        self.sizes: dict[Key, int] = {}
        self.waits: list[PendingWait] = []
        self.fetches: list[PendingFetch] = []
        self.cancels: list[PendingCancel] = []
        self.logs: list[str] = []
        self.sent_ahead = 0

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
        self._forget_pending(client.sessions)
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
        running = []
        for (number, first), assignment in worker.assigned.items():
            if assignment.started:
                keys = [(number, task) for task in assignment.tasks(first)]
                running += keys
                if assignment.members:
                    self.crashed.update(keys)  # each may have brought the worker down
        self.reference.worker_leaves(worker.name, running)
        self.feed(PeerLeft(worker.peer, "test"))

    def open_session(self, client: FakeClient, *, tolerant: bool = False) -> int:
        answer = self.ask(client, m.NewSession(self.new_seq(), "", "continue" if tolerant else "fail", False))
        assert isinstance(answer, m.SessionCreated)
        number = answer.session
        assert number not in self.client_of
        self.client_of[number] = client
        client.sessions.add(number)
        self.writers[number] = ChunkWriter(number)
        self.next_id[number] = 10
        self.reference.open(number, tolerant=tolerant)
        return number

    def close_session(self, number: int) -> None:
        client = self.client_of[number]
        self.reference.close(number)
        client.sessions.discard(number)
        forgotten = self._forget_pending({number})
        assert isinstance(self.ask(client, m.CloseSession(self.new_seq(), number)), m.Accepted)
        for request in forgotten:
            assert isinstance(client.answers.pop(request.seq), m.Refused)

    def _forget_pending(self, sessions: set[int]) -> list[PendingWait | PendingFetch | PendingCancel]:
        pending = [*self.waits, *self.fetches, *self.cancels]
        self.waits = [one for one in self.waits if one.session not in sessions]
        self.fetches = [one for one in self.fetches if one.session not in sessions]
        self.cancels = [one for one in self.cancels if one.session not in sessions]
        return [one for one in pending if one.session in sessions]

    def submit(self, number: int, plan: PlannedSubmit) -> bool:
        """Submit; True if it was accepted, as the reference says."""
        client = self.client_of[number]
        planned = plan.all_tasks()
        together = _together(plan)
        tasks = {
            t.number: RefTask(t.inputs, t.outputs, t.retries, together=together.get(t.number, ())) for t in planned
        }
        objects = {n: RefObject(None, n in plan.kept) for n in plan.constants}
        for task in planned:
            for output in task.outputs:
                objects.setdefault(output, RefObject(task.number, output in plan.kept))
        refused = len(tasks) < len(planned) or self.reference.refuses(number, tasks, objects)
        writer = self.writers[number] if not refused else ChunkWriter(number)
        messages = writer.messages(plan)
        if not refused:
            self.reference.submit(number, tasks, objects)
            self.cpus_of.update({(number, t.number): t.cpus for t in planned})
            self.args_of.update({(number, t.number): msgpack.unpackb(t.args()) for t in planned})
            self.members.update((number, t.number) for one in plan.arrays for t in one.members)
            self.linked.update((number, t.number) for one in plan.arrays if one.linked for t in one.members)
            highest = max([self.next_id[number] - 1, *tasks, *objects])
            self.next_id[number] = highest + 1
        for message in messages:
            self.feed(PeerSaid(client.peer, message), compare=False)
        answer = self.ask(client, m.SubmitCommit(self.new_seq(), number, False))
        assert isinstance(answer, m.Refused if refused else m.Accepted), (refused, answer)
        return not refused

    def unkeep(self, number: int, ids: list[int]) -> None:
        self.reference.unkeep(number, ids)
        answer = self.ask(self.client_of[number], m.UnkeepObjects(self.new_seq(), number, array("I", ids)))
        assert isinstance(answer, m.Accepted), answer

    def wait(self, number: int, ids: list[int], mode: int = m.WAIT_ALL) -> None:
        client = self.client_of[number]
        wait = PendingWait(client, self.new_seq(), number, ids, mode)
        self.waits.append(wait)
        self.feed(PeerSaid(client.peer, m.Wait(wait.seq, number, mode, array("I", ids))))

    def fetch(self, number: int, ids: list[int]) -> None:
        client = self.client_of[number]
        fetch = PendingFetch(client, self.new_seq(), number, ids)
        self.fetches.append(fetch)
        self.feed(PeerSaid(client.peer, m.FetchObjects(fetch.seq, number, array("I", ids), [])))

    def cancel(self, number: int, ids: list[int]) -> None:
        """Cancel tasks, all if there are no ids."""
        client = self.client_of[number]
        chosen = self.reference.cancel(number, ids or sorted(self.reference.sessions[number].tasks))
        cancel = PendingCancel(client, self.new_seq(), number, set(chosen))
        before = {(w.peer, key) for w in self.workers.values() for key in w.stopping}
        message = m.Cancel(cancel.seq, number, array("I", ids))
        self.feed(PeerSaid(client.peer, message), compare=False)
        for worker in self.workers.values():
            for key, assignment in worker.stopping.items():
                if (worker.peer, key) not in before and not cancel.chosen.isdisjoint(assignment.tasks(key[1])):
                    cancel.running.add((worker.peer, key))
        self.cancels.append(cancel)
        self.compare()

    def stop_runs(self, worker: FakeWorker, key: tuple[int, int, int], crossing: bool) -> None:
        """The worker has stopped a run; crossing: its end was reported just before the order came."""
        number, task, run = key
        assignment = worker.stopping.pop(key)
        if crossing:
            columns = DoneColumns(number)
            if assignment.members:
                end = BlockEnd(STORED, 0)
                columns.add_block(run, assignment.tasks(task), assignment.outputs[0], end, assignment.hidden(0))
                worker.copies.add((number, assignment.outputs[0]))
            else:
                columns.add(task, run, assignment.outputs, False, 0.2)
                worker.copies.update((number, obj) for obj in assignment.outputs)
            self.feed(self.said(worker, columns.message()))
        self.feed(self.said(worker, m.TasksStopped(number, array("I", [task]), array("I", [run]))))

    def start(self, worker: FakeWorker, keys: list[Key]) -> None:
        for number, task in keys:
            assignment = worker.assigned[number, task]
            session = self.reference.sessions[number]
            if not all(session.available(obj) or (number, obj) in worker.copies for obj in assignment.inputs):
                continue
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

    def finish(
        self, worker: FakeWorker, number: int, tasks: list[int], inline: bool, end: BlockEnd | None = None
    ) -> None:
        """Report several runs of a session in one message; blocks end as told, else all their members succeed."""
        columns = DoneColumns(number)
        for task in tasks:
            assignment = worker.assigned.pop((number, task))
            if assignment.members:
                self._finish_block(columns, worker, task, assignment, end or BlockEnd(None, assignment.members))
            else:
                self._finish_task(columns, worker, task, assignment, inline)
        self.feed(self.said(worker, columns.message()))

    def _finish_task(
        self, columns: DoneColumns, worker: FakeWorker, task: int, assignment: Assignment, inline: bool
    ) -> None:
        number = columns.session
        seconds = self.durations[number, task] = self.seconds_of((number, task))
        columns.add(task, assignment.run, assignment.outputs, inline, seconds)
        self._produced(worker, number, task, inline)

    def seconds_of(self, key: Key) -> float:
        """What a task takes."""
        if key in self.members:
            return seconds_of(key[1], is_linked=key in self.linked)
        return seconds_of_task(key[1])

    def _produced(self, worker: FakeWorker, number: int, task: int, inline: bool) -> None:
        """An ordinary result: the values lie in the worker's store."""
        session = self.reference.sessions[number]
        for obj in session.tasks[task].outputs:
            worker.copies.add((number, obj))
            if not session.available(obj):
                self.sizes[number, obj] = 8 if inline else LARGE
        self.reference.finishes(number, task, worker.name, inline)

    def _finish_block(
        self, columns: DoneColumns, worker: FakeWorker, first: int, assignment: Assignment, end: BlockEnd
    ) -> None:
        number = columns.session
        members = assignment.tasks(first)
        is_linked, hidden = assignment.link is not None, assignment.hidden(end.done)
        columns.add_block(assignment.run, members, assignment.outputs[0], end, hidden, is_linked=is_linked)
        good = members[: end.done]
        for position, task in enumerate(good):
            self.durations[number, task] = self.seconds_of((number, task))
            output = self.reference.sessions[number].tasks[task].outputs[0]
            self.sizes[number, output] = 0 if position in hidden else 8
        self.reference.finishes_in_block(number, good)
        if end.kind == STORED:
            task = members[end.done]
            self.durations[number, task] = self.seconds_of((number, task))
            self._produced(worker, number, task, inline=False)
        elif end.fails:
            self.reference.fails(number, members[end.done], retriable=end.retriable)

    def fail(self, worker: FakeWorker, key: Key, retriable: bool = True) -> None:
        number, task = key
        assignment = worker.assigned.pop(key)
        assert not assignment.members
        self.reference.fails(number, task, retriable=retriable)
        self._say_failed(worker, key, assignment.run, retriable)

    def crash(self, worker: FakeWorker, key: Key) -> None:
        """The executor died during a block: the server cannot tell by which member, and tries them one by one."""
        assignment = worker.assigned.pop(key)
        self.crashed.update((key[0], task) for task in assignment.tasks(key[1]))
        self._say_failed(worker, key, assignment.run, True)

    def _say_failed(self, worker: FakeWorker, key: Key, run: int, retriable: bool) -> None:
        failure = Failure("task", "boom", retriable=retriable)
        self.feed(self.said(worker, m.TaskFailed(*key, run, failure.to_map(), 1.0, 0.5)))

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
        if run <= 0 or any((number, task, run) in one.stopping for one in self.workers.values()):
            return
        columns = DoneColumns(number)
        members = self.block_runs.get((number, task, run))
        outputs = self.reference.sessions[number].tasks[task].outputs
        if members:
            columns.add_block(run, range(task, task + members), outputs[0], BlockEnd(None, members))
        else:
            columns.add(task, run, outputs, True, 0.3)
        one, runs = array("I", [task]), array("I", [run])
        failure = Failure("task", "late").to_map()
        for message in (
            m.TasksStarted(number, one, runs),
            m.TaskFailed(number, task, run, failure, 0.0, 0.0),
            m.TasksReturned(number, one, runs),
            columns.message(),
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
                worker.stopping = {k: a for k, a in worker.stopping.items() if k[0] != message.session}
                worker.withdrawn = {k: r for k, r in worker.withdrawn.items() if k[0] != message.session}
            case m.WithdrawTasks():
                for task, run in zip(message.tasks, message.runs, strict=True):
                    worker.withdrawn[message.session, task] = run
            case m.CancelTasks():
                for task, run in zip(message.tasks, message.runs, strict=True):
                    assignment = worker.assigned.pop((message.session, task))
                    assert assignment.run == run
                    worker.stopping[message.session, task, run] = assignment
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
            count = message.members[k] if message.members else 0
            assignment = Assignment(message.runs[k], ins, outs, self.cpus_of[key], members=count)
            packed = message.links[k] if message.links else None
            if packed is not None:
                assignment.link, assignment.wanted = unpack_assigned(packed, count, len(ins))
            self._check_assigned(worker, key, assignment, message.args[k])
            for obj in ins:
                is_made_here = (number, session.objects[obj].producer) in worker.assigned
                is_here = obj in offered or (number, obj) in worker.copies
                assert is_here or (is_made_here and not session.available(obj)), f"{key}: input {obj} was not offered"
                self.sent_ahead += not is_here
            worker.assigned[key] = assignment

    def _check_assigned(self, worker: FakeWorker, key: Key, assignment: Assignment, args: bytes | None) -> None:
        number, first = key
        session = self.reference.sessions[number]
        members = assignment.tasks(first)
        taken = self.having()
        assert assignment.outputs == session.tasks[first].outputs
        wanted = [self.args_of[number, task] for task in members]
        assert msgpack.unpackb(args or b"") == (wanted if assignment.members else wanted[0]), f"{key}: wrong arguments"
        if assignment.link is not None:
            self._check_wanted(number, first, assignment)
        for position, task in enumerate(members):
            known, member = session.tasks[task], (number, task)
            assert assignment.inputs_of(position) == known.inputs
            assert known.is_open, f"{member} was finished and is assigned again"
            assert member not in taken, f"{member} is assigned twice"
            assert assignment.run > self.last_run.get(member, 0), f"{member}: the run number does not rise"
            self.last_run[member] = assignment.run
            assert worker.cpus >= self.cpus_of[member], f"{member} does not fit its worker"
            if assignment.members:
                assert member in self.members, f"{member} goes in a block, but is not a member of an array"
                assert member not in self.crashed, f"{member} goes in a block after a crash"
        self.block_runs[number, first, assignment.run] = assignment.members

    def _check_wanted(self, number: int, first: int, assignment: Assignment) -> None:
        """What is wanted outside of a linked block: kept outputs, and inputs of open tasks outside."""
        session, members = self.reference.sessions[number], assignment.tasks(first)
        used = {i for task, one in session.tasks.items() if task not in members and one.is_open for i in one.inputs}
        for position, is_wanted in enumerate(assignment.wanted):
            output = assignment.outputs[0] + position
            is_kept = session.objects[output].kept
            assert is_wanted or not (is_kept or output in used), f"{number}/{output} is wanted outside of its block"

    def compare(self) -> None:
        """Everything visible agrees with the reference."""
        compare_sessions(self)
        compare_pending(self)
        compare_idle(self)

    def silently(self, client: FakeClient, message: Any) -> Any:
        """The answer to a request that nothing is compared after."""
        actions = self.core.handle([PeerSaid(client.peer, message)], self.now)
        (answer,) = [a.message for a in actions if isinstance(a, Send)]
        return answer

    def having(self) -> dict[Key, Assignment]:
        """All tasks that are assigned, with their runs."""
        return {
            (number, task): assignment
            for worker in self.workers.values()
            for (number, first), assignment in worker.assigned.items()
            for task in assignment.tasks(first)
        }


def _together(plan: PlannedSubmit) -> dict[int, tuple[int, ...]]:
    """Inputs of the linked blocks, by the tasks in them."""
    found: dict[int, tuple[int, ...]] = {}
    for planned in plan.arrays:
        start = 0
        for count in planned.linked:
            members = planned.members[start : start + count]
            made = {task.outputs[0] for task in members}
            inputs = tuple(sorted({i for task in members for i in task.inputs} - made))
            found.update((task.number, inputs) for task in members)
            start += count
    return found
