"""Where the secret of a real cluster is, and where it must not be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rain.client import Client, remote, tasks
from rain.net.access import AccessFile, write_access_file
from rain.net.secret import generate_secret
from rain.testing.leaks import GRACE, no_leaks
from tests.security.conftest import Target

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
SECRET_NAMES = ("RAIN_TOKEN", "RAIN_TOKEN_FILE")


@remote()
def whole_environment(ctx: object) -> bytes:
    return open("/proc/self/environ", "rb").read() + b"\0" + repr(sorted(os.environ.items())).encode()


def program_environment() -> tasks.Execute:
    return tasks.Execute(["/bin/sh", "-c", "cat /proc/self/environ; env"], stdout=True)


def everywhere(processes: list[psutil.Process], *, environments: bool = True) -> Iterator[tuple[str, bytes]]:
    """Command lines and environments, as other processes of the machine can see them."""
    for process in processes:
        for name in ("cmdline", "environ") if environments else ("cmdline",):
            path = Path(f"/proc/{process.pid}/{name}")
            yield f"{name} of {process.name()} {process.pid}", path.read_bytes()


def run_both(client: Client) -> bytes:
    """What a Python function and a program see."""
    with client.new_session() as session:
        program = program_environment()
        program.output.keep()
        function = whole_environment()
        function.output.keep()
        session.submit()
        return bytes(program.output.fetch(timeout=20).get_bytes() + function.output.fetch(timeout=20).get_bytes())


def test_command_lines_and_environments(target: Target) -> None:
    with target.client() as client:
        seen = run_both(client)
        assert b"PATH=" in seen
        assert target.secret.encode() not in seen
        assert not any(f"{name}=".encode() in seen for name in SECRET_NAMES)
        processes = target.processes()
        assert len(processes) >= 3
        for where, content in everywhere(processes):
            assert target.secret.encode() not in content, where


def test_no_file_but_two_has_the_secret(target: Target) -> None:
    """The file it is read from and the access file; no log, no file of a worker or an executor."""
    with target.client() as client:
        run_both(client)
        holders = set()
        for path in target.directory.rglob("*"):
            if path.is_file() and target.secret.encode() in path.read_bytes():
                holders.add(path.relative_to(target.directory).parts[0])
    assert holders == {"token", "access"}
    assert target.secret not in target.log()


def test_modes(target: Target) -> None:
    """Nobody else can look into the directories, nor reach the sockets of executors."""
    with target.client() as client, client.new_session():
        whole_environment().result(timeout=20)
        assert stat.S_IMODE(target.directory.stat().st_mode) == 0o700
        sockets = 0
        for path in target.directory.rglob("*"):
            mode = path.lstat().st_mode
            relative = path.relative_to(target.directory)
            if relative.parts[0] in ("token", "access"):
                assert not mode & 0o077, path
            if relative.parts[0] == "work" and stat.S_ISDIR(mode) and len(relative.parts) == 2:
                assert stat.S_IMODE(mode) == 0o700, path
            if stat.S_ISSOCK(mode):
                sockets += 1
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path
        assert sockets
        shared = [entry for entry in Path("/dev/shm").iterdir() if entry.name.startswith("rain-")]
        assert all(stat.S_IMODE(entry.stat().st_mode) & 0o077 == 0 for entry in shared)


# --- by the command line ----------------------------------------------------------------------------


def environment(folder: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    return {**clean, "PYTHONPATH": str(ROOT), "RAIN_ACCESS_DIR": str(folder / "access"), **more}


def places(folder: Path) -> list[str]:
    return ["--logdir", str(folder / "logs"), "--workdir", str(folder / "work")]


def test_secret_of_the_environment(tmp_path: Path) -> None:
    """Given by RAIN_TOKEN to server and worker, it stops there."""
    token = generate_secret().token
    assert token is not None
    environ = environment(tmp_path, RAIN_TOKEN=token, RAIN_TOKEN_FILE="/nowhere")
    (tmp_path / "access").mkdir(mode=0o700)
    log = (tmp_path / "log").open("wb")
    rain = [sys.executable, "-m", "rain"]
    with no_leaks(), log:
        server = subprocess.Popen(
            [*rain, "server", "--listen", "127.0.0.1:0", *places(tmp_path / "server")],
            env=environ,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            port = _port(tmp_path / "access")
            worker = subprocess.Popen(
                [*rain, "worker", f"127.0.0.1:{port}", *places(tmp_path / "worker")],
                env=environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
            try:
                with Client(f"127.0.0.1:{port}", token=token) as client:
                    seen = run_both(client)
                    children = psutil.Process(worker.pid).children(recursive=True)
                    for where, content in everywhere(children):
                        assert token.encode() not in content, where
                    for where, content in everywhere([psutil.Process(server.pid)], environments=False):
                        assert token.encode() not in content, where
            finally:
                worker.terminate()
                worker.wait(GRACE)
        finally:
            server.terminate()
            server.wait(GRACE)
    assert b"PATH=" in seen
    assert token.encode() not in seen
    assert not any(f"{name}=".encode() in seen for name in SECRET_NAMES)
    texts = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "access"]
    assert not [path for path in texts if token.encode() in path.read_bytes()]


def _port(directory: Path) -> int:
    deadline = time.monotonic() + GRACE
    while not (found := list(directory.glob("*.json"))):
        assert time.monotonic() < deadline, "the server wrote no access file"
        time.sleep(0.05)
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600
    return int(found[0].stem.rpartition("-")[2])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
@pytest.mark.parametrize("kind", ["token", "access"])
def test_files_readable_by_others(tmp_path: Path, kind: str, mode: int) -> None:
    """Refused with what to do, by every command that would use them."""
    path = tmp_path / "file"
    if kind == "token":
        path.write_text(generate_secret().token or "")
        command = ["server", "--listen", "127.0.0.1:0", "--token-file", str(path), *places(tmp_path)]
    else:
        write_access_file(AccessFile("id", "host", ["127.0.0.1"], 1, None, "t" * 64, None, 1), {}, path)
        command = ["status", "--access-file", str(path)]
    path.chmod(mode)
    done = subprocess.run(
        [sys.executable, "-m", "rain", *command],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done
    assert f"readable by others; run: chmod 600 {path}" in done.stderr
    assert "Traceback" not in done.stderr
