"""Programs through real processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from rain.client import Client, LocalCluster, Output, Task, TaskException, blob
from tests.cluster.program_tasks import program, until

MB = 1 << 20


def kept(task: Task) -> Task:
    task.keep_outputs()
    return task


def failure_of(client: Client, make: object) -> TaskException:
    assert callable(make)
    with client.new_session() as session:
        make()
        session.submit()
        with pytest.raises(TaskException) as caught:
            session.wait_all(timeout=20)
    return caught.value


def test_sleep_of_a_second(client: Client) -> None:
    with client.new_session() as session:
        task = program(["sleep", "1"])
        start = time.monotonic()
        session.submit()
        task.wait()
        assert 0.99 < time.monotonic() - start < 20  # test_semantics.py has the limits of an idle machine


def test_values_go_through_programs(client: Client) -> None:
    with client.new_session() as session:
        first = program("echo hello; cat", inputs={"+in": blob("in")}, outputs={"+out": "blob"})
        second = kept(program("tr a-z A-Z < x", inputs={"x": first.output}, outputs={"+out": "blob"}))
        big = kept(program("cat x x > y", inputs={"x": blob(b"x" * (11 * MB))}, outputs={"y": "blob"}))
        session.submit()
        assert second.output.fetch().get_bytes() == b"HELLO\nIN"
        assert big.output.fetch().get_bytes() == b"x" * (22 * MB)
        big.update()
        assert big.output.size == 22 * MB


def test_environment_of_a_program(client: Client) -> None:
    with client.new_session() as session:
        command = 'echo "$RAIN_TASK_ID $RAIN_TASK_CPUS $RAIN_TASK_RUN $RAIN_TOKEN $X"; pwd'
        task = kept(program(command, outputs={"+out": "blob"}, cpus=2, env={"X": "x"}))
        session.submit()
        first, directory = task.output.fetch().get_str().splitlines()
        assert first == f"{task.id} 2 1  x"
        assert Path(directory).parent.name == "tmp"
        assert Path(directory).name.startswith(f"{task.id.session_id}-{task.id.id}.")
        until(lambda: not os.listdir(Path(directory).parent))


def test_failures_of_programs(client: Client) -> None:
    error = failure_of(client, lambda: program("echo bad >&2; exit 7"))
    assert error.message == "Program exit with exit code 7\nStderr: bad\n"
    error = failure_of(client, lambda: program("kill -11 $$"))
    assert error.message.startswith("Program terminated by signal 11")
    error = failure_of(client, lambda: program(["/no/such/program"]))
    assert error.message == "[Errno 2] No such file or directory: '/no/such/program'"
    error = failure_of(client, lambda: program("true", outputs={"a/b": "blob"}))
    assert "'a/b'" in error.message


def test_files_of_the_machine(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"f" * 3 * MB)
    with client.new_session() as session:
        loaded = kept(Task("buildin/open", {"path": str(tmp_path / "f")}, (), ["x"]))
        small = Task("!export", {"path": str(tmp_path / "small")}, [blob("small")], ())
        large = Task("buildin/export", {"path": str(tmp_path / "large")}, [loaded.output], ())
        session.submit()
        session.wait([small, large], timeout=20)
        assert loaded.output.fetch().get_bytes() == b"f" * 3 * MB
    assert (tmp_path / "small").read_bytes() == b"small"
    assert (tmp_path / "large").read_bytes() == b"f" * 3 * MB
    for path in ("relative", str(tmp_path / "missing"), str(tmp_path)):
        error = failure_of(client, lambda path=path: Task("!open", {"path": path}, (), ["x"]))
        assert repr(path) in error.message


def test_no_program_outlives_its_session(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with client.new_session() as session:
        program(f"sleep 1000 & echo $! $$ > {mark}.new; mv {mark}.new {mark}; wait")
        session.submit()
        until(mark.exists)
        pids = [int(pid) for pid in mark.read_text().split()]
    with client.new_session() as session:
        task = kept(Task("buildin/concat", None, [blob("x")], 1))
        session.submit()
        assert task.output.fetch().get_bytes() == b"x"
    until(lambda: not any(map(psutil.pid_exists, pids)))


def test_programs_die_with_a_killed_worker(tmp_path: Path, leak_check: None) -> None:
    mark = tmp_path / "mark"
    with LocalCluster(1, timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        program(f"sleep 1000 & echo $! $$ $PPID > {mark}.new; mv {mark}.new {mark}; wait")
        session.submit()
        until(mark.exists)
        *pids, worker = [int(pid) for pid in mark.read_text().split()]
        os.kill(worker, 9)
        until(lambda: not any(map(running, pids)))


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_many_programs(client: Client) -> None:
    with client.new_session() as session:
        programs = [program("cat", inputs={"+in": blob(str(n))}, outputs={"+out": "blob"}) for n in range(100)]
        joined = kept(Task("buildin/concat", None, [task.output for task in programs], [Output("all")]))
        session.submit()
        assert joined.output.fetch().get_str() == "".join(map(str, range(100)))
