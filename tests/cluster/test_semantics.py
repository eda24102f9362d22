"""Rows of the tables of service levels and failures that need a whole cluster and are proved nowhere else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rain.client import (
    Client,
    InputDir,
    LocalCluster,
    OutputDir,
    RainException,
    RainTimeoutError,
    RainWarning,
    TaskCancelled,
    TaskException,
    blob,
    directory,
    remote,
    tasks,
)
from rain.common.states import TaskState
from tests.cluster.functions import add, number, total, work

ATTEMPTS = 4
"""A level must be kept once in so many attempts: it is about an idle machine."""


def kept(low: float, high: float, measure: Any) -> bool:
    """Whether a measured time lies between the limits."""
    return any(low <= measure() < high for _ in range(ATTEMPTS))


@remote()
def works_at_attempt(ctx: Any, number: int) -> str:
    if ctx.attempt < number:
        raise RuntimeError(f"not at attempt {ctx.attempt}")
    return str(ctx.attempt)


# --- service levels ---------------------------------------------------------------------------------


def test_execute_sleep(client: Client) -> None:
    def measure() -> float:
        with client.new_session() as session:
            task = tasks.Execute("sleep 1")
            started = time.perf_counter()
            session.submit()
            task.wait()
            return time.perf_counter() - started

    assert kept(0.99, 1.10, measure)


def test_new_session_after_a_running_program(client: Client) -> None:
    def measure() -> float:
        with client.new_session() as session:
            program = tasks.Execute("sleep 60", cpus=2)
            session.submit()
            while program.state is not TaskState.running:
                program.update()
        started = time.perf_counter()
        with client.new_session() as session:
            joined = tasks.Concat([blob("a"), blob("b")])
            joined.keep_outputs()
            session.submit()
            assert joined.output.fetch().get_bytes() == b"ab"
        return time.perf_counter() - started

    assert kept(0.0, 0.2, measure)


def test_directory_of_large_files_through_a_program(client: Client, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in ("one", "sub/two", "sub/three"):
        (tree / name).write_bytes(os.urandom(1 << 20) * 11)
    with client.new_session() as session:
        moved = tasks.Execute(
            "cp -r in out && mv out/one out/sub/moved",
            shell=True,
            input_paths=[InputDir("in", dataobj=directory(tree), write=True)],
            output_paths=[OutputDir("out")],
        )
        moved.keep_outputs()
        session.submit()
        moved.output.fetch(to=tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back" / "sub").iterdir()) == ["moved", "three", "two"]
    assert (tmp_path / "back" / "sub" / "moved").read_bytes() == (tree / "one").read_bytes()
    assert (tmp_path / "back" / "sub" / "two").read_bytes() == (tree / "sub" / "two").read_bytes()


# --- failures ---------------------------------------------------------------------------------------


def test_retries(client: Client) -> None:
    with client.new_session() as session:
        task = works_at_attempt.options(retries=2)(3)
        task.keep_outputs()
        session.submit()
        assert task.output.fetch().get_bytes() == b"3"
        task.update()
        assert task.info.attempts == 3
    with client.new_session() as session:
        task = works_at_attempt.options(retries=1)(3)
        session.submit()
        with pytest.raises(TaskException, match="not at attempt 2") as caught:
            task.wait()
        assert caught.value.attempts == 2


def test_retries_of_a_program(client: Client, tmp_path: Path) -> None:
    count = tmp_path / "count"
    with client.new_session() as session:
        task = tasks.Execute(f"echo >> {count}; test $(wc -l < {count}) = 3", shell=True, retries=5)
        session.submit()
        task.wait()
        task.update()
    assert task.info.attempts == 3


def test_a_session_that_goes_on(client: Client) -> None:
    with client.new_session(on_failure="continue") as session:
        good = number(1)
        bad = works_at_attempt(9)
        dependent = total([bad, good])
        unaffected = total([good, good])
        for task in (good, dependent, unaffected):
            task.keep_outputs()
        session.submit()
        assert unaffected.result() == 2
        for call in (bad.wait, dependent.wait, dependent.output.fetch, dependent.result, session.wait_all):
            with pytest.raises(TaskException, match="not at attempt 1") as caught:
                call()
            assert caught.value.task is bad
        session.wait_all(check=False)
        session.update([good, bad, dependent, unaffected])
        states = [task.state.name for task in (good, bad, dependent, unaffected)]
        assert states == ["finished", "failed", "aborted", "finished"]
        late = total([good, unaffected])
        assert late.result() == 3
        hopeless = total([dependent])
        session.submit()
        with pytest.raises(TaskException, match="not at attempt 1"):
            hopeless.wait()


def test_cancelled_tasks(client: Client) -> None:
    with client.new_session() as session:
        running = work(60)
        program = tasks.Execute("trap '' TERM; sleep 60; sleep 60", shell=True)
        waiting = [work(60), tasks.Sleep(running, 1)]
        finished = number(1)
        running.keep_outputs()
        finished.keep_outputs()
        with pytest.raises(RainException):
            running.cancel()
        session.submit()
        while program.state is not TaskState.running or running.state is not TaskState.running:
            session.update([program, running])
        assert waiting[0].cancel() is True
        assert running.cancel() is True
        assert finished.result(timeout=20) == 1
        started = time.monotonic()
        assert program.cancel() is True
        assert time.monotonic() - started < 20
        assert finished.cancel() is False
        assert running.cancel() is False
        session.update([running, program, *waiting, finished])
        states = [task.state.name for task in (running, program, *waiting, finished)]
        assert states == ["cancelled", "cancelled", "cancelled", "aborted", "finished"]
        for call in (running.wait, running.output.fetch, waiting[1].wait):
            with pytest.raises(TaskCancelled):
                call()
        session.wait_all()
        assert add(1, 2).result() == "3"


def test_cancelled_session(client: Client) -> None:
    with client.new_session() as session:
        finished = number(5)
        assert finished.result() == 5
        unfinished = [work(60) for _ in range(10)]
        dependent = total(unfinished)
        session.submit()
        assert session.cancel() == 11
        session.wait_all()
        session.update([finished, dependent, *unfinished])
        assert {task.state for task in unfinished} == {TaskState.cancelled}
        assert dependent.state is TaskState.cancelled
        assert finished.result() == 5
        assert total([finished, finished]).result() == 10


def test_a_task_that_no_worker_can_run(client: Client) -> None:
    """A warning tells why within about a second; the task waits for a worker that can."""
    with client.new_session() as session:
        task = tasks.Sleep(blob("x"), 0, cpus=8)
        session.submit()
        told = pytest.warns(RainWarning, match="needs cpus=8; largest worker offers cpus=2")
        with told, pytest.raises(RainTimeoutError):
            task.wait(timeout=3)
        task.update()
        assert task.state is TaskState.ready


def test_no_worker_is_connected() -> None:
    with LocalCluster(1, cpus=1, timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        (worker,) = client.get_server_info()["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        task = add(1, 2)
        task.keep_outputs()
        session.submit()
        with pytest.warns(RainWarning, match="no worker is connected"), pytest.raises(RainTimeoutError):
            task.wait(timeout=7)
        cluster.add_worker(1)
        assert task.output.fetch(timeout=20).get_bytes() == b"3"


def test_recomputation_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    with LocalCluster([1, 1], timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        loaded = tasks.Load(str(path))
        loaded.keep_outputs()
        session.submit()
        loaded.wait()
        loaded.update()
        path.unlink()
        holders = {worker["worker_id"]: worker["pid"] for worker in client.get_server_info()["workers"]}
        os.kill(holders[loaded.info.worker], signal.SIGKILL)
        with pytest.raises(TaskException, match="recomput") as caught:
            loaded.output.fetch(timeout=20)
        assert str(path) in caught.value.message


def test_values_that_cannot_be_decoded(client: Client) -> None:
    with client.new_session() as session:
        broken = blob(b"{", content_type="json")
        broken.keep()
        session.submit()
        with pytest.raises(RainException, match="json"):
            broken.result()
        with pytest.raises(RainException, match="json"):
            broken.fetch().load()
        assert broken.fetch().get_bytes() == b"{"
