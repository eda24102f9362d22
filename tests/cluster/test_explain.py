"""Why tasks are in their state, asked with real processes: `task.explain()` and `rain task explain`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator

import pytest

from rain.cli.main import main
from rain.client import Client, LocalCluster, Session, Task, TaskException, aio, blob, delayed, tasks
from tests.cluster.functions import fail, work

LIMIT = 20.0


def until(text: str, explain: Callable[[], str]) -> str:
    """The explanation once it has this text."""
    deadline = time.monotonic() + LIMIT
    while text not in (found := explain()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def sleeping(seconds: float = 60.0, **options: int) -> Task:
    return tasks.Sleep(blob("x"), seconds, **options)


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    """It goes on after failures, and is active."""
    with client.new_session("explained", on_failure="continue") as session:
        yield session


@pytest.fixture
def worker(client: Client) -> str:
    (entry,) = client.get_server_info()["workers"]
    return str(entry["worker_id"])


def test_running_and_waiting_for_an_input(session: Session, worker: str) -> None:
    first = sleeping()
    second = tasks.concat([first.output])
    session.submit()
    text = until("runs on", first.explain)
    assert text.startswith(f"Task {first.id} is running: run 1 runs on {worker} for ")
    assert second.explain().splitlines() == [
        f"Task {second.id} is notAssigned: 1 of its 1 inputs are not finished.",
        f"  {first.output.id}: made by task {first.id}, which is running on {worker}",
    ]


def test_waiting_for_an_input_of_a_task_without_room(session: Session, worker: str) -> None:
    blocker = sleeping(cpus=2)
    first = sleeping(cpus=2)
    second = tasks.concat([first.output])
    session.submit()
    until("runs on", blocker.explain)
    assert first.explain().splitlines() == [
        f"Task {first.id} is ready: it needs cpus=2 and waits for a worker with room; 1 tasks and blocks are ready "
        "in all.",
        f"  {worker}: cpus 0 of 2 free (too little)",
    ]
    assert second.explain().splitlines() == [
        f"Task {second.id} is notAssigned: 1 of its 1 inputs are not finished.",
        f"  {first.output.id}: made by task {first.id}, which is ready",
    ]


def test_infeasible(session: Session, worker: str) -> None:
    task = sleeping(cpus=64)
    session.submit()
    lines = task.explain().splitlines()
    reason = "needs cpus=64; largest worker offers cpus=2 (1 worker)"
    assert lines[0] == f"Task {task.id} is ready: no worker can ever run it: {reason}."
    assert lines[1] == f"  {worker}: cpus 2 of 2 free (too little)"


def test_failed_with_the_history_of_its_runs_and_aborted(session: Session, worker: str) -> None:
    task = fail.options(retries=2)("boom")
    after = tasks.concat([task.output])
    session.submit()
    with pytest.raises(TaskException):
        task.wait()
    lines = task.explain().splitlines()
    assert lines[0] == f"Task 'fail' ({task.id}) is failed: ValueError: boom"
    assert [line.partition("ago: ")[2] for line in lines[2:]] == [
        f"run 1 failed on {worker}: ValueError: boom; runs again",
        f"run 2 failed on {worker}: ValueError: boom; runs again",
        f"failed for good on {worker}: ValueError: boom",
    ]
    text = after.explain()
    assert text.startswith(f"Task {after.id} is aborted: ")
    assert f"because of task {task.id}" in text


def test_a_task_that_failed_its_session(client: Client, worker: str) -> None:
    with client.new_session("failing") as session:
        task = fail.options(retries=1)("boom")
        other = sleeping()
        session.submit()
        with pytest.raises(TaskException):
            session.wait_all()
        lines = task.explain().splitlines()
        assert lines[0] == f"Task 'fail' ({task.id}) is failed, and with it its session: ValueError: boom"
        assert "run 1 failed" in lines[2]
        assert "failed for good" in lines[3]
        assert f"because of task 'fail' ({task.id})" in other.explain()


def test_cancelled(session: Session) -> None:
    task = sleeping()
    session.submit()
    until("runs on", task.explain)
    assert task.cancel()
    text = task.explain()
    assert text.startswith(f"Task {task.id} is cancelled: ")
    assert "ago: cancelled" in text


def test_finished(session: Session, worker: str) -> None:
    task = tasks.concat([blob("a")])
    session.submit()
    task.wait()
    text = task.explain()
    assert text.startswith(f"Task {task.id} is finished: run 1 took ")
    assert text.endswith(f" s on {worker}.")


def test_members_of_arrays(session: Session) -> None:
    blocker = sleeping(cpus=2)
    session.submit()
    until("runs on", blocker.explain)
    array = session.map(lambda x: x, range(100))
    session.submit()
    lines = array[7].explain().splitlines()
    assert lines[0] == f"{array[7].id} is member 7 of a task array and goes with 99 others of it."
    assert "is ready: it needs cpus=1" in lines[1]
    blocker.cancel()
    assert array.result() == list(range(100))
    assert "is finished: run 1 took" in array[7].explain()


def test_in_a_loop(cluster: LocalCluster) -> None:
    async def main() -> str:
        opening = aio.create_client(cluster.address, access_file=cluster.access_file)
        async with opening as client, client.new_session() as session:
            task = delayed(abs)(-1)
            assert await task.result() == 1
            assert session.session_id
            return await task.explain()

    assert "is finished: run 1 took" in asyncio.run(main())


class Command:
    """`rain task explain` against a cluster."""

    def __init__(self, cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
        self._cluster = cluster
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints; in case of an error, what it complains of."""
        access = ["--access-file", str(self._cluster.access_file)]
        assert main(["task", "explain", *arguments, *access]) == code
        printed = self._capsys.readouterr()
        assert bool(printed.err) == bool(code)
        return printed.err if code else printed.out


@pytest.fixture
def command(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(cluster, capsys)


def test_by_the_command_line_for_the_session_of_another_client(session: Session, command: Command) -> None:
    number = session.session_id
    blocker, waiting = sleeping(cpus=2), sleeping(cpus=2)
    session.submit()
    until("runs on", blocker.explain)
    array = session.map(lambda x: x, range(50))
    session.submit()
    assert command(str(waiting.id)) == f"{waiting.explain()}\n"
    assert command(f"{number}:{waiting.id.id}", "--output", "quiet") == f"{waiting.id}\n"
    members = f"{number}/{array[0].id.id}-{array[49].id.id}"
    assert command(str(number), "--output", "quiet").split() == [str(blocker.id), str(waiting.id), members]
    text = command(str(number))
    assert "runs on" in text
    assert "are members of a task array and go together." in text
    found = json.loads(command(members, "--output", "json"))["tasks"]
    assert [(one["tasks"], one["count"]) for one in found] == [(members, 50)]
    until(waiting.explain().splitlines()[0], lambda: command(f"{number}/0-{waiting.id.id}"))


def test_what_the_command_line_cannot_explain(session: Session, command: Command, cluster: LocalCluster) -> None:
    number = session.session_id
    sleeping()
    session.submit()
    assert f"id {number}/99 does not exist" in command(f"{number}/99", code=1)
    assert "no tasks with these ids" in command(f"{number}/50-99", code=1)
    for selector in ("77/10", "77/10-20", "77"):
        assert f"Session 77 is closed or never was; open sessions: {number}" in command(selector, code=1)


def test_a_wrong_secret(cluster: LocalCluster, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("00" * 32, "ascii")
    token.chmod(0o600)
    for verb in (["task", "explain", "1"], ["dump"]):
        assert main([*verb, "--server", cluster.address, "--token-file", str(token)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "secret" in printed.err


def test_a_failed_session_by_the_command_line(client: Client, command: Command) -> None:
    with client.new_session("failing") as session:
        task = fail("boom")
        sleeping()
        session.submit()
        with pytest.raises(TaskException):
            session.wait_all()
        number = session.session_id
        assert command(str(number)) == command(str(task.id))
        assert "ValueError: boom" in command(str(number))
        late = command(f"{number}/{task.id.id + 1}-99", code=1)
        assert f"Session {number} failed because of task 'fail' ({task.id})" in late


def test_many_tasks_come_in_portions(session: Session, command: Command) -> None:
    blocker = sleeping(cpus=2)
    session.submit()
    until("runs on", blocker.explain)
    made = [work(0.0) for _ in range(500)]
    assert made[-1].id  # who has seen their ids keeps them, and single tasks with them
    session.submit()
    assert command(f"{session.session_id}", "--output", "quiet").split() == [str(one.id) for one in (blocker, *made)]
