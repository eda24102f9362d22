"""The session stack: rules 1 to 9."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from rain.client import RainException, SessionException, Task, blob, session as session_module
from rain.client.active import clear_default
from rain.client.session import Session, get_active_session, global_session_pop, global_session_push


@pytest.fixture
def sessions():
    made = [Session(None, number) for number in (1, 2, 3)]
    yield made
    for session in made:
        session.close()


@pytest.fixture(autouse=True)
def _no_session_left():
    yield
    with pytest.raises(RainException, match="No active session"):
        get_active_session()


def in_thread(function):
    """Run in a new thread; what it returns or raises."""
    result = []

    def run():
        try:
            result.append(function())
        except RainException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)
    return result[0]


def test_no_session():
    with pytest.raises(RainException, match="No active session"):
        blob("x")
    with pytest.raises(RainException, match="No active session"):
        Task("a/b")


def test_entry_and_exit(sessions):
    a = sessions[0]
    with a.bind_only() as bound:
        assert bound is a
        assert get_active_session() is a
        assert blob("x").session is a
    assert a.active


def test_with_closes(sessions):
    a = sessions[0]
    with a as entered:
        assert entered is a
        assert get_active_session() is a
    assert not a.active


def test_with_closes_on_exception(sessions):
    a = sessions[0]
    with pytest.raises(KeyError), a:
        raise KeyError
    assert not a.active


def test_left_in_another_context(sessions):
    a, b, _ = sessions
    with b.bind_only():
        entered = contextvars.copy_context()
        entered.run(a.__enter__)
        a.__exit__(None, None, None)
        assert get_active_session() is b
        assert not a.active
        assert entered.run(get_active_session) is a


def test_exit_removes_the_topmost_entry_of_this_session(sessions):
    a, b, _ = sessions
    binder = a.bind_only()
    binder.__enter__()
    global_session_push(b)
    binder.__exit__(None, None, None)
    assert get_active_session() is b
    assert global_session_pop() is b


def test_nested_sessions(sessions):
    a, b, _ = sessions
    with a.bind_only():
        with b.bind_only():
            assert get_active_session() is b
        assert get_active_session() is a


def test_same_session_nested_with_closes(sessions):
    a = sessions[0]
    with a:
        with a:
            pass
        assert not a.active
        assert get_active_session() is a
        with pytest.raises(SessionException, match="Session is closed"):
            blob("x")
        with pytest.raises(SessionException, match="Session is closed"):
            Task("a/b")


def test_same_session_nested_bind_only_has_no_lasting_effect(sessions):
    a = sessions[0]
    with a:
        with a.bind_only(), a.bind_only():
            pass
        assert a.active
        assert get_active_session() is a


def test_bind_only_outside_with_inside(sessions):
    a = sessions[0]
    with a.bind_only():
        with a:
            pass
        assert get_active_session() is a
        assert not a.active


@pytest.mark.parametrize("enter", [lambda s: s.__enter__(), lambda s: s.bind_only().__enter__(), global_session_push])
def test_entering_a_closed_session(sessions, enter):
    a = sessions[0]
    a.close()
    with pytest.raises(SessionException, match="Session is closed"):
        enter(a)


def test_default_session(sessions):
    a, b, _ = sessions
    a.set_as_default()
    assert get_active_session() is a
    assert in_thread(get_active_session) is a
    with b.bind_only():
        assert get_active_session() is b
    b.set_as_default()
    assert get_active_session() is b
    a.close()
    assert get_active_session() is b
    b.close()


def test_new_session_as_default(client):
    a = client.new_session("a", default=True)
    b = client.new_session("b")
    assert get_active_session() is a
    b.close()
    assert get_active_session() is a
    a.close()


def test_constructed_as_default():
    a = Session(None, 5, True)
    assert get_active_session() is a
    clear_default(a)


def test_new_thread_starts_empty(sessions):
    a = sessions[0]
    with a.bind_only():
        found = in_thread(get_active_session)
        assert isinstance(found, RainException)

        def bind():
            with a.bind_only():
                return get_active_session()

        assert in_thread(bind) is a
        assert in_thread(lambda: blob("x", session=a)).session is a


async def test_asyncio_task_has_a_copy(sessions):
    a, b, _ = sessions
    pushed, checked = asyncio.Event(), asyncio.Event()

    async def child():
        assert get_active_session() is a
        with b.bind_only():
            pushed.set()
            await checked.wait()
            assert get_active_session() is b
        assert get_active_session() is a

    with a.bind_only():
        task = asyncio.create_task(child())
        await pushed.wait()
        assert get_active_session() is a
        assert await asyncio.to_thread(get_active_session) is a
    checked.set()
    await task


def test_copied_context(sessions):
    a, b, _ = sessions
    with a.bind_only():
        copy = contextvars.copy_context()
        copy.run(global_session_push, b)
        assert get_active_session() is a
        assert copy.run(get_active_session) is b


def test_push_and_pop(sessions):
    a = sessions[0]
    session_module.global_session_push(a)
    assert get_active_session() is a
    assert session_module.global_session_pop() is a
    with pytest.raises(RainException, match="empty"):
        session_module.global_session_pop()


def test_explicit_session_wins(sessions):
    a, b, _ = sessions
    with a.bind_only():
        task = Task("a/b", outputs=2, session=b)
        assert task.session is b
        assert {output.session for output in task.outputs} == {b}
        assert a.dataobj_count == 0
