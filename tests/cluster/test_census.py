"""The main job on real input, undisturbed and with a worker killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rain.client import LocalCluster
from tests.cluster.test_failures import server_log, worker_processes

ROOT = Path(__file__).parents[2]


def census(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "examples/census.py", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The report computed in one process."""
    out = tmp_path_factory.mktemp("expected")
    with census("--local", "--out", str(out)) as process:
        assert process.wait(timeout=110) == 0
    return json.loads((out / "census.json").read_text())


def test_embedded_cluster_gives_the_same_report(expected: object, tmp_path: Path) -> None:
    with census("--out", str(tmp_path)) as process:
        assert process.wait(timeout=110) == 0
    assert json.loads((tmp_path / "census.json").read_text()) == expected


def test_a_worker_killed_in_the_middle_changes_nothing(
    expected: object, tmp_path: Path
) -> None:
    with LocalCluster([1, 1], timeout=60) as cluster, cluster.client() as client:
        arguments = ["--server", cluster.address, "--out", str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, "examples/census.py", *arguments],
            cwd=ROOT,
            env={
                "PYTHONPATH": str(ROOT),
                "PATH": "/usr/bin:/bin",
                "HOME": str(Path.home()),
                "RAIN_ACCESS_FILE": cluster.access_file,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        with process, process.stderr:
            for line in process.stderr:
                if "40 %" in line:
                    break
            sorted(worker_processes(client).items())[0][1].kill()
            process.stderr.read()
            assert process.wait(timeout=110) == 0
        assert json.loads((tmp_path / "census.json").read_text()) == expected
        end = time.monotonic() + 30
        while "lost:" not in server_log(cluster) and time.monotonic() < end:
            time.sleep(0.05)
        assert "run again for their lost results" in server_log(cluster)
