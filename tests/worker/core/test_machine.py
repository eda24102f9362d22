"""A random server and a random shell around the core: every step keeps the invariants, every run ends once, and
nothing is left at the end."""

from __future__ import annotations

from array import array
from functools import reduce
from operator import xor

import msgpack
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from rain.common.blocks import LATE, STORED
from rain.common.failure import Failure
from rain.protocol.messages import (
    CancelTasks,
    DeleteObjects,
    EndSession,
    GetWorkerInfo,
    ObjectsMissing,
    ObjectsStored,
    TaskFailed,
    TasksDone,
    TasksReturned,
    TasksStarted,
    TasksStopped,
    WithdrawTasks,
    WorkerDigest,
    WorkerInfo,
    WorkerWelcome,
)
from rain.protocol.worker_messages import run_digest
from rain.testing.worker_builders import (
    WORKER_ID,
    BlockOf,
    InputOf,
    TaskOf,
    assign_tasks,
    block_end,
    failure_of,
    packed_template,
    success,
)
from rain.worker.core.actions import (
    CallExecutor,
    DeleteValues,
    DropCached,
    FetchObject,
    ForbidRun,
    KillExecutor,
    Run,
    RunBuiltin,
    StartExecutor,
    StopBuiltin,
    StopFetch,
    StoreValue,
    TellServer,
    WorkerAction,
)
from rain.worker.core.core import WorkerCore
from rain.worker.core.events import (
    BuiltinStopped,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    LimitExceeded,
    ObjectArrived,
    ObjectUnreachable,
    RunEnd,
    RunKept,
    RunResult,
    RunsEnded,
    RunSkipped,
    ServerLost,
    ServerSaid,
    StoreFailed,
    TaskKey,
    Tick,
    WorkerEvent,
)

TEMPLATES = {
    0: packed_template("py/f", outputs=[{"label": "x"}]),
    1: packed_template("buildin/concat"),
    2: packed_template("py/g", priority=3, resources={"cpus": 2}),
    3: packed_template("cpp/h", env={"A": "1"}),
    4: packed_template("buildin/sleep", resources={"cpus": 0}),
    5: packed_template("py/k", resources={"gpus": 1, "memory": 6, "x": 0.5}),
    6: packed_template("py/never", resources={"cpus": 9}),
    7: packed_template("py/limited", timeout=0.5),
    8: packed_template("buildin/run", timeout=0.5, resources={"gpus": 1}),
}
SESSIONS = (1, 2)
TASKS = range(100, 116)
CONSTANTS = range(10, 16)

sessions = st.sampled_from(SESSIONS)
tasks = st.sampled_from(TASKS)
objects = st.sampled_from([*CONSTANTS, *(task + 100 for task in TASKS)])
durations = st.sampled_from([1e-6, 1e-6, 3e-4, 0.1])
rarely = st.sampled_from([False] * 9 + [True])
subset = st.lists(tasks, min_size=1, max_size=5, unique=True)


class _Executor:
    def __init__(self) -> None:
        self.registered = False
        self.line: list[Run] = []
        self.held: set[tuple[int, int]] = set()
        #: forbidden runs: whether they never begin (None: not decided)
        self.forbidden: dict[TaskKey, bool | None] = {}

    def run(self, count: int) -> list[Run]:
        """Run up to `count` of the line."""
        done: list[Run] = []
        while self.line and len(done) < count and self.forbidden.get(self.line[0].key) is not True:
            done.append(self.line.pop(0))
        return done


class Cluster(RuleBasedStateMachine):
    """The world of one worker core."""

    def __init__(self) -> None:
        super().__init__()
        self.core = WorkerCore(
            resources={"cpus": 2, "gpus": [0, 1], "memory": 10, "x": 1}, delete_timeout=1.0, spare_executors=1
        )
        self.now = 0.0
        self.pending: list[WorkerEvent] = []
        self.gathering = 0
        self.executors: dict[int, _Executor] = {}
        self.builtins: dict[tuple[int, int, int], Run] = {}
        self.fetches: set[tuple[int, int]] = set()
        self.store: set[tuple[int, int]] = set()
        #: values found damaged in this turn: it may be said that they came, and that they are lost
        self.damaged: set[tuple[int, int]] = set()
        self.runs_so_far: dict[tuple[int, int], int] = {}
        self.sent_templates: set[int] = set()
        #: what the server waits for, and what it dropped in messages still under way
        self.assigned: dict[tuple[int, int], int] = {}
        self.crossing: set[tuple[int, int, int]] = set()
        #: runs that broke a limit and were dropped since: they fail when nothing is left of them
        self.stopping: set[TaskKey] = set()
        #: runs whose stop the server asked for, and those it was told of
        self.asked: set[TaskKey] = set()
        self.answered: set[TaskKey] = set()
        #: what ends with grace: executors with what they may be running, built-in tasks
        self.ending: dict[int, TaskKey] = {}
        self.ending_builtins: set[TaskKey] = set()
        self.event(ServerSaid(WorkerWelcome(1, WORKER_ID)))

    # --- the core's turn ---

    def event(self, event: WorkerEvent) -> None:
        """Something happens; the core hears of it now, or together with what happens next."""
        self.pending.append(event)
        if self.gathering:
            self.gathering -= 1
        else:
            self.turn()

    @rule(events=st.integers(1, 3))
    def gather(self, events: int) -> None:
        self.gathering = events

    def turn(self) -> None:
        events, self.pending = self.pending, []
        self.damaged = {event.object for event in events if isinstance(event, StoreFailed)}
        actions = self.core.handle(events, self.now)
        self.core.sanity_check()
        for action in actions:
            self.obey(action)
        self.crossing.clear()

    @rule(seconds=st.sampled_from([0.0001, 0.01, 0.6]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.event(Tick())

    def obey(self, action: WorkerAction) -> None:
        match action:
            case TellServer(message):
                self.hear(message)
            case StartExecutor(executor):
                assert executor not in self.executors
                self.executors[executor] = _Executor()
            case KillExecutor(executor, grace):
                killed = self.executors.pop(executor, None)
                self.ending.pop(executor, None)
                if grace:
                    self.ending[executor] = killed.line[0].key if killed and killed.line else (0, 0, 0)
            case ForbidRun(executor, key):
                if executor in self.executors:
                    self.executors[executor].forbidden[key] = None
            case CallExecutor(executor, runs):
                process = self.executors.get(executor)
                if process is not None:
                    coming: set[tuple[int, int]] = set()
                    for run in runs:
                        self.check_inputs(run, process.held, coming)
                        if not run.members:
                            coming.update((run.key[0], number) for number in run.outputs)
                    process.line += runs
            case RunBuiltin(run):
                self.check_inputs(run, set(), set())
                self.builtins[run.key] = run
            case StopBuiltin(key, grace):
                self.builtins.pop(key, None)
                self.ending_builtins.discard(key)
                if grace:
                    self.ending_builtins.add(key)
            case StoreValue(key):
                self.store.add(key)
            case FetchObject(key):
                assert key not in self.store
                assert key not in self.fetches
                self.fetches.add(key)
            case StopFetch(key):
                self.fetches.discard(key)
            case DeleteValues(keys):
                self.store.difference_update(keys)
            case DropCached(executor, keys):
                if executor in self.executors:
                    self.executors[executor].held.difference_update(keys)
            case _:
                raise AssertionError(action)

    def check_inputs(self, run: Run, held: set[tuple[int, int]], coming: set[tuple[int, int]]) -> None:
        for given in run.inputs:
            assert given.object in (held if given.cached else coming if given.live else self.store)

    def hear(self, message: object) -> None:
        match message:
            case TasksStarted(session, numbers, runs):
                for number, run in zip(numbers, runs, strict=True):
                    assert self.assigned.get((session, number)) == run or (session, number, run) in self.crossing
            case WorkerDigest(_, count, digest):
                held = {(*key, run) for key, run in self.assigned.items()} | (self.stopping - self.answered)
                assert (count, digest) == (len(held), reduce(xor, [run_digest(*key) for key in held], 0))
            case TasksDone(session, numbers, runs) | TasksReturned(session, numbers, runs):
                for number, run in zip(numbers, runs, strict=True):
                    self.ended(session, number, run)
            case TaskFailed(session, number, run):
                self.ended(session, number, run)
            case TasksStopped(session, numbers, runs):
                for number, run in zip(numbers, runs, strict=True):
                    self.stopped((session, number, run))
            case ObjectsStored(session, numbers):
                assert self.store | self.damaged >= {(session, number) for number in numbers}
            case ObjectsMissing() | WorkerInfo():
                pass
            case _:
                raise AssertionError(message)

    def ended(self, session: int, number: int, run: int) -> None:
        if (session, number, run) in self.crossing:
            self.crossing.remove((session, number, run))
        elif (session, number, run) in self.stopping:
            self.stopping.remove((session, number, run))
        else:
            assert self.assigned.pop((session, number)) == run

    def stopped(self, key: TaskKey) -> None:
        assert key in self.asked
        self.answered.add(key)
        assert key not in self.ending.values()
        assert key not in self.ending_builtins
        assert key not in self.builtins
        for process in self.executors.values():
            assert all(run.key != key or process.forbidden[key] for run in process.line), "it can still begin"

    # --- the server ---

    def forget(self, session: int, number: int) -> None:
        run = self.assigned.pop((session, number), None)
        if run is not None:
            key = (session, number, run)
            self.crossing.add(key)
            if key in self.core._dispatcher.stops.pending:
                self.stopping.add(key)

    @rule(
        session=sessions,
        first=tasks,
        count=st.integers(1, 8),
        templates=st.lists(st.sampled_from([0] * 8 + sorted(TEMPLATES)), min_size=1, max_size=2),
        inline=st.sets(st.sampled_from(CONSTANTS), max_size=2),
        travelling=st.sets(st.sampled_from(CONSTANTS), max_size=2),
        wild=rarely,
        solo=rarely,
        data=st.data(),
    )
    def assign(
        self,
        session: int,
        first: int,
        count: int,
        templates: list[int],
        inline: set[int],
        travelling: set[int],
        wild: bool,
        solo: bool,
        data: st.DataObject,
    ) -> None:
        known = self.core.sessions.get(session)
        here = {*inline, *travelling, *(known.objects if known else ())}
        choice = st.sampled_from(sorted({*here, *CONSTANTS} if wild else here) or [CONSTANTS[0]])
        column = []
        for number in range(first, min(first + count, TASKS[-1] + 1)):
            run = self.runs_so_far.get((session, number), 0) + 1
            inputs = [obj for obj in data.draw(st.lists(choice, max_size=2)) if obj < number + 100] if here else []
            if column and column[-1].outputs and type(column[-1]) is TaskOf and data.draw(rarely):
                inputs.append(column[-1].outputs[0])
            outputs = (number + 100,) if number % 4 else ()
            template = templates[number % len(templates)]
            if template == 0 and outputs and data.draw(st.booleans()):
                members = data.draw(st.integers(1, 3))
                column.append(BlockOf(number, inputs, outputs, template, run, members=members))
            else:
                column.append(TaskOf(number, inputs, outputs, template, run))
        for task in column:
            self.forget(session, task.id)
            self.runs_so_far[(session, task.id)] = self.assigned[(session, task.id)] = task.run
        offered = [InputOf(number, b"value") for number in sorted(inline)]
        offered += [InputOf(number, spec=msgpack.packb({})) for number in sorted(travelling - inline)]
        news = {} if session in self.sent_templates else TEMPLATES
        self.sent_templates.add(session)
        alone = [column[0].id] if solo else []
        self.event(ServerSaid(assign_tasks(column, session=session, templates=news, objects=offered, solo=alone)))

    def named_runs(self, session: int, numbers: list[int]) -> tuple[array[int], array[int]]:
        runs = [self.runs_so_far.get((session, number), 0) for number in numbers]
        return array("I", numbers), array("I", runs)

    @rule(session=sessions, numbers=subset)
    def withdraw(self, session: int, numbers: list[int]) -> None:
        self.event(ServerSaid(WithdrawTasks(session, *self.named_runs(session, numbers))))

    @rule(session=sessions, numbers=subset, grace=st.sampled_from([0.0, 2.0]))
    def cancel(self, session: int, numbers: list[int], grace: float) -> None:
        named = self.named_runs(session, numbers)
        for number, run in zip(*named, strict=True):
            self.forget(session, number)
            self.asked.add((session, number, run))
            self.answered.discard((session, number, run))
        self.event(ServerSaid(CancelTasks(session, *named, grace)))

    @rule(session=sessions, numbers=st.lists(objects, min_size=1, max_size=6))
    def delete(self, session: int, numbers: list[int]) -> None:
        self.event(ServerSaid(DeleteObjects(session, array("I", numbers))))

    @rule(session=sessions, really=rarely)
    def session_ends(self, session: int, really: bool) -> None:
        if really:
            self.end_session(session)

    def end_session(self, session: int) -> None:
        self.sent_templates.discard(session)
        for number in TASKS:
            self.forget(session, number)
        self.answered.update(key for key in self.asked if key[0] == session)
        self.event(ServerSaid(EndSession(session)))

    @rule(really=rarely)
    def ask(self, really: bool) -> None:
        if really:
            self.event(ServerSaid(GetWorkerInfo(1)))

    @precondition(lambda self: not self.pending)
    @rule(really=rarely)
    def server_lost(self, really: bool) -> None:
        if not really:
            return
        self.assigned.clear()
        self.answered.update(self.asked)
        self.sent_templates.clear()
        self.pending.append(ServerLost())
        self.turn()
        assert not self.store
        assert not self.fetches
        assert not self.builtins
        assert not self.ending
        assert not self.ending_builtins

    # --- the shell ---

    @precondition(lambda self: any(not e.registered for e in self.executors.values()))
    @rule(data=st.data())
    def executor_registers(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([n for n, e in self.executors.items() if not e.registered]))
        self.executors[number].registered = True
        self.event(ExecutorReady(number))

    @precondition(lambda self: self.executors)
    @rule(data=st.data())
    def executor_dies(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.executors)))
        running = data.draw(st.sampled_from([None, *(run.key for run in self.executors[number].line[:2])]))
        del self.executors[number]
        self.event(ExecutorLost(number, running, Failure("task", "Lost connection to executor")))

    @precondition(lambda self: any(e.line for e in self.executors.values()))
    @rule(data=st.data(), duration=durations)
    def runs_end(self, data: st.DataObject, duration: float) -> None:
        number = data.draw(st.sampled_from([n for n, e in self.executors.items() if e.line]))
        executor = self.executors[number]
        count = data.draw(st.integers(1, len(executor.line)))
        bad = data.draw(st.sets(st.integers(0, 5), max_size=1))
        runs = executor.run(count)
        if not runs:  # it came to a forbidden run
            self.dies(number)
            return
        results = [self.result(run, at not in bad, duration) for at, run in enumerate(runs)]
        cached = [given.object for run in runs for given in run.inputs[:1]]
        executor.held.update(cached)
        self.event(RunsEnded(number, results, cached))

    def dies(self, number: int) -> None:
        del self.executors[number]
        self.event(ExecutorLost(number, None, Failure("task", "Lost connection to executor")))

    @precondition(lambda self: any(None in e.forbidden.values() for e in self.executors.values()))
    @rule(data=st.data())
    def forbidden_runs_are_looked_at(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([n for n, e in self.executors.items() if None in e.forbidden.values()]))
        executor = self.executors[number]
        begun = data.draw(st.integers(1, 3))
        for position, run in enumerate(executor.line):
            if executor.forbidden.get(run.key, True) is None:
                executor.forbidden[run.key] = position >= begun
                if position >= begun:
                    self.pending.append(RunKept(number, run.key))
        executor.forbidden = {key: kept for key, kept in executor.forbidden.items() if kept is not None}
        self.event(Tick())

    @precondition(lambda self: self.ending or self.ending_builtins)
    @rule(data=st.data())
    def grace_ends(self, data: st.DataObject) -> None:
        thing = data.draw(st.sampled_from([*sorted(self.ending), *sorted(self.ending_builtins)]))
        if isinstance(thing, int):
            del self.ending[thing]
            self.event(ExecutorStopped(thing))
        else:
            self.ending_builtins.remove(thing)
            self.event(BuiltinStopped(thing))

    @precondition(lambda self: self.builtins or any(e.line for e in self.executors.values()))
    @rule(data=st.data(), really=rarely)
    def too_much_memory(self, data: st.DataObject, really: bool) -> None:
        lines = [run.key for executor in self.executors.values() for run in executor.line[:2]]
        if really:
            key = data.draw(st.sampled_from([*sorted(self.builtins), *lines]))
            self.event(LimitExceeded(key, "Memory limit of 1 B exceeded"))

    @precondition(lambda self: self.builtins)
    @rule(data=st.data(), good=st.booleans())
    def builtin_ends(self, data: st.DataObject, good: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.builtins)))
        self.event(RunsEnded(0, [self.result(self.builtins.pop(key), good, 0.01)], []))

    def result(self, run: Run, good: bool, duration: float) -> RunEnd:
        live = [given.object for given in run.inputs if given.live]
        if live and (run.key[1] % 5 == 0 or not self.store.issuperset(live)):
            return RunSkipped(run.key)
        if not good:
            return failure_of(run.key)
        if run.members:
            return self.result_of_block(run, duration)
        self.store.update((run.key[0], number) for number in run.outputs)
        return success(run, duration=duration)

    def result_of_block(self, run: Run, duration: float) -> RunResult:
        """How it ends depends on its key."""
        session, number, attempt = run.key
        last = run.members - 1
        end, done = ((None, last + 1), (LATE, last), (STORED, last), (STORED, 0))[(number + attempt) % 4]
        if end == LATE and not done:
            end, done = None, 1
        if end == STORED:
            self.store.add((session, run.outputs[0] + done))
        return block_end(run, done=done, end=end, duration=duration)

    @precondition(lambda self: self.fetches)
    @rule(data=st.data(), good=st.booleans())
    def transfer_ends(self, data: st.DataObject, good: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.fetches)))
        self.fetches.remove(key)
        if good:
            self.store.add(key)
            self.event(ObjectArrived(key, 5))
        else:
            self.event(ObjectUnreachable(key, ["a:1"], "refused"))

    @precondition(lambda self: self.store)
    @rule(data=st.data())
    def value_damaged(self, data: st.DataObject) -> None:
        self.event(StoreFailed(data.draw(st.sampled_from(sorted(self.store))), "damaged"))

    @rule(duration=durations)
    def everything_moves(self, duration: float) -> None:
        self.now += duration
        for number, executor in list(self.executors.items()):
            if not executor.registered:
                executor.registered = True
                self.pending.append(ExecutorReady(number))
            elif executor.line:
                runs = executor.run(len(executor.line))
                if not runs:
                    del self.executors[number]
                    self.pending.append(ExecutorLost(number, None, Failure("task", "Lost connection to executor")))
                    continue
                self.pending.append(RunsEnded(number, [self.result(run, True, duration) for run in runs], []))
        self.pending += [ExecutorStopped(number) for number in self.ending]
        self.pending += [BuiltinStopped(key) for key in sorted(self.ending_builtins)]
        self.ending.clear()
        self.ending_builtins.clear()
        for key in sorted(self.builtins):
            self.pending.append(RunsEnded(0, [self.result(self.builtins.pop(key), True, duration)], []))
        for key in sorted(self.fetches):
            self.store.add(key)
            self.pending.append(ObjectArrived(key, 5))
        self.fetches.clear()
        self.turn()

    # --- the end ---

    def run_to_the_end(self) -> None:
        for _ in range(500):
            self.everything_moves(0.001)
            busy = self.builtins or self.fetches or self.ending or self.ending_builtins
            if not busy and all(e.registered and not e.line for e in self.executors.values()):
                return
        raise AssertionError("the worker does not come to rest")

    def teardown(self) -> None:
        self.run_to_the_end()
        assert self.assigned == {}, "runs that never ended"
        assert self.asked == self.answered, "cancels that were never answered"
        for session in SESSIONS:
            self.end_session(session)
        self.run_to_the_end()
        assert self.core.info() == {"tasks": [], "objects": [], "objects_to_delete": []}
        assert self.store == set()
        assert self.fetches == set()
        pool = self.core._dispatcher.pool
        assert (pool.free_cpus, pool.free_memory, pool.free_gpus) == (pool.cpus, pool.memory, list(pool.gpus))
        assert self.core._dispatcher.queues.queues == {}


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
