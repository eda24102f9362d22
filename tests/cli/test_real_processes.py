"""The command `rain` with real processes: start, status, stop, and what happens when something fails."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
MARK = "RAIN_CLI_TEST"


class Commands:
    """Runs `rain` with an access directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
        access = folder / "access"
        self.environment = {**clean, "PYTHONPATH": str(ROOT), "RAIN_ACCESS_DIR": str(access), MARK: str(folder)}

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "rain", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    def start(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`rain start` on a free port, with directories of the test."""
        directories = ["--logdir", str(self.folder / "log"), "--workdir", str(self.folder / "work")]
        return self("start", "--listen", "127.0.0.1:0", *directories, *arguments, code=code)

    def processes(self) -> list[psutil.Process]:
        """All living processes that descend from our commands, wherever they are in the tree by now."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def wait_gone(self) -> list[psutil.Process]:
        """What is left after twenty seconds."""
        psutil.wait_procs(self.processes(), timeout=20)
        return self.processes()


@pytest.fixture
def rain(tmp_path):
    """Commands; fails the test if a process is left, and ends it."""
    commands = Commands(tmp_path)
    yield commands
    left = commands.wait_gone()
    for process in left:
        process.kill()
    assert not left


def test_start_status_stop(rain, tmp_path):
    """The whole life of a small cluster."""
    text = rain.start("--local-workers=[1,2]", f"--cache=dir:{tmp_path}/cache").stdout
    assert (tmp_path / "cache" / "mark").is_file()
    assert "with 2 workers" in text
    address = text.split()[4]
    url = re.search(r"Dashboard: (http://127\.0\.0\.1:\d+/)\?token=(\w{64})\n", text)
    assert url is not None
    with urllib.request.urlopen(f"{url[1]}health", timeout=20) as health:
        assert health.read() == b"ok"

    document = json.loads(rain("status", "--output", "json").stdout)
    assert document["server"]["address"] == address
    assert document["server"]["sessions"] == 0
    assert document["server"]["http_url"] == url[1]
    assert sorted(worker["resources"]["cpus"] for worker in document["workers"]) == [1, 2]

    ids = rain("status", "--output", "quiet", "--server", address).stdout.split()
    assert ids == [worker["worker_id"] for worker in document["workers"]]
    table = rain("status", "--server", address).stdout
    assert table.startswith("address ")
    assert all(worker in table for worker in ids)

    file = tmp_path / "dump.json"
    assert rain("dump", "--out", str(file), "--output", "quiet").stdout == f"{file}\n"
    dump = json.loads(file.read_text("ascii"))
    assert sorted(worker["worker_id"] for worker in dump["workers"]) == sorted(ids)
    assert all(worker["answered"] and worker["log"] for worker in dump["workers"])
    assert "Session 1 is closed or never was; open sessions: none" in rain("task", "explain", "1/12", code=1).stderr

    assert address in rain("stop").stdout
    assert rain.wait_gone() == []
    for verb in (["status"], ["dump"], ["task", "explain", "1"]):
        assert "no server is known" in rain(*verb, code=1).stderr


def test_a_worker_that_cannot_start_ends_all(rain, tmp_path):
    """The error names the child and shows its log; nothing is left running."""
    (tmp_path / "broken.toml").write_text("[executors\n", "utf-8")
    errors = rain.start("--simple", f"--worker-config={tmp_path}/broken.toml", code=1).stderr
    assert "worker-0" in errors
    assert "ended with exit code 1" in errors
    assert "broken.toml" in errors
    assert rain.wait_gone() == []


def test_worker_without_server(rain):
    """Connection refused is exit code 1 with the address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert address in rain("worker", address, code=1).stderr


def test_status_without_server(rain):
    """The same for the verbs."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert address in rain("status", "--server", address, code=1).stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends_by_signal(rain, tmp_path, number):
    """Default disposition, and the port is free at once."""
    ready = tmp_path / "ready"
    directories = ["--logdir", str(tmp_path / "log"), "--workdir", str(tmp_path / "work")]
    command = [sys.executable, "-m", "rain", "server", "--listen", "127.0.0.1:0", "--ready-file", str(ready)]
    with subprocess.Popen([*command, *directories], env=rain.environment, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 30
            while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            assert ready.read_text("utf-8") == "ready\n"
            process.send_signal(number)
            assert process.wait(10) == -number
        finally:
            process.kill()


def test_stop_by_force(rain, tmp_path):
    """A server that hangs is killed with its workers; a second call finds nothing."""
    rain.start("--local-workers=[1,1]")
    (access,) = (tmp_path / "access").glob("*.json")
    content = json.loads(access.read_text())
    os.kill(content["pid"], signal.SIGSTOP)
    killed = json.loads(rain("stop", "--force", "--output", "json").stdout)["killed"]
    assert content["pid"] in killed
    assert len(killed) == 3
    assert rain.wait_gone() == []
    assert not access.exists()
    assert "there is no access file of any server" in rain("stop", "--force", code=1).stderr
    access.touch(0o600)
    access.write_text(json.dumps(content))
    assert rain("stop", "--force").stdout == "killed  nothing: it was not running\n"
    access.touch(0o600)
    access.write_text(json.dumps({**content, "hostname": "elsewhere"}))
    assert "runs on elsewhere" in rain("stop", "--force", code=1).stderr
