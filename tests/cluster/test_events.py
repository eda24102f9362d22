"""What a real cluster says happened (spec 10.2), read from the file of a server that runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rain.cli.main import main
from rain.client import LocalCluster, RainTimeoutError, RainWarning, TaskException, blob, delayed, tasks
from rain.eventlog.criteria import parse_criteria
from rain.eventlog.reader import EventReader

pytestmark = pytest.mark.cluster

PATIENCE = 30.0


def events(cluster: LocalCluster, *types: str) -> list[dict[str, Any]]:
    """Those of these types, so far."""
    criteria = parse_criteria({"event_types": [{"value": name, "mode": "="} for name in types]})
    reader = EventReader(Path(cluster.logdir) / "server" / "events.db")
    try:
        return [entry.event for entry in reader.events(criteria)]
    finally:
        reader.close()


def until(found: Callable[[], list[dict[str, Any]]], count: int = 1) -> list[dict[str, Any]]:
    """What is found, once it is as many; within a bounded time."""
    deadline = time.monotonic() + PATIENCE
    while len(seen := found()) < count:
        assert time.monotonic() < deadline, f"{len(seen)} of {count} events: {seen}"
        time.sleep(0.05)
    return seen


def test_a_retried_task(cluster: LocalCluster, tmp_path: Path) -> None:
    marker = tmp_path / "tried"

    def second_time() -> str:
        if not marker.exists():
            marker.touch()
            raise ValueError("the first time")
        return "done"

    with cluster.client() as client, client.new_session() as session:
        assert delayed(second_time, retries=1)().result() == "done"
        number = session.session_id
        retried = [one for one in until(lambda: events(cluster, "TaskRetried")) if one["task"][0] == number]
    assert len(retried) == 1
    assert retried[0]["run"] == 2
    assert "the first time" in retried[0]["reason"]


def test_a_lost_worker(cluster: LocalCluster, tmp_path: Path) -> None:
    tried = tmp_path / "tried"

    def stuck_once() -> None:
        if not tried.exists():
            tried.touch()
            time.sleep(1000)

    with cluster.client() as client, client.new_session() as session:
        task = delayed(stuck_once)()
        session.submit()

        def its_worker() -> list[dict[str, Any]]:
            return [one for one in client.get_server_info()["workers"] if list(task.id) in map(list, one["tasks"])]

        (worker,) = until(its_worker)
        until(lambda: events(cluster, "TaskStarted"))
        until(lambda: [{}] if tried.exists() else [])
        cluster.add_worker()
        os.kill(worker["pid"], signal.SIGKILL)
        removed = until(lambda: [e for e in events(cluster, "WorkerRemoved") if e["worker"] == worker["worker_id"]])
        retried = until(lambda: [e for e in events(cluster, "TaskRetried") if e["task"] == list(task.id)])
        assert removed[0]["error_msg"]
        assert worker["worker_id"] in retried[0]["reason"]
        task.wait(30)


def test_a_task_no_worker_can_run_and_a_refused_request(cluster: LocalCluster) -> None:
    with cluster.client() as client, client.new_session() as session:
        task = tasks.sleep(0.1, blob(""), cpus=1000)
        session.submit()
        (event,) = until(lambda: events(cluster, "TaskInfeasible"))
        assert (event["task"], "cpus=1000" in event["reason"]) == (list(task.id), True)
        with pytest.warns(RainWarning, match="cannot run"), pytest.raises(RainTimeoutError):
            task.wait(0.1)
        assert main(["task", "explain", f"{session.session_id}/999", "--access-file", str(cluster.access_file)]) == 1
    (refused,) = until(lambda: events(cluster, "ClientInvalidRequest"))
    assert f"{session.session_id}/999" in refused["error_msg"]


def test_a_failed_session(cluster: LocalCluster) -> None:
    def fail() -> None:
        raise ValueError("boom")

    with cluster.client() as client, client.new_session("doomed") as session:
        with pytest.raises(TaskException):
            delayed(fail)().result()
        number = session.session_id
    closed = until(lambda: [one for one in events(cluster, "SessionClosed") if one["session"] == number])
    failed = [one for one in events(cluster, "TaskFailed") if one["task"][0] == number]
    new = [one for one in events(cluster, "SessionNew") if one["session"] == number]
    assert [one["reason"] for one in closed] == ["Error"]
    assert len(failed) == 1
    assert "boom" in failed[0]["info"]["error"]
    assert new[0]["spec"]["name"] == "doomed"
