"""The overview of the log of a real server, against what the server says itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rain.client import LocalCluster, Session, TaskException, blob, tasks
from rain.dashboard.overview import Overview
from rain.eventlog.reader import EventReader
from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

pytestmark = pytest.mark.cluster

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open

PATIENCE = 30.0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with no_leaks(), LocalCluster(1, cpus=2, timeout=60) as cluster:
        yield cluster


@pytest.fixture
def overview(cluster: LocalCluster) -> Iterator[Overview]:
    with closing(EventReader(Path(cluster.logdir) / "server")) as reader:
        yield Overview(reader)


def increment(value: int) -> int:
    return value + 1


def odd_ones_fail(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


def wait_until(overview: Overview, condition: Callable[[], bool]) -> None:
    """Take in what is new until this holds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        overview.catch_up()
        if condition():
            return
        assert time.monotonic() < deadline, overview.sessions()
        time.sleep(0.05)


def caught_up(overview: Overview, session: Session) -> dict[str, int]:
    """Tasks by state, when the log has all that the server knows of them."""
    expected = {state: count for state, count in session.counts().items() if count}
    wait_until(overview, lambda: shown(overview, session) == expected)
    return expected


def shown(overview: Overview, session: Session) -> dict[str, int]:
    if session.session_id not in {answer["id"] for answer in overview.sessions()["sessions"]}:
        return {}
    tasks = overview.session(session.session_id)["tasks"]
    return {state: count for state, count in tasks.items() if count and state != "total"}


def test_tasks_and_arrays(cluster: LocalCluster, overview: Overview):
    with cluster.client() as client:
        with client.new_session(name="work") as session:
            parts = [tasks.concat([blob(b"a"), blob(b"b")], name=f"load/{k % 3}") for k in range(30)]
            joined = tasks.concat([part.output for part in parts], name="join")
            array = session.map(increment, range(3000), name="many")
            session.submit()
            session.wait_all()
            assert caught_up(overview, session) == {"finished": 3031}
            server = client.get_server_info()
            worker = overview.workers()["workers"][0]
            assert worker["id"] == server["workers"][0]["worker_id"]
            assert (worker["state"], worker["finished"], worker["pid"]) == (
                "connected",
                3031,
                server["workers"][0]["pid"],
            )
            number = session.session_id
            groups = {group["path"]: group["finished"] for group in overview.groups(number)["groups"]}
            assert groups == {"load": 30, "join": 1, "many": 3000}
            stream = overview.stream(number)
            assert stream["total"] == 3031
            assert len(stream["rows"][0]["slots"]) <= 10
            task = overview.task(number, joined.id.id)
            assert [entry["producer"] for entry in task["inputs"]] == [part.id.id for part in parts]
            assert task["outputs"][0]["size"] == 60
            assert [entry["text"].split()[0] for entry in task["history"]] == ["submitted", "started", "finished"]
            member = overview.task(number, array[7].id.id)
            assert (member["state"], member["name"], member["attempts"]) == ("finished", "many", 1)
            assert {"from": "g:load/0", "to": "g:join"} in [
                {"from": begin, "to": end} for begin, end, _ in overview.graph(number, limit=100)["edges"]
            ]
        wait_until(overview, lambda: overview.session(number)["status"] == "closed")


def test_failed_and_cancelled_ones(cluster: LocalCluster, overview: Overview):
    with cluster.client() as client, client.new_session(on_failure="continue") as session:
        array = session.map(odd_ones_fail, range(10), name="picky")
        after = tasks.concat([array[1].output], name="after")
        session.submit()
        with pytest.raises(TaskException):
            session.wait_all()
        sleeper = tasks.sleep(3600, blob("x"))
        queued = [tasks.sleep(3600, blob("x"), cpus=2) for _ in range(3)]
        session.submit()
        number = session.session_id
        wait_until(overview, lambda: shown(overview, session).get("running") == 1)
        assert overview.workers()["workers"][0]["running"] == 1
        for task in (sleeper, *queued):
            task.cancel()
        states = caught_up(overview, session)
        assert states == {"finished": 5, "failed": 5, "aborted": 1, "cancelled": 4}
        failed = overview.tasks(number, state="failed")["tasks"]
        assert [task["id"] for task in failed] == [array[k].id.id for k in range(1, 10, 2)]
        answer = overview.task(number, failed[0]["id"])
        assert "1 is odd" in answer["error"]
        assert overview.task(number, after.id.id)["state"] == "aborted"
        assert "is odd" in overview.session(number)["first_error"]["message"]
        assert len(overview.events(type="TaskFailed")["events"]) == 5
