"""Who raises what: one row of the table per test, and the text of a TaskException."""

from __future__ import annotations

import os
import pickle

import pytest

from rain.client import (
    DataObject,
    Input,
    InputDir,
    InvalidRequestError,
    Output,
    OutputDir,
    RainConnectionError,
    RainException,
    RainWarning,
    Remote,
    SessionException,
    Task,
    TaskCancelled,
    TaskException,
    blob,
    remote,
    tasks,
)
from rain.client.failures import to_exception
from rain.client.session import Session
from rain.common.failure import Failure


def submitted(session):
    made = blob("x")
    made.keep()
    session.submit()
    return made


def closed():
    session = Session(None, 7)
    session.close()
    return session


@remote
def function(ctx, a, b=1):
    return b""


class Slow:
    """Takes longer to pickle than allowed, by a clock that jumps."""

    def __init__(self, clock):
        self.clock = clock

    def __reduce__(self):
        self.clock[0] += 2.0
        return (int, ())


ROWS = [
    (lambda s: blob("x", session=closed()), SessionException, "Session is closed"),
    (lambda s: Task("a/b", session=closed()), SessionException, "Session is closed"),
    (lambda s: function(1, session=closed()), SessionException, "Session is closed"),
    (lambda s: closed().__enter__(), SessionException, "Session is closed"),
    (lambda s: closed().bind_only().__enter__(), SessionException, "Session is closed"),
    (lambda s: submitted(s).keep(), RainException, "before submit"),
    (lambda s: blob("x").fetch(), RainException, "not kept"),
    (lambda s: (made := blob("x"), made.keep(), made.fetch()), RainException, "not submitted"),
    (lambda s: s.wait(tasks.concat([])), RainException, "not submitted"),
    (lambda s: s.wait_some([blob("x")]), RainException, "not submitted"),
    (lambda s: s.update(blob("x")), RainException, "not submitted"),
    (lambda s: blob("x").wait(), RainException, "not submitted"),
    (lambda s: tasks.concat([]).update(), RainException, "not submitted"),
    (lambda s: blob("x").unkeep(), RainException, "not kept"),
    (lambda s: Task("a/b").output, RainException, "0 outputs"),
    (lambda s: Task("a/b", outputs=2).output, RainException, "2 outputs"),
    (lambda s: tasks.concat([Task("a/b", outputs=2)]), RainException, "2 outputs"),
    (lambda s: function([Task("a/b")]), RainException, "0 outputs"),
    (lambda s: tasks.concat(["text"]), RainException, r"blob\(\) or pickled\(\)"),
    (lambda s: tasks.concat("text"), RainException, r"blob\(\) or pickled\(\)"),
    (lambda s: tasks.Sleep(b"bytes", 1), RainException, r"blob\(\) or pickled\(\)"),
    (lambda s: Task("a/b", inputs=[3]), RainException, r"blob\(\) or pickled\(\)"),
    (lambda s: Task("a/b", inputs=blob("x")), RainException, "sequence"),
    (lambda s: s.wait([3]), TypeError, "Tasks and data objects"),
    (lambda s: s.wait(3), TypeError, "Tasks and data objects"),
    (lambda s: s.wait_some([], ["x"]), TypeError, "Tasks and data objects"),
    (lambda s: s.update([None]), TypeError, "Tasks and data objects"),
    (lambda s: s.unkeep([tasks.concat([])]), TypeError, "takes data objects"),
    (lambda s: Task(), ValueError, "no task type"),
    (lambda s: Task([blob("x")], 1), ValueError, "no task type"),
    (lambda s: Task("a/b", outputs=[3]), TypeError, "output"),
    (lambda s: Task("a/b", outputs="label"), TypeError, "sequence"),
    (lambda s: blob("x", encode="wrong"), ValueError, "content type"),
    (lambda s: blob(b"x", content_type="wrong"), ValueError, "content type"),
    (lambda s: Output(content_type="wrong"), ValueError, "content type"),
    (lambda s: Output(encode="wrong"), ValueError, "content type"),
    (lambda s: Input(content_type="wrong"), ValueError, "content type"),
    (lambda s: blob("x", encode="protobuf"), RainException, "codec"),
    (lambda s: blob(3, encode="text"), RainException, "str"),
    (lambda s: blob(3), RainException, "encode"),
    (lambda s: blob(None), RainException, "encode"),
    (lambda s: blob([1], encode="json", content_type="json"), RainException, "not both"),
    (lambda s: blob("x", content_type="text"), RainException, "content_type"),
    (lambda s: blob(3, content_type="json"), RainException, "bytes or str"),
    (lambda s: Output(encode="json", content_type="pickle"), ValueError, "differs"),
    (lambda s: Output(mode="stream"), AssertionError, "mode"),
    (lambda s: OutputDir(mode="stream"), AssertionError, "mode"),
    (lambda s: Input(3), TypeError, "label"),
    (lambda s: InputDir("a", dataobj=blob("x")), TypeError, "directory"),
    (lambda s: Input("a", dataobj=OutputDir("d").create_data_object()), TypeError, "blob"),
    (lambda s: Task("a/b", outputs=["a", Output("a")]), KeyError, "Duplicate label"),
    (lambda s: Task("a/b", inputs=[("a", blob("x")), ("a", blob("y"))]), KeyError, "Duplicate label"),
    (lambda s: blob("x").expect_dir(), TypeError, "directory"),
    (lambda s: Output().expect_dir(), TypeError, "directory"),
    (lambda s: OutputDir().expect_blob(), TypeError, "blob"),
    (lambda s: tasks.concat([OutputDir("d").create_data_object()]), TypeError, "blob"),
    (lambda s: remote(3), RainException, "function"),
    (lambda s: remote(outputs=2)("text"), RainException, "function"),
    (lambda s: Remote(None), RainException, "function"),
    (lambda s: function(), TypeError, "required argument: 'a'"),
    (lambda s: function(1, 2, 3), TypeError, "too many positional"),
    (lambda s: function(1, wrong=2), TypeError, "wrong"),
    (lambda s: function([b"x" * 300_000]), RainWarning, r"^Pickled object a length"),
    (lambda s: function(b"x" * 300_000), RainWarning, r"^Pickled object a length"),
    (lambda s: function("\u017e" * 200_000), RainWarning, r"^Pickled object a length"),
    (lambda s: function(1, b="x" * 300_000), RainWarning, r"^Pickled object b length"),
    (lambda s: remote(lambda ctx, table="x" * 300_000: b"")(), RainWarning, r"^Pickled object"),
]


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_row(session, row):
    call, error, text = ROWS[row]
    with pytest.raises(error, match=text):
        call(session)


@pytest.mark.parametrize("row", [row for row, (_, error, _) in enumerate(ROWS) if error is not SessionException])
def test_no_id_is_consumed_by_the_last_call(graph, row):
    call, error, _ = ROWS[row]
    with pytest.raises((RainException, error)):
        call(graph)
    things = graph._things
    assert [thing.id.id for thing in things] == list(range(10, 10 + len(things)))
    assert all(isinstance(thing, (Task, DataObject)) for thing in things)
    assert blob("x").id.id == 10 + len(things)


def test_slow_pickling(graph, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("rain.client.pycode.time.perf_counter", lambda: clock[0])
    with pytest.raises(RainWarning, match=r"^Pickled object a length \d+ took 2\.0 s"):
        function(Slow(clock))


def test_calls_on_a_closed_client(client, session):
    client.close()
    for call in (client.new_session, client.get_server_info):
        with pytest.raises(RainException, match="is closed"):
            call()
    with pytest.raises(SessionException):
        session.submit()


def test_calls_on_an_inherited_client(client, session, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    for call in (client.new_session, client.get_server_info, session.wait_all):
        with pytest.raises(RainException, match="inherited by fork"):
            call()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("task", TaskException),
        ("cancelled", TaskCancelled),
        ("session", SessionException),
        ("invalid", InvalidRequestError),
        ("connection", RainConnectionError),
        ("internal", RainException),
    ],
)
def test_kinds_of_failures(kind, error):
    raised = to_exception(Failure(kind, "why"), None)
    assert type(raised) is error
    assert "why" in str(raised)


def test_text_of_a_task_exception(graph, task_failure):
    task = Task("a/b", name="n")
    text = str(to_exception(task_failure(task=10), task))
    lines = text.splitlines()
    assert lines[:4] == [
        "Task <Task id=1/10 a/b 'n'> failed",
        "Message: Traceback: ValueError: no",
        "Worker: 127.0.0.1:5000, run 2",
        "Task created at:",
    ]
    assert lines[-2:] == ["Debug:", "line one"]
    assert "test_4_errors.py" in text


def test_text_without_worker_and_debug(graph, task_failure):
    text = str(to_exception(task_failure(worker="", debug=""), None))
    assert text == "Task <Task id=1/12> failed\nMessage: Traceback: ValueError: no"


def test_fields_of_a_task_exception(graph, task_failure):
    task = Task("a/b")
    error = to_exception(task_failure(exception=pickle.dumps(ValueError("no"))), task)
    assert error.task is task
    assert (error.task_id, error.message, error.debug) == ((1, 12), "Traceback: ValueError: no", "line one")
    assert (error.worker, error.attempts) == ("127.0.0.1:5000", 2)
    assert repr(error.cause) == "ValueError('no')"
    assert to_exception(task_failure(), None).cause is None
