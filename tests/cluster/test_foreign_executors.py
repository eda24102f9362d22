"""Executors in other languages, by the public protocol, in a real cluster: the examples in C and plain Python."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rain.client import Client, OutputDir, Task, TaskCancelled, TaskException, blob, directory
from rain.testing.leaks import no_leaks

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TIMEOUT = 20.0
BUSY = 3.0
"""Seconds by which a busy machine may exceed the limits, which are those of an idle one."""

CONFIGURATION = """
[executors.c]
command = "{c}"
[executors.plain]
command = ["{python}", "{plain}"]
[executors.silent]
command = "sleep 600"
[executors.wrong]
command = "{c}"
[executors.tree]
command = ["{python}", "{tree}"]
[executors.early]
command = ["sh", "-c", "echo this is stdout; echo this is stderr >&2; exit 3"]
"""

TREE_EXECUTOR = """
import io, os, shutil, sys, tarfile
sys.path.insert(0, {example!r})
import executor

def answer(call):
    kind, value = call["inputs"][0]["location"]
    shutil.rmtree("tree", ignore_errors=True)
    if kind == "path":
        shutil.copytree(value, "tree", copy_function=shutil.copyfile)
        os.chmod("tree", 0o755)
    else:
        tarfile.open(fileobj=io.BytesIO(value)).extractall("tree", filter="data")
    with open("tree/how", "w") as file:
        file.write(kind)
    location = ["path", os.path.abspath("tree")]
    return {{"task": call["spec"]["id"], "success": True, "outputs": [{{"location": location}}]}}

executor.answer, executor.TYPE = answer, "tree"
executor.main()
"""


def wait_for_file(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + TIMEOUT
    while not path.exists():
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def c_executor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in C, built as its README says."""
    program = tmp_path_factory.mktemp("build") / "rain-executor-c"
    subprocess.run(["make", "--silent", "-C", EXAMPLES / "executor-c", f"OUT={program}"], check=True, timeout=60)
    return program


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """What is left is checked when the cluster has ended: executors that wait for work are none of it."""


@pytest.fixture(scope="module")
def cluster(c_executor: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server and one worker with the executors."""
    folder = tmp_path_factory.mktemp("cluster")
    configuration = folder / "worker.toml"
    plain = EXAMPLES / "executor-python" / "executor.py"
    tree = folder / "tree.py"
    tree.write_text(TREE_EXECUTOR.format(example=str(plain.parent)), "utf-8")
    text = CONFIGURATION.format(c=c_executor, python=sys.executable, plain=plain, tree=tree)
    configuration.write_text(text, "utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    environment = {**clean, "PYTHONPATH": str(ROOT), "RAIN_ACCESS_DIR": str(folder / "access")}
    with no_leaks(), contextlib.ExitStack() as stack:

        def start(verb: str, *arguments: str) -> None:
            ready = folder / f"{verb}.ready"
            command = [sys.executable, "-m", "rain", verb, *arguments, f"--ready-file={ready}"]
            directories = [f"--logdir={folder}/{verb}-log", f"--workdir={folder}/{verb}"]
            with open(folder / f"{verb}.err", "wb") as log:
                process = subprocess.Popen([*command, *directories], env=environment, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_for_file(ready, process)

        start("server", "--listen=127.0.0.1:0")
        (access_file,) = (folder / "access").glob("*.json")
        port = access_file.stem.rpartition("-")[2]
        options = ["--cpus=2", f"--config={configuration}", "--executor-timeout=3", "--spare-executors=0"]
        start("worker", f"127.0.0.1:{port}", *options)
        yield stack.enter_context(Client("127.0.0.1", port, access_file=access_file))


def make(task_type: str, *inputs: Any, config: Any = None) -> Any:
    return Task(task_type, config, inputs=[blob(value) for value in inputs], outputs=1)


def result(client: Client, task_type: str, *inputs: Any, config: Any = None) -> Any:
    with client.new_session():
        return make(task_type, *inputs, config=config).result(timeout=TIMEOUT)


def failure(client: Client, task_type: str, *inputs: Any, config: Any = None, within: float = 0.5) -> str:
    """The error text of a task that fails; the worker serves the next one."""
    with client.new_session() as session:
        task = make(task_type, *inputs, config=config)
        session.submit()
        start = time.monotonic()
        with pytest.raises(TaskException) as caught:
            task.wait(timeout=TIMEOUT)
        assert time.monotonic() - start < within + BUSY
        assert caught.value.task is task
    assert result(client, "c/hello", "world") == b"Hello world"
    return caught.value.message


@pytest.mark.parametrize("kind", ["c", "plain"])
def test_methods(cluster: Client, kind: str) -> None:
    assert result(cluster, f"{kind}/hello", "world") == b"Hello world"
    assert result(cluster, f"{kind}/hello", "world", config="Good day, ") == b"Good day, world"
    assert result(cluster, f"{kind}/sum", "1", "2.5", "-10") == b"-6.5"
    text = "it is 'quoted' \u00e4"
    assert failure(cluster, f"{kind}/fail", config=text) == (text if kind == "c" else f"RuntimeError: {text}")


@pytest.mark.parametrize("kind", ["c", "plain"])
def test_large_values_travel_as_files(cluster: Client, kind: str) -> None:
    """From 64 KiB on, to the executor and back."""
    for size in (65_535, 65_536, 3_000_000):
        assert result(cluster, f"{kind}/upper", b"x" * size) == b"X" * size


def test_results_are_inputs_of_other_tasks(cluster: Client) -> None:
    """A graph over two languages; the executors work side by side."""
    with cluster.new_session() as session:
        numbers = [blob(str(number)) for number in range(200)]
        sums = [Task("c/sum", None, inputs=numbers[start::20], outputs=1) for start in range(20)]
        total = Task("plain/sum", None, inputs=sums, outputs=1)
        total.output.keep()
        session.submit()
        assert total.output.fetch(timeout=TIMEOUT).get_bytes() == b"19900"


@pytest.mark.parametrize(("size", "first", "second"), [(100, "memory", "memory"), (300_000, "path", "path")])
def test_directories(cluster: Client, tmp_path: Path, size: int, first: str, second: str) -> None:
    """Small ones come as tar, larger ones as trees; trees go back by their path."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"x" * size)
    with cluster.new_session() as session:
        once = Task("tree/mark", None, inputs=[directory(source)], outputs=[OutputDir("once")])
        twice = Task("tree/mark", None, inputs=[once.output], outputs=[OutputDir("twice")])
        for task in (once, twice):
            task.output.keep()
        session.submit()
        for number, (task, how) in enumerate(((once, first), (twice, second))):
            target = tmp_path / f"target{number}"
            task.output.fetch(timeout=TIMEOUT).write(target)
            assert (target / "sub" / "file").read_bytes() == b"x" * size
            assert (target / "how").read_text() == how


def test_an_idle_executor_is_used_again(cluster: Client) -> None:
    """The next tasks do not pay for a start."""
    with cluster.new_session() as session:
        chain: Any = blob("a")
        for _ in range(50):
            chain = Task("c/hello", "x", inputs=[chain], outputs=1)
        chain.output.keep()
        session.submit()
        assert chain.output.fetch(timeout=TIMEOUT).get_bytes() == b"x" * 50 + b"a"


@pytest.mark.parametrize(
    ("task_type", "within", "expected"),
    [
        ("c/garbage", 0.2, "Malformed message from the executor: not MessagePack"),
        ("c/wrong_id", 0.2, "Malformed message from the executor: a result of task ["),
        ("c/exit", 0.5, "Lost connection to executor\nExecutor terminated with exit code 7\n"),
        ("c/unheard_of", 0.2, "There is no method c/unheard_of"),
        ("plain/fail", 0.2, "RuntimeError: Failed as it should"),
        ("unknown/method", 0.5, "Executor 'unknown' is not registered"),
        ("early/method", 0.5, "Executor unexpectedly terminated with exit code 3\n"),
        ("silent/method", 3.0, "Executor did not register within 3 s\n"),
        ("wrong/method", 0.5, "with protocol 'msgpack-1' and type 'c', expected were protocol 'msgpack-1' or"),
    ],
)
def test_failures(cluster: Client, task_type: str, within: float, expected: str) -> None:
    assert expected in failure(cluster, task_type, "x", within=within)


def test_logs_are_quoted(cluster: Client) -> None:
    early = failure(cluster, "early/method")
    assert "Content of stdout (last 15 bytes):\nthis is stdout\n" in early
    assert "Content of stderr (last 15 bytes):\nthis is stderr\n" in early
    dying = failure(cluster, "c/exit")
    assert "Content of stdout (last 15 bytes):\non its way out\n" in dying
    assert "Content of stderr (last 14 bytes):\nnothing works\n" in dying


def test_a_hanging_task_ends_with_its_session(cluster: Client) -> None:
    with cluster.new_session() as session:
        for _ in range(2):
            make("c/hang")
        session.submit()
        time.sleep(0.1)
    assert result(cluster, "c/hello", "world") == b"Hello world"


def test_cancelling_a_task(cluster: Client) -> None:
    """Its executor is ended, others go on."""
    with cluster.new_session() as session:
        hanging, other = make("c/hang"), make("c/hello", "world")
        other.output.keep()
        session.submit()
        assert other.output.fetch(timeout=TIMEOUT).get_bytes() == b"Hello world"
        assert hanging.cancel(timeout=TIMEOUT) is True
        with pytest.raises(TaskCancelled):
            hanging.wait(timeout=TIMEOUT)
    assert result(cluster, "c/sum", "1", "2") == b"3"


def test_a_wide_graph_after_failures(cluster: Client) -> None:
    """Nothing of the failed runs disturbs the following ones."""
    for _ in range(3):
        failure(cluster, "c/garbage")
    with cluster.new_session() as session:
        words = [Task("c/upper", None, inputs=[blob(f"word {number}")], outputs=1) for number in range(100)]
        for word in words:
            word.output.keep()
        session.submit()
        assert [word.output.fetch(timeout=TIMEOUT).get_str() for word in words] == [f"WORD {n}" for n in range(100)]
