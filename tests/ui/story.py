"""A cluster with a past worth looking at."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from examples import census
from rain.client import Client, LocalCluster, TaskException, blob, remote

ROOT = Path(__file__).resolve().parents[2]
FILES = 120
MANY = 100_000


def _fold(ctx: Any, number: Any) -> bytes:
    """Fail at the third fold, and say so before."""
    n = int(number.get_bytes())
    print(f"fold {n}", flush=True)
    if n == 3:
        raise ValueError("fold 3 is empty")
    time.sleep(0.05)
    return b"score"


# Tracebacks are in pictures: they shall not show where this file lies.
_fold.__code__ = _fold.__code__.replace(co_filename="model.py", co_name="fold")
fold = remote()(_fold)


@remote()
def patient(ctx: Any, path: Any) -> bytes:
    """Wait until a file exists."""
    print("waiting for the file", flush=True)
    end = time.monotonic() + 240
    while not Path(path.get_bytes().decode()).exists():
        if time.monotonic() > end:
            raise TimeoutError("nobody made the file within 240 s")
        time.sleep(0.02)
    print("there it is", flush=True)
    return b"done"


def square(x: int) -> int:
    """A task that takes no time."""
    return x * x


@dataclass
class Story:
    """Sessions by their numbers; `client` is there for more.

    Attributes:
        url: of the dashboard, ends with a slash.
        census, failing, many: numbers of sessions.
        census_tasks: how many tasks the census has. census_task: id of one.
        failed_task: id of the task that failed.
        folder: for files that tests make.
    """

    url: str
    client: Client
    census: int
    failing: int
    many: int
    census_tasks: int
    census_task: int
    failed_task: int
    folder: Path

    def page(self, path: str) -> str:
        """Address of a page."""
        return f"{self.url}#/{path}"


def run_census(client: Client) -> tuple[Any, list[Any]]:
    """The example on a part of Rain itself; gives the session, still open, and its tasks."""
    files = dict(list(census.read_tree(ROOT / "rain").items())[:FILES])
    session = client.new_session("census")
    with session.bind_only():
        tasks, root = census.build(files)
        root.output.keep()
        session.submit()
        session.wait_all()
    return session, tasks


def run_failing(client: Client) -> tuple[int, int]:
    """Cross-validation whose third fold fails; gives the session's number and the task's id."""
    with client.new_session("failing") as session:
        tasks = [fold(blob(str(n).encode())) for n in range(1, 7)]
        for n, task in enumerate(tasks, 1):
            task.spec.name = f"train/fold/{n}"
        session.submit()
        try:
            session.wait_all()
        except TaskException:
            return session.session_id, tasks[2].id.id
    raise AssertionError("the third fold did not fail")


def _wait_until_told(url: str, session: int) -> None:
    """The event log is written about once a second: a page opened before would find nothing."""
    deadline = time.monotonic() + 20
    while True:
        with urlopen(f"{url}api/sessions", timeout=10) as answer:
            ended = {one["id"] for one in json.load(answer)["sessions"] if one["ended"] is not None}
        if session in ended:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def told() -> Iterator[Story]:
    """Run the sessions; the cluster lives until the end of the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rain-ui-")))
        cluster = stack.enter_context(LocalCluster(1, cpus=2, timeout=60))
        client = stack.enter_context(cluster.client())
        session, tasks = run_census(client)
        failing, failed = run_failing(client)
        with client.new_session("many") as many:
            array = many.map(square, range(MANY))
            many.submit()
            array.wait()
            number = many.session_id
        assert cluster.http_url is not None
        _wait_until_told(cluster.http_url, number)  # the last to end
        yield Story(
            url=cluster.http_url,
            client=client,
            census=session.session_id,
            failing=failing,
            many=number,
            census_tasks=len(tasks),
            census_task=tasks[0].id.id,
            failed_task=failed,
            folder=folder,
        )
        session.close()
