"""What tasks wrote to stdout and stderr: where it lies, and reading it.

Executors write to logs which many tasks share, so of their tasks ranges of these files are remembered. Programs write
to files in their sandboxes; the ends of these files are kept when the sandbox goes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import struct
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rain.common.comm import FrameError
from rain.protocol.messages import TaskLogRead

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from rain.protocol.messages import ReadTaskLog
    from rain.worker.core.actions import Run
    from rain.worker.core.events import TaskKey

LONGEST_ANSWER = 64 << 10
"""Bytes read for one answer."""
KEPT_OF_PROGRAM = 64 << 10
"""Bytes of each stream of a program that are kept when it has ended: the last ones."""
MOST_RUNS = 100_000
"""Runs of executors whose ranges are remembered: the last ones that wrote anything."""
MOST_PROGRAMS = 1000
"""Programs of which something is kept: the last ones that wrote anything."""

STREAMS = {"stdout": ("out", "+out"), "stderr": ("err", "+err")}
"""The ending of the names of its logs, and its file in the sandbox of a program."""

_OWN = os.geteuid()
_MODE = stat.S_IFREG | 0o600
_RANGES = struct.Struct("<IIQQQQ")  # executor, run, from where to where it wrote to stdout, the same for stderr

Ends = tuple[int, int]
"""Sizes of the two logs of an executor."""

log = logging.getLogger(__name__)


class UnderWay(NamedTuple):
    """A run which an executor has begun. ends: how long its logs were then, as far as is known; is_block: it is one of
    the members of a block, and it is not known which one runs."""

    executor: int
    ends: Ends
    is_block: bool


class _Program(NamedTuple):
    """A program that runs or that has ended.

    directory: its sandbox. sizes: bytes it wrote to stdout and stderr. taken: those of the two that are outputs.
    """

    run: int
    directory: str
    sizes: Ends
    taken: Collection[str]


class TaskLogs:
    """Remembers and reads what tasks wrote.

    Args:
        logdir: of the worker; logs of executors are in `executors` there, what is kept of programs in `programs`.
        runs, programs: how many are remembered.
    """

    def __init__(self, logdir: str | os.PathLike[str], *, runs: int = MOST_RUNS, programs: int = MOST_PROGRAMS) -> None:
        self._executors = Path(logdir).absolute() / "executors"
        self._kept = Path(logdir).absolute() / "programs"
        self._kept.mkdir(parents=True, exist_ok=True)
        for left in self._kept.glob("[0-9]*-[0-9]*.???"):  # of a worker before this one
            left.unlink()
        self._most_runs = runs
        self._most_programs = programs
        self._ranges: dict[tuple[int, int], bytes] = {}  # packed, as there may be many; the oldest first
        self._forgot = False
        self._running: dict[tuple[int, int], _Program] = {}
        self._ended: dict[tuple[int, int], _Program] = {}

    def forget(self) -> None:
        """The server is lost; the next one may use the same numbers for other tasks."""
        self._ranges.clear()
        self._running.clear()
        self._forgot = False
        for key in list(self._ended):
            self._drop_program(key)

    # --- executors ------------------------------------------------------------------------------

    def executor_wrote(self, executor: int, due: Iterable[Run], written: Sequence[Sequence[int]]) -> Ends:
        """An executor tells what its runs wrote.

        Args:
            executor: its number.
            due: what it runs, in order.
            written: `Written` of runs among them (`rain.executor.output`), in the same order.

        Returns:
            How long its logs were after the last of them.

        Raises:
            FrameError: one of them is none of its runs.
        """
        runs = iter(due)
        run = next(runs, None)
        for task, attempt, *ranges in written:
            while run is not None and not _is_of(run, task, attempt):
                run = next(runs, None)
            if run is None:
                raise FrameError(f"what run {attempt} of task {task} wrote is told, which is not due")
            key = (run.key[0], task)
            self._ranges.pop(key, None)
            self._ranges[key] = _RANGES.pack(executor, attempt, *ranges)
        if len(self._ranges) > self._most_runs:
            self._forgot = True
            for key in list(islice(self._ranges, len(self._ranges) - self._most_runs * 9 // 10)):
                del self._ranges[key]
        return written[-1][3], written[-1][5]

    # --- programs -------------------------------------------------------------------------------

    def program_started(self, key: TaskKey, directory: str) -> None:
        """A program runs in this sandbox."""
        self._running[key[:2]] = _Program(key[2], directory, (0, 0), ())

    def program_ended(self, key: TaskKey, taken: Collection[str] = ()) -> bool:
        """A program has ended, its sandbox is still there.

        Args:
            key: the run.
            taken: names of those of its streams which become outputs.

        Returns:
            Whether the files of its streams are known to be as they were made.
        """
        task = key[:2]
        program = self._running.get(task)
        if program is None or program.run != key[2]:  # the server was lost meanwhile
            return False
        del self._running[task]
        if task in self._ended:
            self._drop_program(task)
        if not taken and are_as_made(program.directory):
            return True
        out, err = (0 if stream in taken else self._keep(key, stream, program.directory) for stream in STREAMS)
        if out or err or taken:
            self._ended[task] = _Program(key[2], "", (out, err), taken)
            if len(self._ended) > self._most_programs:
                self._drop_program(next(iter(self._ended)))
                self._forgot = True
        return False

    def _keep(self, key: TaskKey, stream: str, directory: str) -> int:
        """Keep the end of what was written to a stream; returns how much was written."""
        path = os.path.join(directory, STREAMS[stream][1])
        try:
            if not os.lstat(path).st_size:
                return 0
            with _opened(path) as descriptor:
                size = os.fstat(descriptor).st_size
                data = os.pread(descriptor, KEPT_OF_PROGRAM, max(size - KEPT_OF_PROGRAM, 0))
            self._path_of_kept(key[:2], stream).write_bytes(data)
        except OSError as error:
            log.warning("What task %d/%d wrote to %s is not kept: %s", key[0], key[1], stream, error)
            return 0
        return size

    def _path_of_kept(self, key: tuple[int, int], stream: str) -> Path:
        return self._kept / f"{key[0]}-{key[1]}.{STREAMS[stream][0]}"

    def _drop_program(self, key: tuple[int, int]) -> None:
        program = self._ended.pop(key, None)
        if program is not None:
            for stream, size in zip(STREAMS, program.sizes, strict=True):
                if size:
                    self._path_of_kept(key, stream).unlink(missing_ok=True)

    # --- reading --------------------------------------------------------------------------------

    def read(self, request: ReadTaskLog, under_way: UnderWay | None) -> TaskLogRead:
        """Answer; reads at most `LONGEST_ANSWER` bytes of one file.

        Args:
            request: of the server, its stream one of `STREAMS`.
            under_way: if an executor runs the task now.
        """
        key = (request.session, request.task)
        position = list(STREAMS).index(request.stream)
        if under_way is not None:
            path = self._path_of_executor(under_way.executor, request.stream)
            hint = "it is one of the members of a block that run one after the other; this is what they wrote so far"
            found = _Range(str(path), under_way.ends[position], None, hint if under_way.is_block else "")
            return _answer(request, found, ended=False)
        program = self._running.get(key)
        if program is not None:
            file = os.path.join(program.directory, STREAMS[request.stream][1])
            return _answer(request, _Range(file, 0, None), ended=False)
        if key in self._ended:
            return self._answer_of_program(request, key, self._ended[key])
        packed = self._ranges.get(key)
        if packed is None:
            or_not_kept = ", or so long ago that it is not kept" if self._forgot else ""
            return _nothing(request, f"the task wrote nothing{or_not_kept}")
        executor, _, *ranges = _RANGES.unpack(packed)
        start, end = ranges[2 * position : 2 * position + 2]
        return _answer(request, _Range(str(self._path_of_executor(executor, request.stream)), start, end), ended=True)

    def _path_of_executor(self, executor: int, stream: str) -> Path:
        return self._executors / f"executor-{executor}.{STREAMS[stream][0]}"

    def _answer_of_program(self, request: ReadTaskLog, key: tuple[int, int], program: _Program) -> TaskLogRead:
        if request.stream in program.taken:
            return _nothing(request, f"{request.stream} of the program is an output of the task, a data object")
        size = program.sizes[list(STREAMS).index(request.stream)]
        if not size:
            return _nothing(request, f"the program wrote nothing to {request.stream}")
        cut = max(size - KEPT_OF_PROGRAM, 0)
        hint = f"only the last {KEPT_OF_PROGRAM:,} bytes are kept" if request.offset < cut else ""
        part = _Range(str(self._path_of_kept(key, request.stream)), -cut, size - cut, hint)
        return _answer(request, part, ended=True)


class _Range(NamedTuple):
    """Part of a file. start: below 0 if the file lacks so many bytes at its beginning; end: None = all there is."""

    path: str
    start: int
    end: int | None
    hint: str = ""


def are_as_made(directory: str) -> bool:
    """Whether both files for the streams of a program are there, empty and nobody else's."""
    try:
        return is_as_made(os.lstat(f"{directory}/+out")) and is_as_made(os.lstat(f"{directory}/+err"))
    except OSError:
        return False


def is_as_made(status: os.stat_result) -> bool:
    """Whether a file for a stream is empty and nobody else's."""
    return not status.st_size and status.st_mode == _MODE and status.st_uid == _OWN and status.st_nlink == 1


def _is_of(run: Run, task: int, attempt: int) -> bool:
    """Whether the task is this run, or a member of this block."""
    return run.key[2] == attempt and run.key[1] <= task < run.key[1] + max(run.members, 1)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """A descriptor of a file in whose place a task may have put anything, a pipe nobody writes to included."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a file any more", path)
        yield descriptor
    finally:
        os.close(descriptor)


def _answer(request: ReadTaskLog, part: _Range, *, ended: bool) -> TaskLogRead:
    try:
        with _opened(part.path) as descriptor:
            end = os.fstat(descriptor).st_size if part.end is None else part.end
            size = max(end - part.start, 0)
            offset = min(max(request.offset, -part.start), size)
            data = os.pread(descriptor, min(request.limit, LONGEST_ANSWER, size - offset), part.start + offset)
    except OSError as error:
        return TaskLogRead(request.seq, b"", 0, 0, ended, f"what it wrote cannot be read: {error}")
    hint = part.hint
    if not size:
        hint = f"the task {'wrote nothing' if ended else 'has written nothing so far'} to {request.stream}"
    return TaskLogRead(request.seq, data, offset, size, ended, hint)


def _nothing(request: ReadTaskLog, hint: str) -> TaskLogRead:
    return TaskLogRead(request.seq, b"", 0, 0, True, hint)
