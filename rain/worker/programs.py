"""`Programs`: the processes which the worker runs for tasks, each in a process group of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
from functools import partial
from typing import TYPE_CHECKING

from rain.process import OWNER_FD
from rain.worker.executor_process import SECRET_VARIABLES
from rain.worker.grace import GroupEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rain.process.guard import Guard
    from rain.worker.core.events import TaskKey

_CLOSE_TIMEOUT = 5.0
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
_RESTORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # those which Python ignores


class Program:
    """A running program.

    Attributes:
        key: the run it belongs to.
        memory_limit: bytes of resident memory it may use with all its children, None = any.
        pid: id of the process and of its group.
        sequence: `Programs.sequence` when it was started.
        ended: called with its exit code, or minus the number of the signal, when nothing is left of its group.
    """

    __slots__ = ("ended", "group_end", "key", "memory_limit", "pid", "pidfd", "sequence")

    def __init__(
        self,
        key: TaskKey,
        pid: int,
        pidfd: int,
        memory_limit: int | None,
        ended: Callable[[int], None],
        sequence: int,
    ) -> None:
        self.key = key
        self.pid = pid
        self.pidfd = pidfd
        self.sequence = sequence
        self.memory_limit = memory_limit
        self.ended = ended
        self.group_end: GroupEnd | None = None  # while it is being ended with grace

    def kill(self) -> None:
        """SIGKILL to the process group. Only before the process is reaped: later the number may be another's."""
        if self.group_end is not None:
            self.group_end.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Programs:
    """Starts programs, watches them and ends them. Children are watched by the loop, none has a thread.

    Args:
        loop: the worker's loop; everything happens in it.
        guard: told of all process groups, None without.
        hear: calls what looks for those that have ended; None: the loop does.

    Attributes:
        sequence: grows with each start of a program before which a process id was given to somebody else, programs that
            run included; those of one sequence have started no processes and no threads.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        guard: Guard | None = None,
        hear: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._loop = loop
        self._guard = guard
        self._running: dict[int, Program] = {}
        self._by_pidfd: dict[int, Program] = {}
        self._ends = select.epoll()  # registers and forgets descriptors faster than the loop
        self.sequence = 1
        self._last_pid = 0
        self._all_ended: asyncio.Event | None = None
        hidden = (*SECRET_VARIABLES, OWNER_FD)
        self._environment = {
            os.fsencode(name): os.fsencode(value) for name, value in os.environ.items() if name not in hidden
        }
        look = self._leaders_ended
        loop.add_reader(self._ends.fileno(), *((look,) if hear is None else (hear, look)))
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def environment(self, extra: Mapping[str, str | None]) -> dict[bytes, bytes]:
        """The environment of a program: that of this process without secrets, and what the task says.

        Args:
            extra: variables to set, or with None to remove.
        """
        environment = self._environment.copy()
        for name, value in extra.items():
            if value is None:
                environment.pop(os.fsencode(name), None)
            else:
                environment[os.fsencode(name)] = os.fsencode(value)
        return environment

    def start(
        self,
        key: TaskKey,
        arguments: list[str],
        environment: Mapping[bytes, bytes],
        directory: str,
        *,
        stdin: str,
        stdout: str,
        stderr: str,
        memory_limit: int | None,
        ended: Callable[[int], None],
    ) -> Program:
        """Start a program in a session and process group of its own.

        Args:
            key: the run it belongs to.
            arguments: program and arguments.
            environment: all variables; PATH is searched for the program.
            directory: its working directory.
            stdin, stdout, stderr: paths of files, relative to the directory; the latter two are made, or are there
                and empty.
            memory_limit: for `watched`.
            ended: called with its status when it has ended and nothing is left of its group.

        Raises:
            OSError: it cannot be started.
            ValueError: an argument holds a null character.
        """
        # Python's posix_spawn takes no working directory, so this process goes there for a moment: nothing in a worker
        # uses relative paths, and the call takes half the time of one by subprocess.
        os.chdir(directory)
        try:
            pid = os.posix_spawn(
                find_program(arguments[0], environment),
                arguments,
                environment,
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, stdout, _WRITE, 0o600),
                    (os.POSIX_SPAWN_OPEN, 2, stderr, _WRITE, 0o600),
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=_RESTORED_SIGNALS,
            )
        finally:
            os.fchdir(self._home)
        if pid != self._last_pid + 1:  # they are given in order
            self.sequence += 1
        self._last_pid = pid
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        if self._guard is not None:
            self._guard.add_group(pid)
        program = self._running[pid] = Program(key, pid, pidfd, memory_limit, ended, self.sequence)
        self._by_pidfd[pidfd] = program
        self._ends.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        return program

    def stop(self, program: Program, grace: float) -> None:
        """End a program and its group; `ended` is called as always.

        Args:
            program: one that runs.
            grace: seconds between SIGTERM and SIGKILL; 0.0: SIGKILL at once.
        """
        if grace <= 0.0:
            program.kill()
        elif program.group_end is None:
            program.group_end = GroupEnd(self._loop, program.pid, grace, partial(self._over, program))

    def watched(self) -> list[tuple[TaskKey, int, int]]:
        """Running programs whose memory is limited: run, process id, bytes."""
        return [
            (program.key, program.pid, program.memory_limit)
            for program in self._running.values()
            if program.memory_limit is not None
        ]

    async def close(self) -> None:
        """Kill all and wait until they are gone, a few seconds at most."""
        for program in self._running.values():
            program.kill()
        if self._running:
            self._all_ended = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._all_ended.wait()
        if self._home >= 0:
            os.close(self._home)
            self._home = -1
        if not self._ends.closed:
            self._loop.remove_reader(self._ends.fileno())
            self._ends.close()

    def _leaders_ended(self) -> None:
        for pidfd, _ in self._ends.poll(0):
            self._leader_ended(self._by_pidfd.pop(pidfd))

    def _leader_ended(self, program: Program) -> None:
        os.close(program.pidfd)
        if program.group_end is not None:
            program.group_end.leader_ended()
        else:
            program.kill()  # what it left running
            self._over(program)

    def _over(self, program: Program) -> None:
        pid = program.pid
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        del self._running[pid]
        if self._guard is not None:
            self._guard.remove_group(pid)
        program.ended(status)
        if self._all_ended is not None and not self._running:
            self._all_ended.set()


def find_program(name: str, environment: Mapping[bytes, bytes]) -> str:
    """The file of a program: itself if it is a path, else the first in PATH.

    Args:
        name: as given by the user.
        environment: the variables of the program.

    Raises:
        FileNotFoundError: PATH has none of this name.
        PermissionError: it has, but none that may be executed.
    """
    if "/" in name:
        return name
    path = environment.get(b"PATH")
    denied = False
    for directory in (os.defpath if path is None else os.fsdecode(path)).split(os.pathsep):
        candidate = os.path.join(directory, name)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            denied = True
    number = errno.EACCES if denied else errno.ENOENT
    raise OSError(number, os.strerror(number), name)
