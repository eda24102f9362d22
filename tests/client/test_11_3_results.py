"""result(), done() and exception()."""

from __future__ import annotations

import pytest

from rain.client import OutputDir, RainException, RainTimeoutError, Remote, Task, TaskException, blob, pickled, tasks
from rain.common.content_type import encode_value
from rain.protocol.messages import FetchObjects, GetInfos, SubmitCommit


def test_auto_submit(session, server):
    task = Remote(lambda ctx: None)()
    server.values[task.output.id.id] = b"raw"
    assert task.result() == b"raw"
    assert task.output.is_kept()
    assert len(server.all(SubmitCommit)) == 1
    assert task.result() == b"raw"
    assert len(server.all(SubmitCommit)) == 1
    assert task.info is None


def test_values_are_decoded(session, server, pack):
    task = Remote(lambda ctx: None)()
    server.values[task.output.id.id] = encode_value([1], "pickle")
    server.infos[task.output.id.id] = pack({"content_type": "pickle"})
    assert task.result() == [1]
    assert task.output.result() == [1]


def test_constants(session):
    assert blob("text").result() == "text"
    assert pickled({"a": 1}).result() == {"a": 1}
    assert blob(b"raw").result() == b"raw"
    assert blob(b"raw", content_type="user/x").result() == b"raw"


def test_no_and_several_outputs(session, server):
    assert Task("a/b").result() is None
    task = Task("a/b", outputs=2)
    server.values.update({output.id.id: b"%d" % output.id.id for output in task.outputs})
    assert task.result() == [b"%d" % output.id.id for output in task.outputs]
    assert len(server.all(FetchObjects)) == 1


def test_directory(session, server):
    from rain.common.fs import empty_directory

    task = Task("a/b", outputs=[OutputDir("d")])
    server.values[task.output.id.id] = empty_directory()
    assert task.result().data_type.value == "dir"


def test_submitted_and_not_kept(session):
    task = tasks.concat([])
    session.submit()
    for thing in (task, task.output):
        with pytest.raises(RainException, match=r"call keep\(\) before submit"):
            thing.result()


def test_failure(session, server, task_failure):
    task = tasks.concat([])
    task.keep_outputs()
    session.submit()
    server.failures[1] = task_failure(task=task.id.id)
    with pytest.raises(TaskException):
        task.result()
    assert isinstance(task.exception(), TaskException)
    assert task.exception().task is task
    assert isinstance(task.output.exception(), TaskException)
    assert task.done()


def test_timeout(session, server):
    task = tasks.concat([])
    server.silent = {FetchObjects}
    with pytest.raises(RainTimeoutError):
        task.result(timeout=0.01)
    with pytest.raises(RainTimeoutError):
        task.exception(timeout=0)


def test_done(session, server):
    task = tasks.concat([])
    assert not task.done()
    assert not task.output.done()
    assert not server.all(GetInfos)
    session.submit()
    server.states = {task.id.id: 3, task.output.id.id: 0}
    assert not task.done()
    assert not task.output.done()
    server.states = {task.id.id: 4, task.output.id.id: 2}
    assert task.done()
    assert task.output.done()
    assert task.state == 0
    assert task.exception() is None or isinstance(task.exception(), RainException)


def test_exception_of_a_good_task(session):
    assert Remote(lambda ctx: None)().exception() is None


def test_lost_server(session, channel):
    task = tasks.concat([])
    session.submit()
    channel.hang_up()
    with pytest.raises(ConnectionError):
        task.done()
