"""What users see when things go wrong, with real processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rain.client import Client, LocalCluster, RainConnectionError, SessionException, TaskException, tasks
from tests.cluster import functions as f

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], Any], limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def worker_processes(client: Client) -> dict[str, psutil.Process]:
    return {entry["worker_id"]: psutil.Process(entry["pid"]) for entry in client.get_server_info()["workers"]}


def server_log(cluster: LocalCluster) -> str:
    return (Path(cluster.logdir) / "server.err").read_text()


def test_a_failing_task_fails_its_session_and_only_it(client: Client) -> None:
    bad, good = client.new_session("bad"), client.new_session("good")
    with good.bind_only():
        fine = f.work(0.5)
        fine.output.keep()
        good.submit()
    with bad.bind_only():
        other = f.number(1)
        other.output.keep()
        bad.submit()
        bad.wait_all()
        failing = f.fail("no such thing")  # the line the error must name
        bad.submit()
    calls: list[Callable[[], object]] = [
        lambda: bad.wait_all(),
        lambda: bad.wait([other]),
        lambda: bad.wait_some([other]),
        lambda: bad.fetch(other.output),
        lambda: bad.update([other]),
        lambda: bad.unkeep([other.output]),
        lambda: bad.submit(),
        lambda: failing.wait(),
        lambda: failing.update(),
    ]
    for call in calls * 2:
        with pytest.raises(TaskException) as caught:
            call()
        text = str(caught.value)
        assert "ValueError: no such thing" in text
        assert "Traceback" in text
        assert "# the line the error must name" in text
        assert "about to fail with no such thing" in text
        assert caught.value.task is failing
        assert isinstance(caught.value.cause, ValueError)
    assert other.output.is_kept()
    bad.close()
    with pytest.raises(SessionException):
        bad.wait_all()
    assert fine.output.fetch().get_bytes() == b"done"
    good.close()


def test_executor_crash_is_told_with_its_status(client: Client) -> None:
    with client.new_session() as session:
        f.crash()
        session.submit()
        with pytest.raises(TaskException, match="Lost connection to executor") as caught:
            session.wait_all()
        assert "7" in str(caught.value)
    with client.new_session() as session:
        task = f.add(1, 1)
        task.output.keep()
        session.submit()
        assert task.output.fetch().get_bytes() == b"2"


def test_innocent_batch_mates_of_a_crash_run_again(client: Client) -> None:
    with client.new_session() as warm:
        for n in range(200):
            f.add(n, n)
        warm.submit()
        warm.wait_all()
    other = client.new_session()
    with other.bind_only():
        made = [f.add(n, n) for n in range(3000)]
        for task in made:
            task.output.keep()
        other.submit()
    with client.new_session() as session:
        f.crash()
        session.submit()
        with pytest.raises(TaskException):
            session.wait_all()
    other.wait_all()
    assert [int(task.output.fetch().get_bytes()) for task in made[::500]] == [2 * n for n in range(0, 3000, 500)]
    other.close()


def test_a_killed_worker_costs_only_time(leak_check: None) -> None:
    with LocalCluster([1, 1], timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        leaves = [f.number(n) for n in range(60)]
        slow = [f.total([leaf, leaf]) for leaf in leaves]
        pause = [f.work(0.05) for _ in range(60)]
        result = f.total(slow)
        for task in leaves + pause:
            task.output.keep()
        result.output.keep()
        session.submit()
        session.wait(leaves[:20])
        _, victim = sorted(worker_processes(client).items())[0]
        victim.send_signal(signal.SIGKILL)
        session.wait_all()
        assert result.output.fetch().load() == 2 * sum(range(60))
        assert [leaf.output.fetch().load() for leaf in leaves] == list(range(60))
        until(lambda: "tasks run elsewhere" in server_log(cluster))


def test_large_results_of_a_killed_worker_are_computed_again(leak_check: None) -> None:
    with LocalCluster([1, 1], timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        made = [f.big(1 << 20, n) for n in range(10)]
        joined = tasks.concat([task.output for task in made])
        for task in [*made, joined]:
            task.output.keep()
        session.submit()
        session.wait_all()
        worker_id, victim = sorted(worker_processes(client).items())[0]
        victim.kill()
        until(lambda: worker_id not in worker_processes(client))
        for n, task in enumerate(made):
            assert task.output.fetch().get_bytes() == bytes([n]) * (1 << 20)
        assert len(joined.output.fetch().get_bytes()) == 10 << 20
        until(lambda: "finished tasks run again for their lost results" in server_log(cluster))


def test_a_worker_that_joins_takes_over(leak_check: None) -> None:
    with LocalCluster(1, cpus=1, timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        made = [f.work(0.05) for _ in range(20)]
        session.submit()
        session.wait(made[:2])
        (first,) = worker_processes(client).values()
        first.kill()
        cluster.add_worker(cpus=1)
        session.wait_all()


CLIENT_SCRIPT = """
import sys
from rain.client import Client
from tests.cluster.functions import work
client = Client(sys.argv[1], access_file=sys.argv[2])
session = client.new_session(default=True)
made = [work(60.0) for _ in range(4)]
session.submit()
print("running", flush=True)
session.wait_all()
"""


def test_a_killed_client_takes_its_sessions_along(cluster: LocalCluster, client: Client) -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", CLIENT_SCRIPT, cluster.address, cluster.access_file],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert script.stdout is not None
    with script, script.stdout:
        assert script.stdout.readline() == b"running\n"
        until(lambda: client.get_server_info()["workers"][0]["tasks"])
        script.kill()
        script.wait()
        until(lambda: client.get_server_info()["server"]["sessions"] == 0)
        until(lambda: not client.get_server_info()["workers"][0]["tasks"])


def test_a_killed_server_is_noticed_at_once(leak_check: None) -> None:
    with LocalCluster(1, cpus=1, timeout=60) as cluster:
        client = cluster.client()
        session = client.new_session()
        f.work(60.0, session=session)
        session.submit()
        (server,) = [
            process
            for process in psutil.Process().children(recursive=True)
            if {"rain", "server"} <= set(_command(process))
        ]
        before = time.monotonic()
        _kill_soon(server)
        with pytest.raises(RainConnectionError, match=cluster.address):
            session.wait_all()
        assert time.monotonic() - before < 10.0  # well before a silent server counts as lost
        with pytest.raises(RainConnectionError, match=cluster.address):
            client.new_session()
        session.close()
        client.close()


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _kill_soon(process: psutil.Process) -> None:
    timer = threading.Timer(0.3, process.kill)
    timer.start()
