"""One executor process: its directory, socket, logs, exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import rain
from rain.common import fs
from rain.process.spawn import LARGE_PAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECRET_VARIABLES = ("RAIN_TOKEN", "RAIN_TOKEN_FILE")
"""Removed from the environment of everything that runs user code."""

PROGRESS_FILE = "progress"
"""Two numbers: of the call that the executor began last, and of the first one which it must not begin (0: none)."""

EXECUTORS, WORK = "executors", "executors/work"
"""Folders of the log and of the work directory of a worker."""

FIRST = 1
"""Number of the first executor."""

_PROGRESS = struct.Struct("<QQ")

_PACKAGE_ROOT = str(Path(rain.__file__).resolve().parents[1])


def python_command() -> list[str]:
    """The command of a Python executor."""
    return [sys.executable, "-m", "rain.executor"]


def child_environment(number: int, socket_path: str, extra: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """Environment of an executor: this process's without secrets, the socket's place, and the task's own variables.

    Args:
        number: id of the executor.
        socket_path: absolute.
        extra: variables to set, or with None to remove.
    """
    environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    if _PACKAGE_ROOT not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        # Not installed, but run from its source: the child must find it from another directory.
        paths = [_PACKAGE_ROOT, *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    for name, value in extra:
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    for prefix in ("RAIN_EXECUTOR", "RAIN_SUBWORKER"):
        environment[f"{prefix}_SOCKET"] = socket_path
        environment[f"{prefix}_ID"] = str(number)
    return environment


def describe_status(code: int) -> str:
    """An exit status for people: `exit code 3`, `signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


class ExecutorProcess:
    """A process in a session and process group of its own, with a listening socket in its work directory.

    Args:
        number: id of the executor.
        command: program and arguments.
        extra_environment: variables to set or, with None, to remove.
        work: directory for work directories, exists.
        logs: directory for `executor-<id>.out` and `.err`, exists.

    Attributes:
        number: its id.
        listener: non-blocking listening socket.
        directory: the work directory.
        pidfd: readable when the process has ended.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        extra_environment: Sequence[tuple[str, str | None]],
        *,
        work: Path,
        logs: Path,
    ) -> None:
        self.number = number
        self._logs = {name: logs / f"executor-{number}.{name}" for name in ("out", "err")}
        self.directory = Path(tempfile.mkdtemp(prefix=f"{number}.", dir=work))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            (self.directory / PROGRESS_FILE).write_bytes(bytes(_PROGRESS.size))
            self._listen()
            environment = child_environment(number, str(self.directory / "socket"), extra_environment)
            if list(command) == python_command():
                environment.setdefault(*LARGE_PAGES)
            self._process = self._start(command, environment)
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self.listener.close()
            fs.remove_tree(self.directory)
            raise

    def _listen(self) -> None:
        # By way of a descriptor, as the path may be longer than a socket address can be.
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.listener.bind(f"/proc/self/fd/{directory}/socket")
            self.listener.listen(1)
        finally:
            os.close(directory)

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with open(self._logs["out"], "wb") as out, open(self._logs["err"], "wb") as err:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the process and of its group."""
        return self._process.pid

    def kill_group(self) -> None:
        """SIGKILL the process and all in its group. Only before `reap`: later the number may be another's."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Kill what is left of the group and collect the status of the process, which has ended."""
        self.kill_group()
        return self._process.wait()

    def progress(self) -> int:
        """Number of the call begun last, from 1; 0 if none was begun."""
        try:
            data = (self.directory / PROGRESS_FILE).read_bytes()
        except OSError:
            return 0
        return int(_PROGRESS.unpack(data)[0]) if len(data) == _PROGRESS.size else 0

    def forbid(self, call: int) -> None:
        """The process shall end instead of beginning this call or a later one; 0 = none is forbidden."""
        with contextlib.suppress(OSError), open(self.directory / PROGRESS_FILE, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), call.to_bytes(8, "little"), 8)

    def log_sizes(self) -> dict[str, int]:
        """Bytes of both logs by their paths; those that are gone have none."""
        return dict(zip(map(str, self._logs.values()), self.log_ends(), strict=True))

    def log_ends(self) -> tuple[int, int]:
        """Bytes of the logs of stdout and stderr."""
        return _size(self._logs["out"]), _size(self._logs["err"])

    def log_tails(self, limit: int) -> str:
        """The ends of both logs, with headings.

        Args:
            limit: bytes of each.
        """
        parts = []
        for title, path in (("stdout", self._logs["out"]), ("stderr", self._logs["err"])):
            data = _tail(path, limit)
            parts.append(f"Content of {title} (last {len(data)} bytes):\n{data.decode(errors='replace')}")
        return "\n".join(parts)

    def clean(self) -> None:
        """Close what is open and remove the work directory. To be called once, after `reap`."""
        os.close(self.pidfd)
        self.listener.close()
        fs.remove_tree(self.directory)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _tail(path: Path, limit: int) -> bytes:
    try:
        with open(path, "rb") as log:
            log.seek(max(os.fstat(log.fileno()).st_size - limit, 0))
            return log.read(limit)
    except OSError:
        return b""
