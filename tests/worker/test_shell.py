"""The shell between a scripted core and recording parts: events in, actions out, nothing late, nothing hanging."""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rain.common.failure import Failure
from rain.protocol.messages import (
    AssignTasks,
    EndSession,
    Heartbeat,
    PeersProbed,
    ProbePeers,
    ReadTaskLog,
    StopWorker,
    TaskLogRead,
    TasksReturned,
    WorkerHello,
    WorkerInfo,
    WorkerMonitoring,
    WorkerWelcome,
)
from rain.testing.simloop import SimLoop
from rain.worker.core.actions import (
    CallExecutor,
    DeleteValues,
    DropCached,
    Exit,
    FetchObject,
    ForbidRun,
    KeepResult,
    KillExecutor,
    LookUp,
    Probe,
    ReadLog,
    Run,
    RunBuiltin,
    StartExecutor,
    StopBuiltin,
    StopFetch,
    StopLookUp,
    StoreValue,
    TellServer,
    WorkerAction,
)
from rain.worker.core.events import (
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    LookedUp,
    ObjectArrived,
    RunResult,
    RunsEnded,
    ServerLost,
    ServerSaid,
    StoreFailed,
    Tick,
    WorkerEvent,
)
from rain.worker.parts import Parts
from rain.worker.shell import (
    FIRST_LOOK_SECONDS,
    HEARTBEAT_INTERVAL,
    MONITORING_INTERVAL,
    SILENCE_LIMIT,
    TICK_INTERVAL,
    WorkerShell,
)
from rain.worker.store import StoreError

HELLO = WorkerHello("127.0.0.1:1", {"cpus": 1}, "host", 1, "3.11")
WELCOME = WorkerWelcome(1, "127.0.0.1:1")
MESSAGE = TasksReturned(1, array("I", [20]), array("I", [0]))


class ScriptedCore:
    """Returns prepared actions for an event of a type."""

    def __init__(self) -> None:
        self.batches: list[list[WorkerEvent]] = []
        self.answers: dict[type, list[WorkerAction]] = {}
        self.error: Exception | None = None
        self.deadline: float | None = None

    def handle(self, events: list[WorkerEvent], now: float) -> list[WorkerAction]:
        self.batches.append(events)
        if self.error is not None:
            raise self.error
        return [action for event in events for action in self.answers.pop(type(event), [])]

    def next_deadline(self) -> float | None:
        return self.deadline

    @property
    def seen(self) -> list[WorkerEvent]:
        return [event for batch in self.batches for event in batch if not isinstance(event, Tick)]


class FakeChannel:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.aborted = False

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def send_all(self, messages: list[Any]) -> None:
        self.sent += messages

    def abort(self) -> None:
        self.aborted = True


class Recorder:
    """All parts and the supervisor in one: writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.hooks: dict[str, Callable[[], object]] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(*args: object) -> None:
            self.calls.append((name, *args))
            if name in self.hooks:
                self.hooks[name]()

        return note


class Store(Recorder):
    def put(self, key: tuple[int, int], value: bytes) -> None:
        if value == b"too much":
            raise StoreError("no room", path="/x")
        self.calls.append(("put", key, value))

    def delete(self, keys: Iterable[tuple[int, int]]) -> None:
        self.calls.append(("delete", list(keys)))


class Inquiries:
    """Answers logs at once; of the others keeps whom to answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[Any], None]]] = []
        self.forgotten = 0

    def read_log(self, request: ReadTaskLog) -> TaskLogRead:
        return TaskLogRead(request.seq, b"printed", request.offset, 7, False, "")

    def probe(self, request: ProbePeers, answer: Callable[[PeersProbed], None]) -> None:
        self.asked.append(("probe", answer))

    def gather(self, answer: Callable[[WorkerMonitoring], None]) -> None:
        self.asked.append(("gather", answer))

    def forget(self) -> None:
        self.forgotten += 1


class Bench:
    def __init__(self) -> None:
        self.loop = SimLoop(seed=5)
        self.core = ScriptedCore()
        self.parts = Recorder()
        self.store = Store()
        self.store.calls = self.parts.calls
        self.supervisor = Recorder()
        self.channel = FakeChannel()
        self.shell = WorkerShell(self.core, loop=self.loop, clock=self.loop.time, supervisor=self.supervisor)
        self.inquiries = Inquiries()
        self.results = Recorder()
        self.shell.equip(Parts(self.store, self.parts, self.parts, self.parts, self.results, self.inquiries))

    def run(self, seconds: float = 0.0) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds + 0.001))

    def attach(self) -> None:
        self.shell.attach(self.channel, HELLO)
        self.shell.messages_received(self.channel, [WELCOME])
        self.run()

    def obey(self, *actions: WorkerAction) -> None:
        """Let the core return these for a message of the server."""
        self.core.answers[ServerSaid] = list(actions)
        self.shell.messages_received(self.channel, [StopWorker()])
        self.run()


@pytest.fixture
def bench() -> Any:
    bench = Bench()
    yield bench
    bench.shell.close()
    bench.loop.shutdown()


def run_of(task: int, *outputs: int) -> Run:
    return Run((1, task, 0), 0, {}, None, (), outputs or (task,))


def result_of(task: int) -> RunResult:
    return RunResult((1, task, 0), 0.0, 0.0, None, [(1, None, b"x")])


def test_registration(bench: Bench) -> None:
    bench.attach()
    assert bench.channel.sent == [HELLO]
    assert bench.core.seen == [ServerSaid(WELCOME)]
    assert bench.supervisor.calls == [("registered", WELCOME)]


def test_events_of_one_turn_are_one_batch(bench: Bench) -> None:
    bench.attach()
    bench.core.batches.clear()
    arrived = ObjectArrived((1, 10), 5)
    bench.shell.report(arrived)
    bench.shell.messages_received(bench.channel, [Heartbeat(), StopWorker()])
    assert bench.core.batches == []
    bench.run()
    assert bench.core.batches == [[arrived, ServerSaid(StopWorker())]]


def test_what_the_server_says_is_handled_at_once_when_nothing_else_goes_on(bench: Bench) -> None:
    bench.attach()
    bench.run()
    bench.core.batches.clear()
    bench.shell.messages_received(bench.channel, [StopWorker()])
    assert bench.core.batches == [[ServerSaid(StopWorker())]]
    for _ in range(2):
        bench.shell.messages_received(bench.channel, [StopWorker()])
    assert len(bench.core.batches) == 1
    bench.run()
    assert bench.core.batches[1] == [ServerSaid(StopWorker())] * 2


def test_what_an_executor_says_is_handled_at_once_when_nothing_else_goes_on(bench: Bench) -> None:
    bench.attach()
    bench.run()
    bench.core.batches.clear()
    one, other = ObjectArrived((1, 10), 5), ObjectArrived((1, 11), 5)

    def read() -> None:
        bench.shell.report(one)
        bench.shell.report(other)
        assert bench.core.batches == []

    bench.shell.hear(read)
    assert bench.core.batches == [[one, other]]
    bench.shell.hear(lambda: bench.shell.report(one))
    assert len(bench.core.batches) == 1
    bench.run()
    assert bench.core.batches[1:] == [[one]]


def test_what_was_reported_before_reading_failed_is_not_lost(bench: Bench) -> None:
    bench.attach()
    bench.run()
    bench.core.batches.clear()
    arrived = ObjectArrived((1, 10), 5)

    def read() -> None:
        bench.shell.report(arrived)
        raise KeyError("the reader's")

    with pytest.raises(KeyError, match="the reader's"):
        bench.shell.hear(read)
    bench.run()
    assert bench.core.batches == [[arrived]]


def test_actions_are_performed_in_order(bench: Bench) -> None:
    bench.attach()
    fetch = FetchObject((1, 11), 5, False, ["a:1"])
    bench.obey(
        StartExecutor(1, "py", ()),
        StoreValue((1, 10), b"v"),
        CallExecutor(1, [run_of(20)]),
        DropCached(1, [(1, 9)]),
        RunBuiltin(run_of(21)),
        StopBuiltin((1, 21, 0), 2.0),
        fetch,
        StopFetch((1, 11)),
        DeleteValues([(1, 8)]),
        ForbidRun(1, (1, 20, 0)),
        KillExecutor(1, 2.0),
        TellServer(MESSAGE),
    )
    assert bench.parts.calls == [
        ("start", 1, "py", ()),
        ("put", (1, 10), b"v"),
        ("call", 1, [run_of(20)]),
        ("drop_cached", 1, [(1, 9)]),
        ("run", run_of(21)),
        ("stop", (1, 21, 0), 2.0),
        ("fetch", fetch),
        ("stop", (1, 11)),
        ("delete", [(1, 8)]),
        ("forbid", 1, (1, 20, 0)),
        ("kill", 1, 2.0),
    ]
    assert bench.channel.sent[-1] is MESSAGE


def test_a_value_without_room_is_reported(bench: Bench) -> None:
    bench.attach()
    bench.obey(StoreValue((1, 10), b"too much"))
    bench.run()
    assert bench.core.seen[-1] == StoreFailed((1, 10), "no room", refused=True)


def test_late_reports_of_a_killed_executor_are_dropped_with_their_values(bench: Bench) -> None:
    bench.attach()
    bench.obey(StartExecutor(1, "py", ()), CallExecutor(1, [run_of(20, 20, 30), run_of(21), run_of(22)]))
    bench.parts.hooks["drop_cached"] = lambda: bench.shell.report(RunsEnded(1, [result_of(20), result_of(21)], []))
    seen = len(bench.core.seen)
    bench.obey(DropCached(1, []), KillExecutor(1))  # the report comes in the turn that kills
    assert bench.parts.calls[-2:] == [("kill", 1, 0.0), ("delete", [(1, 20), (1, 30), (1, 21)])]
    for late in (ExecutorReady(1), RunsEnded(1, [result_of(22)], []), ExecutorLost(1, None, Failure("task", "x"))):
        bench.shell.report(late)
    bench.run()
    assert bench.core.seen[seen:] == [ServerSaid(StopWorker())]


def test_the_end_of_an_executor_that_ended_before_its_kill_is_heard(bench: Bench) -> None:
    bench.attach()
    bench.obey(StartExecutor(1, "py", ()))
    bench.parts.hooks["kill"] = lambda: bench.shell.report(ExecutorStopped(1))
    bench.obey(KillExecutor(1, 2.0))
    assert bench.core.seen[-1] == ExecutorStopped(1)


def test_the_core_is_woken_at_its_deadline(bench: Bench) -> None:
    bench.attach()
    bench.core.deadline = bench.loop.time() + 0.2
    bench.obey()
    bench.core.deadline = bench.loop.time() + 0.1
    bench.obey()
    bench.core.batches.clear()
    bench.run(0.097)
    assert bench.core.batches == []
    bench.core.deadline = None
    bench.run(0.01)
    assert bench.core.batches == [[Tick()]]
    bench.run(0.2)
    assert len(bench.core.batches) == 1


def test_a_deadline_that_was_put_off_or_given_up(bench: Bench) -> None:
    bench.attach()
    start = bench.loop.time()
    for deadline in (start + 0.1, None, start + 0.2):
        bench.core.deadline = deadline
        bench.obey()
    bench.core.batches.clear()
    bench.run(0.19)
    assert bench.core.batches == []
    bench.run(0.02)
    assert [Tick()] in bench.core.batches
    bench.core.deadline = bench.loop.time() + 0.1
    bench.obey()
    bench.core.deadline = None
    bench.obey()
    bench.core.batches.clear()
    bench.run(0.15)
    assert bench.core.batches == []


def test_an_executor_that_ended_itself_is_heard_once(bench: Bench) -> None:
    bench.attach()
    bench.obey(StartExecutor(1, "py", ()))
    lost = ExecutorLost(1, None, Failure("task", "x"))
    bench.shell.report(ExecutorReady(1))
    bench.shell.report(lost)
    bench.run()
    assert bench.core.seen[-2:] == [ExecutorReady(1), lost]
    bench.shell.report(lost)
    bench.run()
    assert bench.core.seen.count(lost) == 1


def test_an_executor_that_is_ready_and_lost_in_one_turn_is_not_called(bench: Bench) -> None:
    """As after a pause of the worker, which then reads of both at once."""
    bench.attach()
    bench.obey(StartExecutor(1, "py", ()))
    bench.core.answers[ExecutorReady] = [CallExecutor(1, [run_of(20)])]
    bench.shell.report(ExecutorReady(1))
    bench.shell.report(ExecutorLost(1, None, Failure("task", "x")))
    bench.run()
    assert [call[0] for call in bench.parts.calls] == ["start"]
    assert bench.supervisor.calls == [("registered", WELCOME)]


def test_a_built_in_that_ends_while_it_is_stopped_is_not_heard(bench: Bench) -> None:
    bench.attach()
    bench.parts.hooks["run"] = lambda: bench.shell.report(RunsEnded(0, [result_of(21)], []))
    bench.obey(RunBuiltin(run_of(21)), StopBuiltin((1, 21, 0)), RunBuiltin(run_of(21)))
    assert bench.parts.calls == [
        ("run", run_of(21)),
        ("stop", (1, 21, 0), 0.0),
        ("delete", [(1, 21)]),
        ("run", run_of(21)),
    ]
    assert bench.core.seen.count(RunsEnded(0, [result_of(21)], [])) == 1


def test_a_transfer_that_ends_while_it_is_stopped_is_not_heard(bench: Bench) -> None:
    bench.attach()
    bench.parts.hooks["fetch"] = lambda: bench.shell.report(ObjectArrived((1, 11), 5))
    bench.obey(FetchObject((1, 11), 5, False, []), StopFetch((1, 11)))
    assert bench.parts.calls[-2:] == [("stop", (1, 11)), ("delete", [(1, 11)])]
    assert ObjectArrived((1, 11), 5) not in bench.core.seen


def test_ticks_and_heartbeats_do_not_drift(bench: Bench) -> None:
    bench.attach()
    start = bench.loop.time()
    while bench.loop.time() - start < 60:
        bench.run(1.0)
        bench.shell.messages_received(bench.channel, [Heartbeat()])
    ticks = sum(isinstance(event, Tick) for batch in bench.core.batches for event in batch)
    assert abs(ticks - 60 / TICK_INTERVAL) <= 2
    assert bench.channel.sent.count(Heartbeat()) == 60 / HEARTBEAT_INTERVAL
    assert not bench.channel.aborted


def test_a_silent_server_is_lost_in_time(bench: Bench) -> None:
    bench.attach()
    bench.run(SILENCE_LIMIT - 1)
    assert ServerLost() not in bench.core.seen
    bench.run(2)
    assert bench.channel.aborted
    assert bench.core.seen[-1] == ServerLost()
    assert bench.supervisor.calls[-1] == ("server_lost", "no sign of life for 15 s")
    bench.shell.channel_closed(bench.channel, "closed by this side")
    bench.run(20)
    assert bench.core.seen.count(ServerLost()) == 1


def test_a_long_message_that_is_coming_is_a_sign_of_life(bench: Bench) -> None:
    bench.attach()
    for _ in range(4):
        bench.run(SILENCE_LIMIT - 1)
        bench.shell.messages_received(bench.channel, [])
    assert not bench.channel.aborted
    assert ServerLost() not in bench.core.seen


def test_the_supervisor_learns_of_the_loss_after_the_core(bench: Bench) -> None:
    bench.attach()
    bench.core.answers[ServerLost] = [DeleteValues([(1, 10)]), TellServer(MESSAGE)]
    bench.shell.channel_closed(bench.channel, "cable")
    assert bench.supervisor.calls == [("registered", WELCOME)]
    bench.run()
    assert bench.parts.calls == [("delete", [(1, 10)])]
    assert bench.supervisor.calls[-1] == ("server_lost", "cable")
    sent = list(bench.channel.sent)
    bench.run(20)
    assert bench.channel.sent == sent
    bench.shell.messages_received(bench.channel, [StopWorker()])  # the old channel does not count any more
    bench.run()
    assert bench.core.seen[-1] == ServerLost()


def test_executors_forget_sessions_that_ended(bench: Bench) -> None:
    bench.attach()
    columns: dict[str, Any] = {name: [] for name in AssignTasks.__dataclass_fields__}
    assigned = [AssignTasks(**{**columns, "session": session}) for session in (1, 2, 3)]
    bench.shell.messages_received(bench.channel, [*assigned, EndSession(2), EndSession(7)])
    bench.run()
    assert bench.parts.calls == [("end_session", 2)]
    bench.shell.channel_closed(bench.channel, "cable")
    bench.run()
    assert bench.parts.calls[1:] == [("end_session", 1), ("end_session", 3)]


def test_registration_over_a_second_channel(bench: Bench) -> None:
    bench.attach()
    bench.shell.channel_closed(bench.channel, "cable")
    bench.run()
    bench.channel = FakeChannel()
    bench.attach()
    assert bench.channel.sent == [HELLO]
    assert bench.core.seen == [ServerSaid(WELCOME), ServerLost(), ServerSaid(WELCOME)]


def test_a_channel_closed_before_it_is_attached(bench: Bench) -> None:
    bench.shell.channel_closed(bench.channel, "refused")
    bench.shell.attach(bench.channel, HELLO)
    bench.run()
    assert bench.supervisor.calls == [("server_lost", "refused")]
    assert bench.channel.sent == []


def test_exit_ends_it(bench: Bench) -> None:
    bench.attach()
    bench.obey(Exit(0), TellServer(MESSAGE))
    assert bench.supervisor.calls[-1] == ("leave", 0)
    assert bench.channel.sent == [HELLO]
    seen = len(bench.core.batches)
    bench.shell.report(Tick())
    bench.run(20)
    assert len(bench.core.batches) == seen


@pytest.mark.parametrize("where", ["core", "action"])
def test_an_internal_error_ends_the_worker_with_its_story(
    bench: Bench, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.attach()
    if where == "core":
        bench.core.error = KeyError("boom")
    else:

        def fail() -> None:
            raise KeyError("boom")

        bench.parts.hooks["kill"] = fail
    with caplog.at_level(logging.CRITICAL):
        bench.obey(StartExecutor(1, "py", ()), KillExecutor(1))
    assert bench.supervisor.calls[-1] == ("leave", 1)
    assert "error in Rain" in caplog.text
    assert "ServerSaid(message=StopWorker())" in caplog.text
    assert "boom" in caplog.text


def test_what_is_told_for_a_dump_is_completed(bench: Bench) -> None:
    parts = bench.parts
    complete: Callable[[dict[str, Any]], dict[str, Any]] = lambda info: {**info, "log": ["line"]}  # noqa: E731
    bench.shell.equip(Parts(bench.store, parts, parts, parts, bench.results, bench.inquiries, complete))
    bench.attach()
    usual, full = WorkerInfo(1, {"tasks": []}), WorkerInfo(2, {"state": {}})
    bench.obey(TellServer(usual), TellServer(full))
    assert bench.channel.sent[1:] == [usual, WorkerInfo(2, {"state": {}, "log": ["line"]})]


def test_results_are_looked_up_and_kept(bench: Bench) -> None:
    bench.attach()
    run = run_of(20)
    bench.obey(LookUp(run), KeepResult(run.key, [(5, None)]))
    assert bench.results.calls == [("look_up", run), ("keep", run.key, [(5, None)])]


def test_a_result_found_too_late_is_deleted(bench: Bench) -> None:
    bench.attach()
    run, other = run_of(20), run_of(30)
    bench.obey(LookUp(run), LookUp(other))
    bench.core.answers[StopWorker] = []
    found = RunResult(run.key, 1.0, 0.0, None, [(5, None, None)] * len(run.outputs))
    bench.shell.report(LookedUp(run.key, found))
    bench.shell.report(LookedUp(other.key, None))
    bench.shell._stop_look_up(StopLookUp(run.key))
    bench.shell._stop_look_up(StopLookUp(other.key))
    bench.core.batches.clear()
    bench.run()
    assert bench.core.seen == []
    assert ("delete", [(run.key[0], number) for number in run.outputs]) in bench.parts.calls
    assert [call[0] for call in bench.parts.calls].count("delete") == 1
    assert bench.results.calls[2:] == [("stop", run.key), ("stop", other.key)]


READ = ReadTaskLog(7, 1, 20, "stdout", 3, 100)
PROBE = ProbePeers(8, ["127.0.0.1:1"])


def test_questions_are_answered_over_the_connection(bench: Bench) -> None:
    bench.attach()
    bench.obey(ReadLog(READ), Probe(PROBE))
    assert bench.channel.sent[1:] == [TaskLogRead(7, b"printed", 3, 7, False, "")]
    ((kind, answer),) = bench.inquiries.asked
    assert kind == "probe"
    answer(PeersProbed(8, [""]))
    assert bench.channel.sent[2:] == [PeersProbed(8, [""])]


def test_a_late_answer_does_not_reach_another_server(bench: Bench) -> None:
    bench.attach()
    bench.obey(Probe(PROBE))
    _, answer = bench.inquiries.asked[-1]
    bench.shell.channel_closed(bench.channel, "lost")
    bench.run()
    answer(PeersProbed(8, [""]))
    assert bench.inquiries.forgotten == 1
    again = FakeChannel()
    bench.shell.attach(again, HELLO)
    answer(PeersProbed(8, [""]))
    assert again.sent == [HELLO]


def test_the_machine_is_looked_at_after_the_registration_and_from_time_to_time(bench: Bench) -> None:
    bench.shell.attach(bench.channel, HELLO)
    assert bench.inquiries.asked == []
    bench.shell.messages_received(bench.channel, [WELCOME])
    assert bench.inquiries.asked == []
    bench.run(FIRST_LOOK_SECONDS + 0.1)
    ((kind, answer),) = bench.inquiries.asked
    assert kind == "gather"
    answer(WorkerMonitoring({"mem_usage": 1.0}))
    assert bench.channel.sent[-1] == WorkerMonitoring({"mem_usage": 1.0})
    bench.run(2 * MONITORING_INTERVAL)
    assert len(bench.inquiries.asked) == 3
    bench.shell.close()
