"""The result cache with real clusters, and with a real Memcached."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rain.client import Client, blob, delayed, remote, tasks
from rain.memcache.testing.servers import MemcachedServer, missing_program
from tests.cluster.program_tasks import program

pytestmark = pytest.mark.timeout(120)

NEEDS_MEMCACHED = pytest.mark.skipif(missing_program("memcached") is not None, reason="memcached is not installed")

COUNTING = """
def work(n):
    import os, time
    with open({log!r}, "a") as log:
        log.write(f"{{n}}\\n")
    time.sleep({seconds})
    return n * {factor}
"""


class Cluster:
    """A server and workers, each a process."""

    def __init__(self, folder: Path, cache: list[str], workers: int = 1, cpus: int = 2) -> None:
        self.folder = folder
        folder.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.access_file = str(folder / "access.json")
        self._start("server", "--listen", "127.0.0.1:0", "--http-listen", "none", *cache)
        port = json.loads((folder / "access.json").read_text())["port"]
        for _ in range(workers):
            self._start("worker", f"127.0.0.1:{port}", "--cpus", str(cpus))

    def _start(self, verb: str, *options: str) -> None:
        number = len(self._processes)
        ready, log = self.folder / f"ready{number}", self.folder / f"{verb}{number}.log"
        places = ["--workdir", str(self.folder / f"work{number}"), "--logdir", str(self.folder / f"logs{number}")]
        files = ["--access-file", self.access_file, "--ready-file", str(ready)]
        with log.open("wb") as stderr:
            command = [sys.executable, "-m", "rain", verb, *options, *places, *files]
            self._processes.append(subprocess.Popen(command, stderr=stderr))
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert time.monotonic() < deadline, log.read_text()
            assert self._processes[-1].poll() is None, log.read_text()
            time.sleep(0.02)

    def logs(self) -> str:
        """What all workers said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("worker*.log")))

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait()


def wait_until_stored(folder: Path, entries: int) -> None:
    """Results are stored after they were told; a worker that is killed before loses them."""
    deadline = time.monotonic() + 30
    while sum(path.is_file() for path in folder.rglob("*")) < entries:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_logged(cluster: Cluster, text: str) -> None:
    """A thread of its own writes the log."""
    deadline = time.monotonic() + 30
    while text not in cluster.logs():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    with ExitStack() as stack:

        def start(name: str, *cache: str, **more: Any) -> Cluster:
            cluster = Cluster(tmp_path / name, list(cache), **more)
            stack.callback(cluster.close)
            return cluster

        yield start


@contextmanager
def session(cluster: Cluster, **options: Any) -> Iterator[Any]:
    with Client(access_file=cluster.access_file) as client, client.new_session(**options) as session:
        yield session


def work(log: Path, *, seconds: float = 0.0, factor: int = 2) -> Any:
    """A function that notes its runs, and computes something."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(COUNTING.format(log=str(log), seconds=seconds, factor=factor), scope)
    return scope["work"]


def runs(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_results_are_shared_by_the_sessions_of_a_server(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one"), tmp_path / "log"
    for again in (False, True):
        with session(cluster):
            task = delayed(work(log), cache=True)(4)
            assert task.result() == 8
            task.update()
            assert task.info.cached is again
            assert task.info.attempts == (0 if again else 1)
    assert runs(log) == 1


@pytest.mark.parametrize("change", ["code", "argument", "input", "env", "nothing"])
def test_what_changes_a_result(start: Callable[..., Cluster], tmp_path: Path, change: str) -> None:
    cluster, log = start("one"), tmp_path / "log"

    def ask(*, factor: int = 2, number: int = 3, env: dict[str, str] | None = None) -> None:
        with session(cluster):
            made = delayed(work(log, factor=factor), cache=True, env=env or {"SOME": "1"})
            made(delayed(abs)(number) if change == "input" else number).result()

    ask()
    changed: dict[str, Any] = {
        "code": {"factor": 3},
        "argument": {"number": 4},
        "input": {"number": 5},
        "env": {"env": {"SOME": "2"}},
        "nothing": {},
    }[change]
    ask(**changed)
    assert runs(log) == (1 if change == "nothing" else 2)


def test_programs_and_built_in_tasks(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one"), tmp_path / "log"
    for again in (False, True):
        with session(cluster) as opened:
            task = program(
                f"echo run >> {log}; cat in > out", inputs={"in": blob("text")}, outputs={"out": "blob"}, cache=True
            )
            joined = tasks.concat((task.output, blob("b")), cache=True)
            joined.output.keep()
            opened.submit()
            assert joined.output.fetch().get_bytes() == b"textb"
            joined.update()
            assert joined.info.cached is again
    assert runs(log) == 1


def test_directories(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one"), tmp_path / "log"
    script = (
        f"echo run >> {log}; mkdir out; echo one > out/file; ln -s file out/link; head -c 200000 /dev/zero > out/big"
    )
    for number in range(2):
        with session(cluster) as opened:
            task = program(script, outputs={"out": "dir"}, cache=True)
            task.output.keep()
            opened.submit()
            target = tmp_path / f"copy{number}"
            task.output.fetch().write(target)
            assert (target / "link").read_text() == "one\n"
            assert (target / "big").stat().st_size == 200_000
    assert runs(log) == 1


def test_a_chain_of_cached_tasks(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one"), tmp_path / "log"
    for _ in range(2):
        with session(cluster):
            step = delayed(work(log), cache=True)
            task = step(1)
            for _ in range(5):
                task = step(task)
            assert task.result() == 64
    assert runs(log) == 6


def test_remote_functions_and_arrays(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one"), tmp_path / "log"
    plain = work(log)

    def with_context(ctx: Any, n: int) -> str:
        return str(plain(n))

    for _ in range(2):
        with session(cluster) as opened:
            task = remote(with_context, cache=True)(3)
            task.output.keep()
            opened.submit()
            assert task.output.fetch().get_bytes() == b"6"
            assert opened.map(plain, range(10, 14), cache=True).result() == [20, 22, 24, 26]
    assert runs(log) == 5


def test_a_text_as_key(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one"), tmp_path / "log"
    for factor in (2, 3):
        with session(cluster):
            assert delayed(work(log, factor=factor), cache="version 1")(3).result() == 6
    assert runs(log) == 1


def test_failures_are_not_cached(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one"), tmp_path / "log"
    plain = work(log)

    def fails(n: int) -> None:
        plain(n)
        raise ValueError("always")

    for _ in range(2):
        with session(cluster), pytest.raises(Exception, match="always"):
            delayed(fails, cache=True)(1).result()
    assert runs(log) == 2


def test_without_a_cache(start: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster, log = start("one", "--cache", "none"), tmp_path / "log"
    for _ in range(2):
        with session(cluster):
            assert delayed(work(log), cache=True)(1).result() == 2
    assert runs(log) == 2


def test_a_directory_outlives_its_cluster(start: Callable[..., Cluster], tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("one", "two"):
        cluster = start(name, "--cache", f"dir:{tmp_path / 'results'}")
        with session(cluster):
            assert delayed(work(log), cache=True)(1).result() == 2
        wait_until_stored(tmp_path / "results" / "results", 1)
        cluster.close()
    assert runs(log) == 1


def test_a_broken_directory_costs_nothing(start: Callable[..., Cluster], tmp_path: Path) -> None:
    place, log = tmp_path / "results", tmp_path / "log"
    cluster = start("one", "--cache", f"dir:{place}")
    with session(cluster):
        assert delayed(work(log), cache=True)(1).result() == 2
    wait_until_stored(place / "results", 1)
    for entry in (place / "results").rglob("*"):
        if entry.is_file():
            entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    with session(cluster):
        assert delayed(work(log), cache=True)(1).result() == 2
        assert delayed(work(log), cache=True)(1).result() == 2
    assert runs(log) == 2
    wait_until_logged(cluster, "refused and removed")
    assert cluster.logs().count("refused and removed") == 1


def test_wrong_choices_are_told_at_the_start(tmp_path: Path) -> None:
    for choice, said in (("redis://x", "--cache is dir"), ("dir:/proc/nowhere", "/proc/nowhere")):
        command = [sys.executable, "-m", "rain", "server", "--listen", "127.0.0.1:0", "--http-listen", "none"]
        places = ["--workdir", str(tmp_path / "work"), "--logdir", str(tmp_path / "logs")]
        told = subprocess.run([*command, *places, "--cache", choice], capture_output=True, text=True, timeout=30)
        assert told.returncode != 0
        assert "result cache cannot be used" in told.stderr
        assert said in told.stderr


# --- Memcached ---


@pytest.fixture
def memcached() -> Iterator[MemcachedServer]:
    with MemcachedServer() as server:
        yield server


def url(server: MemcachedServer, tmp_path: Path) -> list[str]:
    return ["--cache", f"memcached://127.0.0.1:{server.address.port}?key_file={tmp_path / 'cache.key'}"]  # type: ignore[union-attr]


@NEEDS_MEMCACHED
def test_two_clusters_share_a_memcached(
    memcached: MemcachedServer, start: Callable[..., Cluster], tmp_path: Path
) -> None:
    clusters, log = [start(name, *url(memcached, tmp_path)) for name in ("one", "two")], tmp_path / "log"
    big = bytes(3 << 20)
    for cluster in clusters:
        with session(cluster):
            task = delayed(work(log), cache=True)(4)
            assert task.result() == 8
            task.update()
            assert task.info.cached is (cluster is clusters[1])
            assert delayed(lambda n: bytes(n), cache=True)(3 << 20).result() == big
    assert runs(log) == 1
    with session(clusters[1]):
        assert delayed(work(log, factor=3), cache=True)(4).result() == 12
        assert delayed(work(log), cache=True)(5).result() == 10
        assert delayed(work(log), cache=True, env={"OTHER": "1"})(4).result() == 8
    assert runs(log) == 4


@NEEDS_MEMCACHED
def test_many_workers_compute_a_missing_result_once(
    memcached: MemcachedServer, start: Callable[..., Cluster], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    clusters = [start(f"c{number}", *url(memcached, tmp_path), workers=5, cpus=5) for number in range(2)]
    with ExitStack() as stack:
        sessions = [stack.enter_context(session(cluster)) for cluster in clusters]
        made = []
        for opened in sessions:
            with opened.bind_only():
                made += [delayed(work(log, seconds=1.0), cache=True)(7) for _ in range(25)]
            opened.submit()
        assert [task.result() for task in made] == [14] * 50
    assert runs(log) == 1


@NEEDS_MEMCACHED
def test_strangers_are_not_believed(memcached: MemcachedServer, start: Callable[..., Cluster], tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("mine", "theirs"):
        (tmp_path / f"{name}.dir").mkdir()
        cluster = start(name, *url(memcached, tmp_path / f"{name}.dir"))
        with session(cluster):
            assert delayed(work(log), cache=True)(1).result() == 2
    assert runs(log) == 2
    wait_until_logged(cluster, "refused and removed")


@NEEDS_MEMCACHED
def test_a_dead_memcached_costs_nothing_but_the_answer(
    memcached: MemcachedServer, start: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster, log = start("one", *url(memcached, tmp_path)), tmp_path / "log"
    with session(cluster):
        assert delayed(work(log), cache=True)(1).result() == 2
        memcached.pause()
        begin = time.monotonic()
        assert delayed(work(log), cache=True)(2).result() == 4
        assert time.monotonic() - begin < 20
        memcached.resume()
        memcached.kill()
        assert [delayed(work(log), cache=True)(n).result() for n in range(10, 20)] == list(range(20, 40, 2))
    assert runs(log) == 12
    wait_until_logged(cluster, "The result cache fails, tasks run without it")
    assert cluster.logs().count("The result cache fails, tasks run without it") == 1
