"""Clusters whose server or worker has little of something: disk, shared memory, descriptors."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rain.client import Client
from rain.launch.processes import child_environment, tail

START_LIMIT = 60.0
MEBIBYTE = 1 << 20

_MOUNT = """
for pair in "$1" "$2"; do mount -t tmpfs -o size="${pair%%:*}" none "${pair#*:}" || exit 9; done
shift 2
exec "$@"
"""


@dataclass(frozen=True)
class Starved:
    """What a test gets.

    Attributes:
        folder: holds logs and work directories.
        address, access_file: of the server.
    """

    folder: Path
    address: str
    access_file: str

    def client(self, **options: object) -> Client:
        """A client of this cluster."""
        return Client(self.address, access_file=self.access_file, **options)  # type: ignore[arg-type]


@cache
def _namespace_options() -> tuple[str, ...] | None:
    """How this user gets a mount namespace; None: not at all."""
    for options in (("-m",), ("-m", "-r")):
        command = ["unshare", *options, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return options
    return None


def little_disk(workdir: Path, mebibytes: int, shared_mebibytes: int) -> list[str]:
    """Prefix of a command that has small file systems of its own as work directory and shared memory.

    Where that is forbidden its files are limited in size: then values of that size meet the same errors.
    """
    options = _namespace_options()
    if options is None:
        return ["prlimit", f"--fsize={mebibytes * MEBIBYTE}"]
    workdir.mkdir()
    pairs = [f"{mebibytes}m:{workdir}", f"{shared_mebibytes}m:/dev/shm"]
    return ["unshare", *options, "sh", "-c", _MOUNT, "sh", *pairs]


def few_descriptors(number: int) -> list[str]:
    """Prefix of a command that may open so many files."""
    return ["prlimit", f"--nofile={number}:{number}"]


@contextlib.contextmanager
def starved_cluster(
    folder: Path, *, server: Sequence[str] = (), worker: Sequence[str] = (), cpus: int = 2
) -> Iterator[Starved]:
    """A server and one worker, started with these prefixes; its work directories are `server` and `worker`."""
    environment = {**child_environment(os.environ), "RAIN_ACCESS_DIR": str(folder / "access")}
    with contextlib.ExitStack() as stack:

        def start(prefix: Sequence[str], *arguments: str) -> None:
            name = arguments[0]
            ready, log = folder / f"{name}.ready", folder / f"{name}.err"
            with log.open("wb") as errors:
                process = subprocess.Popen(
                    [
                        *(*prefix, sys.executable, "-m", "rain", *arguments, f"--ready-file={ready}"),
                        *(f"--workdir={folder / name}", f"--logdir={folder / name}-log"),
                    ],
                    env=environment,
                    stderr=errors,
                )
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            end = time.monotonic() + START_LIMIT
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"the {name} did not come up: {process.poll()}\n{tail(log)}")
                time.sleep(0.02)

        start(server, "server", "--listen=127.0.0.1:0")
        (access_file,) = (folder / "access").glob("*.json")
        address = f"127.0.0.1:{access_file.stem.rpartition('-')[2]}"
        start(worker, "worker", address, f"--cpus={cpus}")
        yield Starved(folder, address, str(access_file))
