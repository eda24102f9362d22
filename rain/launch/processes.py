"""Server and worker processes on this machine that belong to the process that started them.

They are started by executing a fresh interpreter, in sessions of their own. They watch a pipe whose write end the owner
holds, and end when it closes; a guard process removes what they leave behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from rain.common.errors import RainException
from rain.common.units import format_duration
from rain.net.access import read_access_file
from rain.process.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from rain.net.access import AccessFile

POLL_SECONDS = 0.005
TAIL_LINES = 20
TAIL_BYTES = 8192
END_SECONDS = 2.0
"""How long processes may take to end when their owner lets them go; then they are killed."""

_owned: weakref.WeakSet[ProcessGroup] = weakref.WeakSet()


class LocalProcess:
    """A started process.

    Attributes:
        name: `server`, `worker-0`, ...
        popen: the process.
        ready_file: appears when it is ready.
        log: what it wrote to stderr.
        reaped: called with its process id when it has ended.
    """

    def __init__(
        self,
        name: str,
        popen: subprocess.Popen[bytes],
        ready_file: Path,
        log: Path,
        reaped: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self.name = name
        self.popen = popen
        self.ready_file = ready_file
        self.log = log
        self._reaped = reaped

    def poll(self) -> int | None:
        """How it ended, None while it lives."""
        code = self.popen.poll()
        if code is not None:
            self._reaped(self.popen.pid)  # its number may belong to others soon
        return code

    @property
    def is_ready(self) -> bool:
        """Whether it said so."""
        return self.ready_file.exists()

    def check_alive(self) -> None:
        """Raises:
        RainException: it has ended; with the last lines of its log.
        """
        code = self.poll()
        if code is not None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise RainException(self._story(how))

    def too_late(self, seconds: float) -> RainException:
        """The error for a process that is not ready in time."""
        return RainException(self._story(f"was not ready within {format_duration(seconds)}"))

    def _story(self, what: str) -> str:
        return f"The {self.name} of the local cluster {what}. End of its log:\n{tail(self.log) or '(empty)'}"


class ProcessGroup:
    """Processes of one owner, with a private directory that is removed with them.

    Attributes:
        directory: private, mode 0700: `$TMPDIR/rain-<uid>/local-<pid>-<random>`.
    """

    def __init__(self) -> None:
        self.directory = _private_directory()
        self._pid = os.getpid()
        self._processes: list[LocalProcess] = []
        try:
            self._guard = Guard()
            self._guard.add_path(self.directory)
            self._guard.add_parent(self.directory.parent)
            self._watched, self._held = os.pipe()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        self._end = weakref.finalize(
            self, _end_all, self._pid, self._processes, self._guard, self.directory, [self._watched, self._held]
        )
        _owned.add(self)

    def start(
        self,
        name: str,
        arguments: Iterable[str],
        logdir: Path,
        environ: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> LocalProcess:
        """Start `python -m rain ARGUMENTS --ready-file F --owner-fd N`.

        Args:
            name: names its files.
            arguments: of the `rain` command.
            logdir: exists; gets `<name>.out` and `<name>.err`.
            environ: its environment.
            descriptors: open ones that it inherits.

        Raises:
            RainException: it cannot be started.
        """
        ready_file = self.directory / f"{name}.ready"
        log = logdir / f"{name}.err"
        command = [sys.executable, "-P", "-m", "rain", *arguments]
        command += ["--ready-file", str(ready_file), "--owner-fd", str(self._watched)]
        with (logdir / f"{name}.out").open("wb") as output, log.open("wb") as errors:
            try:
                popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    env=dict(environ),
                    pass_fds=(self._watched, *descriptors),
                    start_new_session=True,
                )
            except OSError as error:
                raise RainException(f"The {name} of the local cluster cannot be started: {error}") from error
        process = LocalProcess(name, popen, ready_file, log, self._guard.remove_group)
        self._processes.append(process)
        self._guard.add_group(popen.pid)
        return process

    @property
    def processes(self) -> list[LocalProcess]:
        """What was started."""
        return list(self._processes)

    @property
    def is_owner(self) -> bool:
        """False in a forked child of the owner."""
        return os.getpid() == self._pid

    def wait_ended(self, timeout: float) -> bool:
        """Wait until all processes have ended; False if one has not after `timeout` seconds."""
        return _wait_ended(self._processes, timeout)

    def close(self) -> None:
        """End all processes, remove the directory; idempotent."""
        self._end()

    def _forget_in_child(self) -> None:
        """After fork, in the child: it must not keep the cluster alive, nor end it."""
        if self._end.detach() is None:
            return
        os.close(self._watched)
        os.close(self._held)
        stdin = self._guard._process.stdin
        if stdin is not None:
            stdin.close()


def wait_ready(waiting_for: Iterable[LocalProcess], all_processes: Iterable[LocalProcess], deadline: float) -> None:
    """Wait until processes are ready.

    Args:
        waiting_for: these.
        all_processes: none of these may end meanwhile.
        deadline: monotonic seconds.

    Raises:
        RainException: one has ended, or is not ready in time.
    """
    for seconds in ready_pauses(waiting_for, all_processes, deadline):
        time.sleep(seconds)


def ready_pauses(
    waiting_for: Iterable[LocalProcess], all_processes: Iterable[LocalProcess], deadline: float
) -> Generator[float, None, None]:
    """As `wait_ready`; the caller does the waiting: it is told how many seconds."""
    started = time.monotonic()
    while True:
        late = [process for process in waiting_for if not process.is_ready]
        if not late:
            return
        for process in all_processes:
            process.check_alive()
        if time.monotonic() >= deadline:
            raise late[0].too_late(deadline - started)
        yield POLL_SECONDS


def ended_pauses(processes: Iterable[LocalProcess], deadline: float) -> Generator[float, None, None]:
    """Until processes have ended, or the deadline (monotonic seconds) is over; the caller does the waiting."""
    waiting_for = list(processes)
    while any(process.poll() is None for process in waiting_for) and time.monotonic() < deadline:
        yield POLL_SECONDS


def access_file_pauses(
    directory: Path, server: LocalProcess, deadline: float
) -> Generator[float, None, tuple[Path, AccessFile]]:
    """The access file of a server that was told to write it to this directory; the caller does the waiting.

    Raises:
        RainException: the server has ended, or wrote none in time.
    """
    started = time.monotonic()
    while True:
        for path in directory.glob("*.json"):
            return path, read_access_file(path)
        server.check_alive()
        if time.monotonic() >= deadline:
            raise server.too_late(deadline - started)
        yield POLL_SECONDS


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of local processes: they import the same Rain as this process, and what lies beside its script;
    addresses and secrets of other clusters are taken out."""
    changed = {name: value for name, value in environ.items() if name not in _OF_OTHER_CLUSTERS}
    paths = [path for path in changed.get("PYTHONPATH", "").split(os.pathsep) if path]
    home = Path(__file__).resolve().parents[2]
    if home.name not in ("site-packages", "dist-packages"):
        paths.insert(0, str(home))
    paths.append(os.path.abspath(sys.path[0] if sys.path else "."))
    changed["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return changed


_OF_OTHER_CLUSTERS = ("RAIN_ADDRESS", "RAIN_TOKEN", "RAIN_TOKEN_FILE", "RAIN_ACCESS_FILE", "RAIN_ACCESS_DIR")


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - TAIL_BYTES))
            text = source.read().decode("utf-8", "replace")
    except OSError as error:
        return f"({error})"
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


def _private_directory() -> Path:
    """Make `$TMPDIR/rain-<uid>/local-<pid>-<random>`.

    Raises:
        RainException: the directory of this user belongs to another one.
        OSError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) / f"rain-{os.getuid()}"
    while True:
        parent.mkdir(mode=0o700, exist_ok=True)
        directory = parent / f"local-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            status = parent.lstat()
            if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
                raise RainException(f"{parent} belongs to another user; set TMPDIR to a directory of yours")
            if status.st_mode & 0o077:
                parent.chmod(0o700)
            directory.mkdir(mode=0o700)
        except FileNotFoundError:
            continue  # another cluster ended just now and removed the empty parent
        return directory


def _wait_ended(processes: Iterable[LocalProcess], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    for process in processes:
        try:
            process.popen.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            return False
    return True


def _end_all(pid: int, processes: list[LocalProcess], guard: Guard, directory: Path, pipe: list[int]) -> None:
    if os.getpid() != pid:
        return
    for descriptor in pipe:
        os.close(descriptor)
    if not _wait_ended(processes, END_SECONDS):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
        _wait_ended(processes, END_SECONDS)
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        directory.parent.rmdir()  # unless others use it
    guard.close()


def _after_fork_in_child() -> None:
    for group in list(_owned):
        group._forget_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
