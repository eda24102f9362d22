"""Cancel, time limits and memory limits of real processes; the worker serves the next task, nothing is left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rain.client import Client, LocalCluster, Session, Task, TaskCancelled, TaskException, remote, tasks
from tests.cluster import functions as f
from tests.cluster.program_tasks import program

MIB = 1 << 20


@remote()
def stubborn(ctx: Any, mark: str) -> bytes:
    """Notes its process, and SIGTERM, which it does not obey."""
    import signal

    signal.signal(signal.SIGTERM, lambda *_: open(mark + ".term", "w").close())
    _note(mark, os.getpid())
    time.sleep(60)
    return b"done"


@remote()
def with_grandchildren(ctx: Any, mark: str) -> bytes:
    """Starts a process that does not obey SIGTERM either, and one that does."""
    script = "trap '' TERM; sleep 60 & echo $$ $! > {0}.tmp; mv {0}.tmp {0}; wait; sleep 60"
    first = subprocess.Popen(["sh", "-c", script.format(mark)])
    first.wait()
    return b"done"


@remote()
def hungry(ctx: Any, mark: str, size: int) -> bytes:
    """Takes memory in a child process."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; x = b'x' * {size}; time.sleep(60)"])
    _note(mark, os.getpid(), child.pid)
    child.wait()
    return b"done"


def _note(mark: str, *pids: int) -> None:
    with open(mark + ".tmp", "w") as file:
        file.write(" ".join(map(str, pids)))
    os.rename(mark + ".tmp", mark)


def until(condition: Callable[[], Any], limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def noted(mark: Path) -> list[int]:
    """The processes which a task noted."""
    until(mark.exists)
    return [int(pid) for pid in mark.read_text().split()]


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def next_task_runs(client: Client) -> None:
    with client.new_session() as session:
        task = f.add.options(cpus=2)(20, 22)
        task.output.keep()
        session.submit()
        assert task.output.fetch().get_bytes() == b"42"


def failure(session: Session, task: Task) -> str:
    session.submit()
    with pytest.raises(TaskException) as caught:
        session.wait([task])
    assert caught.value.task is task
    assert not isinstance(caught.value, TaskCancelled)
    return caught.value.message


class TestTimeLimit:
    def test_sleeping_python_task(self, client: Client) -> None:
        with client.new_session() as session:
            task = f.work.options(timeout=0.5)(60.0)
            begin = time.monotonic()
            assert failure(session, task) == "Time limit of 0.5 s exceeded"
            assert time.monotonic() - begin < 20
        next_task_runs(client)

    def test_one_that_does_not_obey_is_killed_after_its_grace(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        next_task_runs(client)  # so that the time limit is not over before the executor is up
        with client.new_session() as session:
            task = stubborn.options(timeout=2.5)(str(mark))
            assert failure(session, task) == "Time limit of 2.5 s exceeded"
            assert (tmp_path / "mark.term").exists()
            assert alive(noted(mark)) == []
        next_task_runs(client)

    def test_grandchildren(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        next_task_runs(client)
        with client.new_session() as session:
            task = with_grandchildren.options(timeout=1.0)(str(mark))
            assert failure(session, task) == "Time limit of 1.0 s exceeded"
            assert alive(noted(mark)) == []
        next_task_runs(client)

    def test_builtin_task(self, client: Client) -> None:
        with client.new_session() as session:
            constant = tasks.concat(())
            task = tasks.sleep(60.0, constant.output)
            task.spec.timeout = 0.25
            assert failure(session, task) == "Time limit of 0.25 s exceeded"
        next_task_runs(client)

    def test_program(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        script = f"trap 'touch {mark}.term' TERM; echo $$ > {mark}.tmp; mv {mark}.tmp {mark}; sleep 60; sleep 60"
        with client.new_session() as session:
            task = program(script, timeout=1.0)
            assert failure(session, task) == "Time limit of 1.0 s exceeded"
            assert (tmp_path / "mark.term").exists()
            assert alive(noted(mark)) == []
        next_task_runs(client)

    def test_tasks_in_time_are_not_disturbed(self, client: Client) -> None:
        with client.new_session() as session:
            made = [f.add.options(timeout=30.0)(n, 1) for n in range(20)]
            for task in made:
                task.output.keep()
            session.submit()
            assert [int(task.output.fetch().get_bytes()) for task in made] == list(range(1, 21))


class TestMemoryLimit:
    def test_python_task_with_a_child(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        with client.new_session() as session:
            task = hungry.options(resources={"memory": "200 MiB"})(str(mark), 256 * MIB)
            assert failure(session, task) == "Memory limit of 200.0 MiB exceeded"
            until(lambda: not alive(noted(mark)))
        next_task_runs(client)

    def test_program(self, client: Client) -> None:
        with client.new_session() as session:
            command = [sys.executable, "-c", f"import time; x = b'x' * {128 * MIB}; time.sleep(60)"]
            task = program(command, resources={"memory": 100 * MIB})
            assert failure(session, task) == "Memory limit of 100.0 MiB exceeded"
        next_task_runs(client)

    def test_less_than_asked_for(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        with client.new_session() as session:
            task = hungry.options(resources={"memory": "1 GiB"})(str(mark), 64 * MIB)
            session.submit()
            processes = noted(mark)
            time.sleep(1.2)
            assert len(alive(processes)) == 2
            assert task.cancel()
        assert alive(processes) == []


class TestCancel:
    def test_running_python_task(self, client: Client) -> None:
        with client.new_session() as session:
            task = f.work(60.0)
            after = tasks.concat([task.output])
            other = f.add(1, 2)
            other.output.keep()
            session.submit()
            until(lambda: client.get_server_info()["workers"][0]["tasks"])
            begin = time.monotonic()
            assert task.cancel()
            assert time.monotonic() - begin < 20
            assert not task.cancel()
            for thing in (task, after):
                with pytest.raises(TaskCancelled):
                    thing.wait()
            assert other.output.fetch().get_bytes() == b"3"
            session.wait_all()
        next_task_runs(client)

    def test_one_that_does_not_obey(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        with client.new_session() as session:
            task = stubborn(str(mark))
            session.submit()
            processes = noted(mark)
            begin = time.monotonic()
            assert task.cancel()
            assert 1.9 < time.monotonic() - begin < 20
            assert alive(processes) == []
            assert (tmp_path / "mark.term").exists()
        next_task_runs(client)

    def test_grandchildren(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        with client.new_session() as session:
            task = with_grandchildren(str(mark))
            session.submit()
            processes = noted(mark)
            assert task.cancel()
            assert alive(processes) == []
        next_task_runs(client)

    def test_closing_the_session_cuts_the_grace_short(self, client: Client, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        next_task_runs(client)
        session = client.new_session()
        stubborn.options(session=session, timeout=1.0)(str(mark))
        session.submit()
        processes = noted(mark)
        until((tmp_path / "mark.term").exists)
        session.close()
        until(lambda: not alive(processes), limit=1.0)
        next_task_runs(client)

    def test_behind_a_task_that_takes_longer_than_expected(self, client: Client, tmp_path: Path) -> None:
        """It shares the batch of a task that does not end, and does not begin when that one ends."""
        gate, second = tmp_path / "gate", tmp_path / "second"
        with client.new_session() as session:
            for _ in range(300):
                quick("", "")
            session.submit()
            session.wait_all()
            first = quick("", str(gate))
            made = [quick(str(second) + str(n), "") for n in range(40)]
            first.output.keep()
            session.submit()
            time.sleep(0.3)
            begin = time.monotonic()
            results = [task.cancel() for task in made[-5:]]
            assert time.monotonic() - begin < 20
            gate.touch()
            session.wait_all()
            assert first.output.fetch().get_bytes() == b"done"
            for cancelled, number in zip(results, range(35, 40), strict=True):
                assert cancelled == (not Path(f"{second}{number}").exists())
        next_task_runs(client)


@remote()
def quick(ctx: Any, mark: str, gate: str) -> bytes:
    """Makes a file and waits for one, if it gets their names."""
    if mark:
        open(mark, "w").close()
    while gate and not os.path.exists(gate):
        time.sleep(0.01)
    return b"done"


def test_resources_in_the_environment(client: Client) -> None:
    with client.new_session() as session:
        task = environment.options(env={"GREETING": "hello", "HOME": None})()
        other = environment()
        for made in (task, other):
            made.output.keep()
        session.submit()
        assert task.output.fetch().get_bytes() == b"hello None"
        assert other.output.fetch().get_bytes().startswith(b"None ")


@remote()
def environment(ctx: Any) -> str:
    return f"{os.environ.get('GREETING')} {os.environ.get('HOME')}"


def test_gpus_are_given_by_index(leak_check: None, tmp_path: Path) -> None:
    with (
        LocalCluster(1, cpus=2, resources={"gpus": 2, "memory": "1 GiB"}, timeout=60) as cluster,
        cluster.client() as client,
        client.new_session() as session,
    ):
        options = {"resources": {"gpus": 1, "memory": "100 MiB"}}
        made = [gpus.options(**options)(str(tmp_path), number) for number in range(2)]
        both = program('echo "$CUDA_VISIBLE_DEVICES $RAIN_TASK_GPUS"', outputs={"+out": "blob"}, resources={"gpus": 2})
        for task in (*made, both):
            task.output.keep()
        session.submit()
        assert sorted(task.output.fetch().get_bytes() for task in made) == [b"0 0", b"1 1"]
        assert both.output.fetch().get_bytes() == b"0,1 0,1\n"


@remote()
def gpus(ctx: Any, folder: str, number: int) -> str:
    """Its gpus; ends when the other one has begun too."""
    open(f"{folder}/{number}", "w").close()
    end = time.monotonic() + 30
    while not os.path.exists(f"{folder}/{1 - number}") and time.monotonic() < end:
        time.sleep(0.01)
    return f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.environ['RAIN_TASK_GPUS']}"
