"""Progress bars: `session.progress()` and `progress=True`."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from array import array
from types import SimpleNamespace

import pytest

from rain.client import (
    RainException,
    RainTimeoutError,
    TaskCancelled,
    TaskException,
    progress as progress_module,
    progress_bar,
    tasks,
)
from rain.client.progress import stretches
from rain.client.progress_bar import Bar, printable
from rain.common.errors import RainConnectionError
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import Counts, GetCounts, Refused, StopWaiting, Wait, WaitDone
from tests.client.aio_rig import make_client, scripted


class Terminal(io.StringIO):
    def isatty(self):
        return True


def told(seq=0, failure="", objects=0, **counts):
    """An answer: tasks by the name of their state, finished objects."""
    tasks_ = array("I", [counts.get(state.name, 0) for state in TaskState])
    return Counts(seq, tasks_, array("I", [0, objects, 0, 0]), failure)


class Rounds:
    """What the server answers to questions for numbers, one after the other; with the last it ends the wait.

    Attributes:
        end: its answer to the wait, None for none.
        on_last: called with the last answer.
    """

    def __init__(self, server):
        self._usual = server._answer
        self.answers = []
        self.asked = []
        self.waits = []
        self.end = lambda seq: WaitDone(seq, array("I"))
        self.on_last = lambda: None

    def __call__(self, message):
        if isinstance(message, Wait) and self.answers:
            self.waits.append(message)
            return []
        if not isinstance(message, GetCounts):
            return self._usual(message)
        self.asked.append(message)
        is_last = len(self.answers) == 1
        made = self.answers[0] if is_last else self.answers.pop(0)
        answer = Counts(message.seq, made.tasks, made.objects, made.failure)
        if not is_last:
            return [answer]
        self.on_last()
        return [answer] if self.end is None else [answer, *(self.end(wait.seq) for wait in self.waits)]


@pytest.fixture
def rounds(server, monkeypatch):
    made = Rounds(server)
    monkeypatch.setattr(server, "_answer", made)
    monkeypatch.setattr(progress_module, "INTERVAL", 0.001)
    return made


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal()
    seen = SimpleNamespace(stderr=made, stdout=sys.stdout, modules=sys.modules)
    monkeypatch.setattr(progress_bar, "sys", seen)  # pytest sets sys.stderr itself
    return made


def lines(terminal):
    """What was drawn, without repetitions."""
    drawn = [line.strip() for line in re.split(r"[\r\n]|\x1b\[A", terminal.getvalue())]
    return list(dict.fromkeys(line for line in drawn if line))


def seen(terminal):
    """`done/all` and the numbers by state of each line that shows them."""
    found = [re.search(r"(\d+/\d+) \[.*?tasks/s, (.*)\]", line) for line in lines(terminal)]
    return list(dict.fromkeys((one[1], one[2]) for one in found if one))


@pytest.fixture
def submitted(session):
    made = [tasks.concat([]) for _ in range(4)]
    session.submit()
    return made


# --- what is shown ----------------------------------------------------------------------------------------


def test_progress(session, submitted, rounds, terminal):
    rounds.answers = [
        told(ready=4),
        told(running=2, ready=2),
        told(finished=2, running=1, failed=1, failure="Task 'x' (1/12) failed: ValueError: no"),
        told(finished=3, failed=1, failure="Task 'x' (1/12) failed: ValueError: no"),
    ]
    session.progress()
    assert seen(terminal) == [
        ("0/4", "running 2"),
        ("3/4", "finished 2, running 1, failed 1"),
        ("4/4", "finished 3, failed 1"),
    ]
    shown = lines(terminal)
    assert shown.count("Task 'x' (1/12) failed: ValueError: no") == 1
    assert any(line.startswith("Session 1 'test': 100%") for line in shown)
    assert terminal.getvalue().endswith("\n")
    assert all(not asked.firsts for asked in rounds.asked)


def test_the_number_of_tasks_grows(session, submitted, rounds, terminal):
    rounds.answers = [told(finished=1, ready=1), told(finished=1, ready=9), told(finished=10)]
    session.wait_all(progress=True)
    assert [shown for shown, _ in seen(terminal)] == ["1/2", "0/10", "1/10", "10/10"]


def test_single_things(session, submitted, rounds, terminal):
    first, second, _, last = submitted
    rounds.answers = [told(finished=1, ready=2, objects=1, failure="of another task")]
    session.wait([first, second.output, second, last], progress=True)
    assert {(tuple(a.firsts), tuple(a.counts)) for a in rounds.asked} == {((11, 17), (3, 1))}
    assert seen(terminal) == [("2/4", "finished 2")]
    assert "of another task" not in terminal.getvalue()
    assert "4 tasks and objects" in terminal.getvalue()


@pytest.mark.parametrize("thing", [lambda task: task, lambda task: task.output])
def test_one_thing(session, submitted, rounds, terminal, thing):
    rounds.answers = [told(finished=1)]
    one = thing(submitted[0])
    one.wait(progress=True)
    assert rounds.asked[0].firsts == array("I", [one.id.id])
    assert repr(one) in terminal.getvalue()
    assert one.state.name == "finished"


def test_array(session, rounds, terminal):
    made = session.map(abs, range(25_000))
    session.submit()
    rounds.answers = [told(finished=25_000)]
    made.wait(progress=True)
    assert len(rounds.waits) == 3
    assert next((list(a.firsts), list(a.counts)) for a in rounds.asked) == ([made[0].id.id], [25_000])
    assert seen(terminal) == [("25000/25000", "finished 25000")]


def test_nothing_to_wait_for(session, rounds, terminal):
    session.progress()
    session.wait([], progress=True)
    made = session.map(abs, [])
    session.submit()
    made.wait(progress=True)
    assert not rounds.asked
    assert terminal.getvalue() == ""


def test_poll(session, submitted, rounds, terminal):
    rounds.answers = [told(finished=4)]
    with pytest.raises(RainTimeoutError):
        session.wait_all(0, progress=True)
    assert not rounds.asked


def test_without_progress_nothing_is_asked(session, submitted, server, terminal):
    session.wait_all()
    assert not server.all(GetCounts)
    assert terminal.getvalue() == ""


# --- how it ends ------------------------------------------------------------------------------------------


def test_the_session_fails(session, submitted, rounds, server, terminal, task_failure):
    failure = task_failure(task=submitted[1].id.id)
    rounds.answers = [told(running=4), told(finished=1, running=3), told(finished=1, running=3)]
    rounds.on_last = lambda: server.failures.update({session.session_id: failure})
    rounds.end = lambda seq: Refused(seq, failure.to_map())
    with pytest.raises(TaskException) as caught:
        session.progress()
    assert caught.value.task is submitted[1]
    assert f"Task {submitted[1]!r} failed: Traceback: ValueError: no" in terminal.getvalue()
    assert seen(terminal)[-1] == ("2/4", "finished 1, running 3, failed 1")
    assert terminal.getvalue().endswith("\n")


def test_cancelled_is_not_failed(session, submitted, rounds, terminal, task_failure):
    rounds.answers = [told(cancelled=1, finished=3)]
    made = task_failure(task=submitted[1].id.id).to_map() | {"kind": "cancelled"}
    rounds.end = lambda seq: Refused(seq, made)
    with pytest.raises(TaskCancelled):
        submitted[1].wait(progress=True)
    assert seen(terminal) == [("4/4", "finished 3, cancelled 1")]
    assert "failed" not in terminal.getvalue()


def test_timeout(session, submitted, rounds, server, terminal):
    rounds.answers, rounds.end = [told(running=4)], None
    with pytest.raises(RainTimeoutError, match=r"0\.05 s expired while waiting for all tasks"):
        session.wait_all(0.05, progress=True)
    assert next(stop.waiting for stop in server.all(StopWaiting)) == rounds.waits[0].seq
    assert seen(terminal) == [("0/4", "running 4")]
    assert terminal.getvalue().endswith("\n")
    session.submit()
    assert session.active


def test_the_server_answers_no_question(session, submitted, rounds, server, terminal):
    server.silent.add(GetCounts)
    rounds.answers = [told()]
    with pytest.raises(RainTimeoutError, match="waiting for all tasks"):
        session.wait_all(0.05, progress=True)
    assert len(server.all(GetCounts)) == 1
    assert terminal.getvalue() == ""


def test_the_last_question_is_not_answered(session, submitted, rounds, server, terminal, monkeypatch):
    monkeypatch.setattr(progress_module, "PATIENCE", 0.01)
    server.silent.add(GetCounts)
    session.progress()
    assert {task.state.name for task in submitted} == {"finished"}
    assert terminal.getvalue() == ""


def test_interrupt(session, submitted, rounds, server, terminal):
    rounds.answers, rounds.end = [told(running=4), told(finished=1, running=3)], None
    rounds.on_last = lambda: len(rounds.asked) == 5 and os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        session.progress()
    assert rounds.waits[0].seq in [stop.waiting for stop in server.all(StopWaiting)]
    assert terminal.getvalue().endswith("\n")
    rounds.end = lambda seq: WaitDone(seq, array("I"))
    session.progress()


def test_lost_server(session, submitted, rounds, channel, terminal):
    rounds.answers, rounds.end = [told(running=4)], None
    rounds.on_last = lambda: len(rounds.asked) == 3 and channel.hang_up()
    with pytest.raises(RainConnectionError):
        session.progress()
    assert seen(terminal) == [("0/4", "running 4")]
    assert terminal.getvalue().endswith("\n")


# --- where nobody would see it ----------------------------------------------------------------------------


class Broken(Terminal):
    def write(self, text):
        raise BrokenPipeError


def closed():
    made = Terminal()
    made.close()
    return made


@pytest.mark.parametrize("stream", [io.StringIO(), None, closed(), Broken()])
def test_no_terminal(session, submitted, rounds, monkeypatch, stream, capfd):
    monkeypatch.setattr(sys, "stderr", stream)
    rounds.answers = [told(running=4), told(finished=3, failed=1, failure="no")]
    session.progress()
    assert len(rounds.asked) >= 2
    if isinstance(stream, io.StringIO) and not stream.closed:
        assert stream.getvalue() == ""
    assert capfd.readouterr() == ("", "")


def test_without_tqdm(session, submitted, rounds, monkeypatch):
    from rain.client.progress_bar import _tqdm

    _tqdm.cache_clear()
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    for wait in (session.progress, lambda: session.wait(submitted, progress=True)):
        with pytest.raises(RainException, match=r"rain\[progress\]"):
            wait()
    assert not rounds.waits


def test_without_client(graph):
    with pytest.raises(RainException):
        graph.progress()


def test_no_thread_of_tqdm(session, submitted, rounds, terminal):
    import threading

    rounds.answers = [told(finished=4)]
    session.progress()
    assert not [thread for thread in threading.enumerate() if type(thread).__module__.startswith("tqdm")]


# --- asyncio --------------------------------------------------------------------------------------------


async def begun(client):
    session = await client.new_session("test")
    with session.bind_only():
        made = [tasks.concat([]) for _ in range(4)]
    await session.submit()
    return session, made


@pytest.mark.parametrize(
    "wait",
    [
        lambda session, made: session.progress(),
        lambda session, made: session.wait_all(progress=True),
        lambda session, made: session.wait(made, progress=True),
        lambda session, made: made[0].wait(progress=True),
        lambda session, made: made[0].output.wait(progress=True),
    ],
)
async def test_aio(server, rounds, terminal, wait):
    rounds.answers = [told(running=4), told(finished=4)]
    async with scripted(server) as client:
        await wait(*await begun(client))
    assert seen(terminal)[-1] == ("4/4", "finished 4")
    assert terminal.getvalue().endswith("\n")


async def test_aio_cancelled(server, rounds, terminal):
    rounds.answers, rounds.end = [told(running=4)], None
    shown = asyncio.Event()
    rounds.on_last = shown.set
    async with scripted(server) as client:
        session, _ = await begun(client)
        waiting = asyncio.create_task(session.progress())
        await shown.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert rounds.waits[0].seq in [stop.waiting for stop in server.all(StopWaiting)]
        await session.submit()


async def test_aio_lost_server(server, rounds, terminal):
    client, channel = make_client(server)
    rounds.answers, rounds.end = [told(running=4)], None
    rounds.on_last = lambda: len(rounds.asked) == 3 and channel.hang_up()
    session, _ = await begun(client)
    with pytest.raises(RainConnectionError):
        await session.progress()
    assert terminal.getvalue().endswith("\n")
    await client.close()


# --- parts ------------------------------------------------------------------------------------------------


def test_stretches():
    def read(numbers):
        firsts, counts = stretches(numbers)
        return list(zip(firsts, counts, strict=True))

    assert read([]) == []
    assert read(range(0)) == []
    assert read(range(5, 9)) == [(5, 4)]
    assert read([9, 5, 6, 5, 7]) == [(5, 3), (9, 1)]
    assert read(range(10, 16, 2)) == [(10, 1), (12, 1), (14, 1)]


def test_printable():
    assert printable("a\x1b[31mb\nc\tü") == "a [31mb c ü"
    assert printable("x" * 400) == "x" * 297 + "..."


def test_bar_counts_objects(terminal):
    bar = Bar("title")
    column = [1 if status == DataObjectState.removed else 0 for status in DataObjectState]
    bar.show([0] * len(TaskState), [*column])
    bar.close()
    bar.close()
    assert seen(terminal) == [("1/1", "finished 1")]
