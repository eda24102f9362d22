"""`session.tasks()` and `session.objects()`: what the server lists becomes handles."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import pytest

from rain.client import (
    DataObject,
    RainException,
    Session,
    SessionException,
    TaskException,
    blob,
    delayed,
    finding,
    tasks,
)
from rain.common.data_type import DataType
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import GetSpecs, ListObjects, ListTasks, UnkeepObjects
from tests.client.aio_rig import scripted


def tell(server, *things, **fields):
    """The server knows of tasks and objects of which there are handles."""
    for thing in things:
        spec = {"id": thing._number, **fields}
        if not isinstance(thing, DataObject):
            spec |= {"task_type": thing.task_type, "inputs": [], "outputs": []}
        server.specs[thing._number] = spec


def task_spec(number, inputs=(), outputs=(), **fields):
    return {"id": number, "task_type": "a/b", "inputs": list(inputs), "outputs": list(outputs), **fields}


@pytest.fixture
def told(session, server):
    """A session of ids 10 to 19 that were submitted, of which there are no handles but that of 10."""
    first = blob("x")
    with session._lock:
        session._registry.next = 20
    session.submit()
    server.specs = {
        11: {"id": 11, "label": "in", "content_type": "text", "kept": True, "size_hint": 1.5, "user": {"a": [1]}},
        12: {"id": 12, "label": "out", "data_type": "dir", "producer": 14},
        13: {"id": 13, "producer": 14, "kept": True},
        14: task_spec(
            14,
            [10, 11],
            [12, 13],
            name="found",
            config={"x": 0},
            resources={"cpus": 2},
            input_labels=["a", None],
            user={"u": False},
            retries=3,
            timeout=1.5,
            priority=-2,
        ),
        15: task_spec(15, [12]),
    }
    server.states = {11: 1, 12: 2, 13: 0, 14: TaskState.running, 15: TaskState.notAssigned}
    return first


# --- handles ----------------------------------------------------------------------------------------------


def test_known_handles_are_reused(session, server):
    a, b = tasks.concat([blob("x")]), tasks.concat([])
    call = delayed(abs)(-1)
    array = session.map(abs, range(5))
    session.submit()
    members = [array[3], array[1]]
    tell(server, a, b, call, *members)
    server.states = {a._number: 4, b._number: 3, members[0]._number: 2}
    found = session.tasks()
    assert [id(task) for task in found] == [id(task) for task in (a, b, call, array[1], array[3])]
    assert [task.state.name for task in found] == ["finished", "running", "ready", "ready", "assigned"]
    assert not server.all(GetSpecs)
    tell(server, a.output, array[2].output, kept=True)
    server.states = {a.output._number: 2}
    output = array[2].output
    assert session.objects() == [a.output, output]
    assert (a.output.state, output.state) == (DataObjectState.removed, DataObjectState.finished)
    assert not server.all(GetSpecs)


def test_members_of_an_array_nobody_holds_a_handle_of(session, server):
    array = session.map(abs, range(5))
    session.submit()
    number = array._task_range()[2]
    server.specs[number] = task_spec(number)
    (found,) = session.tasks()
    assert found is array[2]
    assert found.id == (1, number)


def test_made_of_specs(session, server, told):
    task, other = session.tasks()
    assert (task.id, task.name, task.task_type, task.state) == ((1, 14), "found", "a/b", TaskState.running)
    assert repr(task) == "<FoundTask id=1/14 a/b 'found'>"
    assert task.spec.config == {"x": 0}
    assert task.spec.resources == {"cpus": 2}
    assert task.spec.user == {"u": False}
    assert (task.spec.retries, task.spec.timeout, task.spec.priority) == (3, 1.5, -2)
    assert [one.id.id for one in task.inputs] == [10, 11]
    assert task.inputs["a"] is told
    assert task.inputs.labels == ["a", None]
    assert [one.label for one in task.spec.inputs] == ["a", ""]
    first, second = task.outputs
    assert (first.label, first.is_directory(), first.is_kept()) == ("out", True, False)
    assert (second.label, second.is_kept()) == (None, True)
    assert (first.state, second.state) == (DataObjectState.removed, DataObjectState.unfinished)
    assert other.inputs[0] is first
    assert (other.name, other.spec.config, other.spec.resources, other.outputs.data) == (None, None, {}, [])
    assert task.info is None
    with pytest.raises(RainException, match="submitted"):
        task.keep_outputs()


def test_objects_made_of_specs(session, server, told):
    constant, removed, output = session.objects()
    assert repr(constant) == "<DObj in id=1/11>"
    assert (constant.label, constant.content_type, constant.state) == ("in", "text", DataObjectState.finished)
    assert (constant.spec.size_hint, constant.spec.user, constant.data) == (1.5, {"a": [1]}, None)
    assert (constant.is_kept(), removed.is_kept(), output.is_kept()) == (True, False, True)
    assert removed.spec.data_type is DataType.DIRECTORY
    assert (removed.state, output.state) == (DataObjectState.removed, DataObjectState.unfinished)
    assert session.objects(label="in") == [constant]


def test_what_was_found_can_be_used(session, server, told):
    task, other = session.tasks()
    (kept,) = session.objects(label="in")
    server.values[11] = b"value of 11"
    assert kept.fetch().get_bytes() == b"value of 11"
    assert kept.result() == "value of 11"
    task.wait()
    assert task.state is TaskState.finished
    session.update([task, other])
    assert task.state is TaskState.running
    assert other.cancel()
    assert other.state is TaskState.cancelled
    after = tasks.concat([kept])
    session.submit()
    assert after.inputs[0] is kept
    session.wait_all()
    kept.unkeep()
    assert not kept.is_kept()


def test_found_twice(session, server, told):
    (task, other), again = session.tasks(), session.tasks()
    assert again[0] is task
    assert again[1] is other
    assert session.objects()[1] is task.outputs[0]
    assert len(server.all(GetSpecs)) == 2  # of two tasks and of their objects
    assert session.make_graph() is not None


def test_the_session_does_not_hold_what_was_found(session, server, told):
    found = [*session.tasks(), *session.objects()]
    session.update(found)
    session.wait_all()
    session.update(found)
    references = [weakref.ref(thing) for thing in found]
    del found
    gc.collect()
    assert not any(reference() for reference in references)
    assert not session._dropped  # nothing is unkept thereby
    assert session.tasks()[0].name == "found"


def test_what_was_dropped_is_unkept_before(session, server):
    call = delayed(abs)(-1)
    session.submit()
    number = call.output._number
    del call
    gc.collect()
    session.objects()
    kinds = [type(message) for message in server.received]
    assert kinds.index(UnkeepObjects) < kinds.index(ListObjects)
    assert list(server.all(UnkeepObjects)[0].ids) == [number]


def test_the_task_of_a_dropped_handle_shares_its_output(session, server):
    output = delayed(abs)(-1).output
    session.submit()
    gc.collect()
    server.specs[output._number + 1] = task_spec(output._number + 1, [], [output._number])
    (task,) = session.tasks()
    assert type(task).__name__ == "FoundTask"
    assert task.output is output


def test_finding_does_not_keep_results_alive(session, server):
    source = delayed(abs)(-1)
    session.submit()
    number = source.output._number
    with session._lock:
        session._registry.next = 20
    session.submit()
    server.specs[19] = task_spec(19, [number])
    (task,) = session.tasks()
    assert task.inputs[0].id == source.output.id
    del source
    gc.collect()
    told = [first for message in server.all(UnkeepObjects) for first in message.ids]  # what the thread has taken
    assert [*told, *(first for _, first, _ in session._dropped)] == [number]


def test_numbers_behind_an_array_are_not_its_members(session, server):
    """Also when the handles behind it are forgotten."""
    array = session.map(abs, range(3))
    calls = [delayed(abs)(n) for n in range(3)]
    session.submit()
    number = calls[2]._number
    del calls
    gc.collect()
    session._registry._sweep()
    assert session._find(number) is None
    assert session._find(array._task_range()[-1]) is array[2]


def test_memory_stays_flat(session, server):
    made = [tasks.concat([]) for _ in range(2000)]
    session.submit()
    tell(server, *made)
    session.tasks()
    gc.collect()
    tracemalloc.start()
    for _ in range(3):
        session.tasks()
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    server.received.clear()
    assert kept < 500_000


# --- questions --------------------------------------------------------------------------------------------


def test_filters(session, server, told):
    assert [task.id.id for task in session.tasks(name="found")] == [14]
    assert [task.id.id for task in session.tasks(state="notAssigned")] == [15]
    assert [task.id.id for task in session.tasks(state=TaskState.running)] == [14]
    assert session.tasks(name="found", state="failed") == []
    assert session.tasks("nobody") == []
    assert [one.id.id for one in session.objects(kept=True)] == [11, 13]
    assert [one.id.id for one in session.objects("out", kept=False)] == [12]
    assert session.objects("out", True) == []
    asked = server.all(ListTasks)[1]
    assert (asked.name, asked.states, asked.first, asked.last) == ("", bytes([TaskState.notAssigned]), 10, 19)
    assert [one.kept for one in server.all(ListObjects)] == [1, 2, 1]


@pytest.mark.parametrize("portion", [1, 2, 7])
def test_portions(session, server, told, portion, monkeypatch):
    server.portion = portion
    monkeypatch.setattr(finding, "SPECS_PER_QUESTION", 3)
    server.specs |= {n: task_spec(n, [13, 13]) for n in (16, 17, 18, 19)}
    assert [task.id.id for task in session.tasks()] == [14, 15, 16, 17, 18, 19]
    assert [one.id.id for one in session.objects()] == [11, 12, 13]
    assert len(server.all(ListTasks)) == -(-6 // portion)


def test_nothing_submitted(session, server):
    tasks.concat([])
    assert session.tasks() == []
    assert session.objects() == []
    assert not server.all(ListTasks)


def test_unsubmitted_things_are_not_listed(session, server, told):
    tasks.concat([])
    assert len(session.tasks()) == 2
    assert server.all(ListTasks)[0].last == 19


@pytest.mark.parametrize("state", ["done", "Finished", "", "4"])
def test_unknown_state(session, server, told, state):
    with pytest.raises(ValueError, match=rf"no task state '{state}'; the states are notAssigned, ready, .*, aborted$"):
        session.tasks(state=state)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda session: session.tasks(state=4), TypeError),
        (lambda session: session.tasks(state=["finished"]), TypeError),
        (lambda session: session.tasks(name=1), TypeError),
        (lambda session: session.tasks(name=b"x"), TypeError),
        (lambda session: session.tasks(name=""), ValueError),
        (lambda session: session.tasks(name="\ud800"), ValueError),
        (lambda session: session.tasks(state=True), TypeError),
        (lambda session: session.objects(label=""), ValueError),
        (lambda session: session.objects(label=3), TypeError),
        (lambda session: session.objects(kept="yes"), TypeError),
        (lambda session: session.objects(kept=1), TypeError),
    ],
)
def test_wrong_arguments(session, server, told, ask, error):
    with pytest.raises(error, match=r"state|name|label|kept"):
        ask(session)
    assert not server.all(ListTasks)
    assert not server.all(ListObjects)


def test_failed_closed_and_clientless(session, server, told, task_failure):
    server.failures[session.session_id] = task_failure()
    for find in (session.tasks, session.objects):
        with pytest.raises(TaskException):
            find()
    session.close()
    for find in (session.tasks, session.objects):
        with pytest.raises(SessionException):
            find()
        with pytest.raises(RainException, match="no client"):
            getattr(Session(None, 1), find.__name__)()


async def test_aio(server):
    async with scripted(server) as client:
        session = await client.new_session("test")
        with session.bind_only():
            task = tasks.concat([blob("x")])
            await session.submit()
            tell(server, task, task.output)
            assert await session.tasks() == [task]
            assert await session.tasks(state="failed") == []
            assert await session.objects(kept=False) == [task.output]
            with pytest.raises(ValueError, match="no task state"):
                await session.tasks(state="x")
            number = task._number
            server.specs[number + 1] = task_spec(number + 1, [task.output._number])
            session._submitted += 1
            found = (await session.tasks())[1]
            assert found.inputs[0] is task.output
            assert await found.result() is None
