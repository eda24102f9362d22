"""`session.tasks()` and `session.objects()` with real processes, and ending the server."""

from __future__ import annotations

import gc
import os

import pytest

from rain.client import (
    Client,
    DataObject,
    Input,
    LocalCluster,
    Output,
    RainException,
    Session,
    SessionException,
    Task,
    TaskException,
    aio,
    blob,
    delayed,
    directory,
    tasks,
)
from rain.client.registry import Registry
from rain.common.data_type import DataType

LIMIT = 30.0


def numbers(things: list[Task] | list[DataObject]) -> list[int]:
    return [thing.id.id for thing in things]


def forget(session: Session) -> None:
    """The session as it is without any handle."""
    registry = Registry()
    registry.next = session._registry.next
    session._registry = registry


def add(x: int, y: int = 0) -> int:
    return x + y


def odd(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x


def test_handles_that_there_are(client: Client) -> None:
    with client.new_session(on_failure="continue") as session:
        greeting = blob("Hello ", label="greeting")
        joined = tasks.concat((greeting, blob("world")), name="join")
        joined.output.keep()
        single = delayed(odd)(1)
        array = session.map(odd, range(10))
        session.submit()
        session.wait_all(check=False)
        found = session.tasks()
        assert [id(task) for task in found] == [id(task) for task in (joined, single, *array)]
        assert session.tasks(name="join") == [joined]
        assert session.tasks(name="odd", state="finished") == [array[n] for n in range(0, 10, 2)]
        assert session.tasks(state="failed") == [single, *(array[n] for n in range(1, 10, 2))]
        assert {task.state.name for task in session.tasks(state="failed")} == {"failed"}
        assert session.objects(label="greeting") == [greeting]
        assert greeting.state is not None
        assert greeting.state.name == "removed"
        assert joined.output in session.objects(kept=True)
        assert session.counts() == {"finished": 6, "failed": 6}
        assert array.counts() == {"finished": 5, "failed": 5}
        assert array.done()


def test_handles_that_nobody_has_any_more(client: Client) -> None:
    with client.new_session() as session, session.bind_only():
        source = blob("b\na\n", label="text")
        source.keep()
        sort = tasks.Execute(
            ("sort", Input("lines", dataobj=source)), stdout=Output("sorted"), name="sort", user_spec={"x": [0, False]}
        )
        sort.output.keep()
        folder = directory(label="folder")
        folder.keep()
        session.submit()
        calls = [delayed(add)(n, y=n) for n in range(3)]
        array = session.map(add, range(100), name="member")
        session.submit()
        session.wait_all()
        ids = numbers([*array])
        del calls, array
        gc.collect()
        assert len(session.objects(kept=True)) == 4  # with the function
        members = session.tasks(name="member")
        assert numbers(members) == ids
        assert session.tasks(name="member")[50] is members[50]
        assert (members[50].spec.name, members[50].spec.resources) == ("member", {"cpus": 1})
        assert members[50].output.state is not None
        assert members[50].output.state.name == "removed"
        calls_found = session.tasks(name="add")
        assert [task.task_type for task in calls_found] == ["py/"] * 3
        assert {task.state.name for task in calls_found if task.state} == {"finished"}
        forget(session)
        (again,) = session.tasks(name="sort")
        assert again is not sort
        assert again.spec.config == sort.spec.config
        assert again.spec.user == {"x": [0, False]}
        assert (again.task_type, again.inputs.labels, again.inputs[0].label) == (sort.task_type, ["lines"], "text")
        assert again.result() == b"a\nb\n"
        assert "finished" in again.explain()
        (found,) = session.objects(label="folder")
        assert found.is_directory()
        assert found.fetch().data_type is DataType.DIRECTORY
        (text,) = session.objects(label="text")
        assert text is again.inputs[0]
        assert delayed(add)(1, y=2).result() == 3
        text.unkeep()
        assert text not in session.objects(kept=True)


def test_many_tasks(client: Client) -> None:
    """More than there is room for in one answer."""
    with client.new_session() as session:
        made = [tasks.concat(()) for _ in range(12_000)]
        session.submit()
        session.wait_all()
        assert session.tasks() == made
        ids = numbers(made)
        del made
        forget(session)
        found = session.tasks()
        assert numbers(found) == ids
        assert all(task.outputs[0].id.id == task.id.id - 1 for task in found)
        assert len(session.objects()) == 12_000


def test_a_failed_session(client: Client) -> None:
    with client.new_session() as session:
        delayed(odd)(1)
        session.submit()
        with pytest.raises(TaskException):
            session.wait_all()
        with pytest.raises(TaskException):
            session.tasks()
        with pytest.raises(TaskException):
            session.objects()


async def test_asyncio(cluster: LocalCluster) -> None:
    async with aio.create_client(access_file=cluster.access_file) as client, client.new_session() as session:
        array = session.map(add, range(5))
        await session.submit()
        await session.wait_all()
        assert await session.tasks(state="finished") == list(array)
        assert await session.objects(kept=True) == [array._function, *(task.output for task in array)]


# --- ending the server ------------------------------------------------------------------------------------


def codes(cluster: LocalCluster) -> list[int | None]:
    cluster._group.wait_ended(LIMIT)
    return [process.popen.poll() for process in cluster._group.processes]


def test_terminate_server() -> None:
    with LocalCluster(2, cpus=1, timeout=60) as cluster, cluster.client() as client, cluster.client() as other:
        sessions = [client.new_session(), other.new_session()]
        for session in sessions:
            with session.bind_only():
                tasks.Sleep(blob("x"), 60.0)
                session.submit()
        client.terminate_server()
        assert client.closed
        assert not os.path.exists(cluster.access_file)
        assert codes(cluster) == [0, 0, 0]
        with pytest.raises(RainException):
            sessions[1].wait_all(timeout=LIMIT)
        with pytest.raises(SessionException):
            sessions[0].wait_all()


async def test_terminate_server_in_a_loop() -> None:
    with LocalCluster(1, cpus=1, timeout=60) as cluster:
        client = await aio.create_client(access_file=cluster.access_file)
        session = await client.new_session()
        await client.terminate_server()
        assert (client.closed, session.active) == (True, False)
        assert codes(cluster) == [0, 0]


def test_terminate_an_embedded_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAIN_ADDRESS", "RAIN_ACCESS_FILE"):
        monkeypatch.delenv(name, raising=False)
    client = Client()
    assert client.cluster is not None
    processes = client.cluster._group.processes
    directory_ = client.cluster._group.directory
    client.terminate_server()
    assert [process.popen.poll() for process in processes] == [0]
    assert not directory_.exists()


async def test_terminate_an_embedded_cluster_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAIN_ADDRESS", "RAIN_ACCESS_FILE"):
        monkeypatch.delenv(name, raising=False)
    client = await aio.create_client()
    assert client.cluster is not None
    processes = client.cluster._group.processes
    await client.terminate_server()
    assert [process.popen.poll() for process in processes] == [0]


def test_sessions_of_all_clients(cluster: LocalCluster, client: Client) -> None:
    with client.new_session("mine") as mine, cluster.client() as other, other.new_session("theirs") as theirs:
        with theirs.bind_only():
            delayed(odd)(1)
        theirs.submit()
        with pytest.raises(TaskException):
            theirs.wait_all(timeout=LIMIT)
        found = client.list_sessions()
        assert other.list_sessions() == found
    assert [(one["id"], one["name"], one["state"], one["persistent"]) for one in found] == [
        (mine.session_id, "mine", "open", False),
        (theirs.session_id, "theirs", "failed", False),
    ]
    assert found[0]["tasks"] == {}
