"""Tasks, programs and executors that do their worst: the documented error comes in time, and the worker goes on.

After every evil the same worker must run a Python function and a program, and in the end nothing of it may be left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rain.client import Client, Input, Task, TaskException, blob, remote, tasks
from rain.testing.leaks import no_leaks
from tests.cluster.functions import add

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
EVIL_EXECUTOR = Path(__file__).with_name("evil_executor.py")
EXECUTORS = [
    *("exits", "never-registers", "hangs", "dies", "greets-with-garbage", "garbage", "huge-frame", "unknown-message"),
    *("fails-without-text", "another-protocol", "another-id", "another-type", "another-task", "too-few-outputs"),
    "path-outside",
]
BUSY = 15.0
"""Seconds by which a busy machine may exceed the limits, which are those of an idle one."""

MARK = "EVIL_TEST"


@dataclass(frozen=True)
class Cluster:
    """A server and one worker with two cpus and the evil executors, started by hand."""

    client: Client
    worker: subprocess.Popen[bytes]
    sandboxes: Path


def until(condition: Any, limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """What is left is checked once, when the cluster has ended: executors that wait for work are none of it."""


@pytest.fixture(scope="module")
def evil_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("evil")
    config = folder / "worker.toml"
    commands = {kind: [sys.executable, str(EVIL_EXECUTOR), kind] for kind in EXECUTORS}
    sections = [f"[executors.{kind}]\ncommand = {json.dumps(command)}\n" for kind, command in commands.items()]
    config.write_text("".join(sections), "utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    environment = {**clean, "PYTHONPATH": str(ROOT), "RAIN_ACCESS_DIR": str(folder / "access")}

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        name = arguments[0]
        directories = [f"--logdir={folder}/{name}-log", f"--workdir={folder}/{name}"]
        ready = folder / f"{name}.ready"
        with (folder / f"{name}.err").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "rain", *arguments, *directories, f"--ready-file={ready}"],
                env=environment,
                stderr=log,
            )
        until(ready.exists)
        return process

    with no_leaks(), contextlib.ExitStack() as stack:

        def ended(process: subprocess.Popen[bytes]) -> None:
            process.kill()
            process.wait()

        stack.callback(ended, start("server", "--listen=127.0.0.1:0"))
        (access_file,) = (folder / "access").glob("*.json")
        address = access_file.stem.rpartition("-")[2]
        worker = start(
            *("worker", f"127.0.0.1:{address}", "--cpus=2", "--memory=4 GiB", f"--config={config}"),
            "--executor-timeout=3",
        )
        stack.callback(ended, worker)
        client = stack.enter_context(Client("127.0.0.1", address, access_file=access_file))
        yield Cluster(client, worker, folder / "worker" / "tmp")


@pytest.fixture
def evil(evil_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster; after the test its worker must work as before, with nothing left of the evil."""
    (before,) = evil_cluster.client.get_server_info()["workers"]
    yield evil_cluster
    with evil_cluster.client.new_session() as session:
        answer = add(20, 22)
        echo = tasks.Execute("cat", stdin=answer, stdout=True)
        echo.keep_outputs()
        session.submit()
        assert echo.output.fetch(timeout=20).get_bytes() == b"42"
    (after,) = evil_cluster.client.get_server_info()["workers"]
    assert (after["worker_id"], after["pid"]) == (before["worker_id"], before["pid"])
    until(lambda: not list(evil_cluster.sandboxes.glob("*")))
    until(lambda: not marked())


def marked() -> list[psutil.Process]:
    """Living processes of tasks that were marked by their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if MARK in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def failure(cluster: Cluster, make: Any, limit: float) -> TaskException:
    """The failure of the one task which `make` makes; it must come within `limit` seconds."""
    with cluster.client.new_session() as session:
        task = make()
        started = time.monotonic()
        session.submit()
        with pytest.raises(TaskException) as caught:
            task.wait(timeout=60)
        assert time.monotonic() - started < limit + BUSY
        assert caught.value.task is task
        assert caught.value.worker == cluster.client.get_server_info()["workers"][0]["worker_id"]
    return caught.value


def shell(command: str, **options: Any) -> Any:
    """A marked shell command."""
    return tasks.Execute(command, shell=True, env={MARK: "1"}, **options)


# --- tasks ------------------------------------------------------------------------------------------


@remote()
def hoard(ctx: Any, mebibytes: int) -> bytes:
    hoarded = []
    for _ in range(mebibytes):
        hoarded.append(os.urandom(1 << 10) * 1024)
    time.sleep(60)
    return bytes(len(hoarded))


@remote()
def sleep_deaf(ctx: Any, seconds: float) -> bytes:
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)
    return b""


@remote()
def spawn(ctx: Any, seconds: float) -> bytes:
    command = f"trap '' TERM HUP; sleep {seconds} & sleep {seconds}"
    subprocess.run(["/bin/sh", "-c", command], env={**os.environ, MARK: "1"}, check=False)
    return b""


def test_task_above_its_memory_limit(evil: Cluster) -> None:
    error = failure(evil, lambda: hoard.options(resources={"memory": "300 MB"})(600), 1.0 + 2.0)
    assert re.search(r"Memory limit of \S+ .?i?B exceeded", error.message)


def test_program_above_its_memory_limit(evil: Cluster) -> None:
    program = f"{sys.executable} -c \"x = b'x' * (600 << 20); import time; time.sleep(60)\""
    error = failure(evil, lambda: shell(program, resources={"memory": "200 MB"}), 1.0 + 1.0)
    assert re.search(r"Memory limit of \S+ .?i?B exceeded", error.message)


def test_task_above_its_time_limit(evil: Cluster) -> None:
    error = failure(evil, lambda: sleep_deaf.options(timeout=1.0)(60), 1.0 + 2.5)
    assert "Time limit of 1.0 s exceeded" in error.message


def test_built_in_task_above_its_time_limit(evil: Cluster) -> None:
    def make() -> Any:
        task = tasks.Sleep(blob("x"), 60)
        task.spec.timeout = 0.5
        return task

    assert "Time limit of 0.5 s exceeded" in failure(evil, make, 0.5 + 2.5).message


def test_program_that_ignores_sigterm(evil: Cluster) -> None:
    error = failure(evil, lambda: shell("trap '' TERM HUP INT; sleep 600; sleep 600", timeout=0.5), 0.5 + 2.5)
    assert "Time limit of 0.5 s exceeded" in error.message


def test_program_with_grandchildren(evil: Cluster) -> None:
    grandchildren = "sh -c 'sh -c \"sleep 600\" & sleep 600' & sleep 600"
    error = failure(evil, lambda: shell(grandchildren, timeout=0.5), 0.5 + 2.5)
    assert "Time limit of 0.5 s exceeded" in error.message
    until(lambda: not marked(), 2.5 + BUSY)


def test_task_with_grandchildren(evil: Cluster) -> None:
    error = failure(evil, lambda: spawn.options(timeout=1.0)(600), 1.0 + 2.5)
    assert "Time limit of 1.0 s exceeded" in error.message
    until(lambda: not marked(), 2.5 + BUSY)


def test_session_that_ends_takes_grandchildren_along(evil: Cluster) -> None:
    with evil.client.new_session() as session:
        shell("trap '' TERM; sleep 600 & sleep 600")
        session.submit()
        until(lambda: len(marked()) >= 3)
    until(lambda: not marked(), 0.3 + BUSY)


@remote()
def harm(ctx: Any, how: str) -> bytes:
    import shutil
    import signal

    if how == "closes all descriptors":
        os.closerange(3, 1000)
    elif how == "writes to all descriptors":
        for descriptor in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"\xff" * 1000)
    elif how == "closes its output":
        sys.stdout.close()
        sys.stderr.close()
        os.close(1)
        os.close(2)
    elif how == "deletes its work directory":
        shutil.rmtree(os.path.dirname(os.getcwd()))
    elif how == "leaves its directory":
        os.chdir("/")
    elif how == "ends with a signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "stops itself":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "forks":
        os.fork()
    elif how == "raises a long text":
        raise ValueError("x" * 50_000_000)
    elif how == "exits":
        sys.exit(4)
    return b"did it"


@pytest.mark.parametrize("how", ["closes its output", "deletes its work directory", "leaves its directory", "forks"])
def test_task_that_harms_only_itself(evil: Cluster, how: str) -> None:
    with evil.client.new_session():
        assert harm(how).result(timeout=20) == b"did it"


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("closes all descriptors", "Lost connection to executor"),
        ("writes to all descriptors", "Malformed message from the executor"),
        ("ends with a signal", "Lost connection to executor"),
        ("stops itself", "Time limit of 0.5 s exceeded"),
        ("raises a long text", "... (cut)"),
        ("exits", "SystemExit: 4"),
    ],
)
def test_task_that_harms_its_process(evil: Cluster, how: str, text: str) -> None:
    error = failure(evil, lambda: harm.options(timeout=0.5 if how == "stops itself" else None)(how), 0.5 + 2.5)
    assert text in error.message
    assert len(error.message) < 2 << 20


# --- programs ---------------------------------------------------------------------------------------


def test_program_that_is_not_found(evil: Cluster) -> None:
    error = failure(evil, lambda: tasks.Execute("no-such-program-anywhere --help"), 0.2)
    assert "no-such-program-anywhere" in error.message
    assert "No such file or directory" in error.message


def test_program_that_cannot_be_executed(evil: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n", "utf-8")
    script.chmod(0o644)
    error = failure(evil, lambda: tasks.Execute([str(script)]), 0.2)
    assert str(script) in error.message
    assert "Permission denied" in error.message


def test_program_that_writes_a_gibibyte_to_stderr(evil: Cluster) -> None:
    error = failure(evil, lambda: shell("head -c 1073741824 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 3"), 20)
    head, _, quoted = error.message.partition("\n")
    assert head == "Program exit with exit code 3"
    assert quoted.startswith("Stderr: ")
    assert quoted.rstrip().endswith("xxx" + "the end")
    assert 64 << 10 <= len(error.message) < 66 << 10
    assert len(str(error)) < 70 << 10


def test_program_killed_by_a_signal(evil: Cluster) -> None:
    error = failure(evil, lambda: shell("echo before the end >&2; kill -SEGV $$"), 0.2)
    assert error.message.startswith("Program terminated by signal 11")
    assert "before the end" in error.message


def test_program_that_deletes_its_directory(evil: Cluster) -> None:
    with evil.client.new_session() as session:
        deleting = shell('rm -rf "$PWD"; true')
        session.submit()
        deleting.wait(timeout=20)
    error = failure(evil, lambda: shell('rm -rf "$PWD"; true', output_paths=["result"]), 0.2)
    assert "result" in error.message


def test_program_that_deletes_its_streams(evil: Cluster) -> None:
    error = failure(evil, lambda: shell("rm -f ./*; echo lost; exit 4", stdin=blob("x"), stdout=True), 0.2)
    assert error.message.startswith("Program exit with exit code 4\nStderr: (cannot be read")
    error = failure(evil, lambda: shell("rm -f ./*; mkfifo +err; exit 4"), 0.2)
    assert error.message.startswith("Program exit with exit code 4\nStderr: (cannot be read")
    error = failure(evil, lambda: shell("rm -f ./*; echo lost", stdin=blob("x"), stdout=True), 0.2)
    assert "'+out'" in error.message


@pytest.mark.parametrize("size", [100, 200_000])
def test_program_that_changes_a_linked_input(evil: Cluster, size: int) -> None:
    """The task fails with the path, and the stored value is unharmed."""
    with evil.client.new_session(on_failure="continue") as session:
        value = blob(b"x" * size)
        value.keep()
        changing = shell("echo changed > input", input_paths=[Input("input", dataobj=value)])
        replacing = shell("rm input; echo new > input", input_paths=[Input("input", dataobj=value)])
        session.submit()
        with pytest.raises(TaskException) as caught:
            changing.wait(timeout=20)
        assert "input" in caught.value.message
        replacing.wait(timeout=20)
        assert value.fetch().get_bytes() == b"x" * size


def test_program_that_leaves_a_child_behind(evil: Cluster) -> None:
    """The task ends with the program, not with who inherited its streams; the child ends with the session."""
    with evil.client.new_session() as session:
        leaving = shell("sleep 600 & echo started", stdout=True)
        leaving.keep_outputs()
        session.submit()
        assert leaving.output.fetch(timeout=20).get_bytes() == b"started\n"
    until(lambda: not marked())


def test_program_that_forks_a_daemon(evil: Cluster) -> None:
    """A process that left the group of its program is no longer known; it disturbs neither task nor worker."""
    with evil.client.new_session() as session:
        daemon = shell("setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo started", stdout=True)
        daemon.keep_outputs()
        session.submit()
        assert daemon.output.fetch(timeout=20).get_bytes() == b"started\n"
    for process in marked():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


# --- executors --------------------------------------------------------------------------------------


def test_executor_that_exits(evil: Cluster) -> None:
    error = failure(evil, lambda: evil_task("exits"), 0.5)
    assert error.message.startswith("Executor unexpectedly terminated with ")
    assert "Content of stdout (last 23 bytes):\nwritten before the end" in error.message
    assert "Content of stderr (last 14 bytes):\nnothing works" in error.message


def test_executor_that_never_registers(evil: Cluster) -> None:
    error = failure(evil, lambda: evil_task("never-registers"), 3.0)
    assert error.message.startswith("Executor did not register within 3 s")


def test_executor_that_hangs(evil: Cluster) -> None:
    error = failure(evil, lambda: evil_task("hangs", timeout=0.5), 0.5 + 2.5)
    assert "Time limit of 0.5 s exceeded" in error.message


def test_executor_that_dies_in_a_task(evil: Cluster) -> None:
    error = failure(evil, lambda: evil_task("dies"), 0.5)
    assert error.message.startswith("Lost connection to executor")
    assert "the last words" in error.message


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("greets-with-garbage", ()),
        ("another-protocol", ("msgpack-7",)),
        ("another-type", ("something-else", "another-type")),
        ("another-task", ("task",)),
        ("garbage", ()),
        ("huge-frame", ("4294967295",)),
        ("unknown-message", ("nonsense",)),
        ("too-few-outputs", ("output",)),
        ("path-outside", ("/etc/passwd",)),
        ("fails-without-text", ("error",)),
    ],
)
def test_executor_that_breaks_the_protocol(evil: Cluster, kind: str, texts: tuple[str, ...]) -> None:
    """The task fails with a text that names the defect, and the process is killed."""
    error = failure(evil, lambda: evil_task(kind, env={MARK: "1"}), 0.5)
    assert error.message
    for text in texts:
        assert text in error.message
    until(lambda: not marked())


def test_executor_that_lies_about_its_id(evil: Cluster) -> None:
    """The connection already tells which executor it is: a differing id is only logged."""
    with evil.client.new_session():
        assert evil_task("another-id").result(timeout=20) == b"good"


def test_executor_that_is_not_configured(evil: Cluster) -> None:
    error = failure(evil, lambda: Task("nobody/method", inputs=(blob("x"),), outputs=1), 0.5)
    assert "Executor 'nobody' is not registered" in error.message


def evil_task(kind: str, **options: Any) -> Any:
    return Task(f"{kind}/method", inputs=(blob("x"),), outputs=1, **options)
