"""Scripts as users of Rain 0.1 (v01) and 0.4 (v04) write them, against a cluster made by `rain start`.

Each script prints what it learned; the text file beside it tells what that must be. Nothing may be left on the cluster
after a script, and nothing on the machine after the cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rain.client import Client
from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

pytestmark = pytest.mark.cluster

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPTS = sorted(path for folder in ("v01", "v04") for path in (HERE / folder).glob("*.py"))
TEXT_EXECUTOR = HERE / "programs" / "text_executor.py"
SETTLED = 20.0
"""Seconds until a cluster has nothing left of a script."""

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open


@dataclass(frozen=True)
class Cluster:
    """A running cluster and how to reach it."""

    host: str
    port: str
    environment: dict[str, str]
    access_file: Path
    sandboxes: Path

    def remains(self) -> list[str]:
        """What is on the cluster of sessions, tasks, needed objects and sandboxes."""
        with Client(self.host, self.port, access_file=self.access_file) as client:
            info = client.get_server_info()
        found = [f"sandbox {path.name}" for path in self.sandboxes.glob("*")]
        if info["server"]["sessions"]:
            found.append(f"{info['server']['sessions']} sessions")
        for worker in info["workers"]:
            found += [f"task {number}" for number in worker["tasks"]]
            found += [f"object {number}" for number in set(worker["objects"]) - set(worker["objects_to_delete"])]
        return found


def command(environment: dict[str, str], *arguments: str) -> str:
    """Run Python to its end; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("scripts")
    config = folder / "worker.toml"
    config.write_text(f'[executors.text]\ncommand = ["{sys.executable}", "{TEXT_EXECUTOR}", "text"]\n', "utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    environment = {**clean, "PYTHONPATH": str(ROOT), "RAIN_ACCESS_DIR": str(folder / "access")}
    with no_leaks():
        text = command(
            environment,
            *("-m", "rain", "start", "--listen", "127.0.0.1:0", "--local-workers=[4]"),
            *("--worker-config", str(config), "--logdir", str(folder / "log"), "--workdir", str(folder / "work")),
        )
        host, _, port = text.split()[4].rpartition(":")
        (access_file,) = (folder / "access").glob("*.json")
        try:
            yield Cluster(host, port, environment, access_file, folder / "work" / "worker-0" / "tmp")
        finally:
            command(environment, "-m", "rain", "stop")


def test_there_are_ten_of_each_vocabulary() -> None:
    assert [path.parent.name for path in SCRIPTS] == ["v01"] * 10 + ["v04"] * 10
    assert [path.with_suffix(".txt").exists() for path in SCRIPTS] == [True] * 20


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_script(cluster: Cluster, script: Path) -> None:
    assert cluster.sandboxes.is_dir()
    printed = command(cluster.environment, "-W", "error", str(script), cluster.host, cluster.port)
    assert printed == script.with_suffix(".txt").read_text("utf-8")
    end = time.monotonic() + SETTLED
    while (remains := cluster.remains()) and time.monotonic() < end:
        time.sleep(0.05)
    assert remains == []
