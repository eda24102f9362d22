"""Running a program in a sandbox."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from rain.common.ids import ID
from rain.worker.builtin.job import BuiltinError
from rain.worker.builtin.paths import relative_path
from rain.worker.core.templates import is_directory
from rain.worker.sandbox import Mapping, Sandbox, Wanted
from rain.worker.store import StoreError
from rain.worker.task_logs import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rain.worker.builtin.job import Job
    from rain.worker.core.actions import Run
    from rain.worker.programs import Program
    from rain.worker.store import Staged

STDERR_QUOTED = 64 << 10
"""Bytes of the error output told at most."""

_LONGEST_REMEMBERED = 4096
_IN, _OUT, _ERR = "+in", "+out", "+err"

log = logging.getLogger(__name__)


def execute(job: Job) -> None:
    """Run a program."""
    _Execution(job).begin()


class _Execution:
    """One run of a program."""

    def __init__(self, job: Job) -> None:
        self._job = job
        config = _config(job)
        self._arguments = config.arguments
        inputs = _mappings(config, job)
        self._outputs = _wanted(config, job)
        self._stdin = any(item.path == _IN for item in inputs)
        session, task, _ = job.run.key
        host = job.host
        self._sandbox = Sandbox(host.new_sandbox(f"{session}-{task}"), job.store, inputs)
        self._program: Program | None = None
        self._sequence = 0
        self._is_untouched = False
        self._in_thread = False
        self._stopped: Callable[[], None] | None = None

    def begin(self) -> None:
        """Make the sandbox, then start the program in it."""
        self._job.stopper = self._stop
        self._job.at_end = self._remove
        self._job.host.spares.make(self._sandbox.directory)
        if self._sandbox.is_slow_to_fill():
            self._in_thread = True
            self._job.in_thread(self._sandbox.fill, self._start, lambda _: self._remove())
        else:
            self._sandbox.fill()
            self._start(None)

    def _start(self, _: None) -> None:
        self._in_thread = False
        job = self._job
        directory = self._sandbox.directory
        programs = job.host.programs
        try:
            self._program = programs.start(
                job.run.key,
                self._arguments,
                programs.environment(_variables(job.run)),
                directory,
                stdin=_IN if self._stdin else os.devnull,
                stdout=_OUT,
                stderr=_ERR,
                memory_limit=_memory_limit(job.run),
                ended=self._ended,
            )
        except OSError as error:
            raise BuiltinError(_told(error, self._arguments[0]), retriable=True, named=False) from error
        except ValueError as error:
            raise BuiltinError(f"the program cannot be started: {error}") from error
        self._sequence = self._program.sequence
        job.host.spares.program_started()
        job.host.task_logs.program_started(job.run.key, directory)

    def _ended(self, status: int) -> None:
        self._program = None
        fails = bool(status) or self._stopped is not None
        taken = () if fails or not self._outputs else self._streams_wanted()
        self._is_untouched = self._job.host.task_logs.program_ended(self._job.run.key, taken)
        if self._stopped is not None:
            self._remove()
            self._stopped()
        else:
            self._job.step(lambda: self._take(status))

    def _streams_wanted(self) -> tuple[str, ...]:
        """Names of the streams that are outputs."""
        paths = {output.path for output in self._outputs}
        return tuple(stream for stream, (_, path) in STREAMS.items() if path in paths)

    def _take(self, status: int) -> None:
        if status:
            what = f"Program exit with exit code {status}" if status > 0 else f"Program terminated by signal {-status}"
            raise BuiltinError(f"{what}\nStderr: {self._stderr()}", retriable=True, named=False)
        self._sandbox.check_inputs()
        if self._sandbox.is_slow_to_empty(self._outputs):
            self._in_thread = True
            self._job.in_thread(lambda: self._sandbox.take(self._outputs), self._store, self._abandon)
        else:
            self._store(self._sandbox.take(self._outputs))

    def _store(self, staged: list[Staged]) -> None:
        self._in_thread = False
        outputs = []
        for index, value in enumerate(staged):
            try:
                outputs.append(self._job.put(index, value))
            except StoreError:
                for rest in staged[index + 1 :]:
                    self._job.store.discard_staged(rest)
                raise
        self._job.finish(outputs)

    def _stderr(self) -> str:
        path = os.path.join(self._sandbox.directory, _ERR)
        try:  # the program may have put anything in its place, a pipe nobody writes to included
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(size - STDERR_QUOTED, 0))
                text = file.read(STDERR_QUOTED).decode(errors="replace")
        except OSError as error:
            return f"(cannot be read: {error.strerror})"
        if size <= STDERR_QUOTED:
            return text
        return f"(cut: these are the last {STDERR_QUOTED:,} of {size:,} bytes)\n{text}"

    # --- being stopped --------------------------------------------------------------------------

    def _stop(self, grace: float, then: Callable[[], None]) -> None:
        self._stopped = then
        if self._program is not None:
            self._job.host.programs.stop(self._program, grace)
        else:
            if not self._in_thread:
                self._remove()
            then()

    def _abandon(self, staged: list[Staged] | None) -> None:
        for value in staged or ():
            self._job.store.discard_staged(value)
        self._remove()

    def _remove(self) -> None:
        host, directory = self._job.host, self._sandbox.directory
        if self._is_untouched and host.spares.take_back(directory, self._sequence):
            return
        if self._sandbox.clear():
            host.spares.offer(directory, self._sequence)
        else:
            host.remove_later(self._sandbox.remove)


def _told(error: OSError, program: str) -> str:
    return str(OSError(error.errno, error.strerror, program))


class _Config(NamedTuple):
    """What is to be run. inputs: path and whether the program gets a writable copy."""

    arguments: list[str]
    inputs: tuple[tuple[str, bool], ...]
    outputs: tuple[str, ...]


def _config(job: Job) -> _Config:
    packed = job.run.args
    if packed is None or len(packed) > _LONGEST_REMEMBERED or "config" in job.run.template_data:
        return _read(job.config())
    return _read_packed(packed)


@lru_cache(maxsize=64)
def _read_packed(packed: bytes) -> _Config:
    return _read(msgpack.unpackb(packed))


def _read(config: Any) -> _Config:
    if not isinstance(config, dict):
        raise BuiltinError(f"the config must be a map with args, not {config!r}")
    arguments = _arguments(config)
    entries = config.get("in_paths") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BuiltinError(f"in_paths must be a list of maps with a path, not {entries!r}")
    paths = config.get("out_paths") or []
    if not isinstance(paths, list):
        raise BuiltinError(f"out_paths must be a list of paths, not {paths!r}")
    inputs = tuple((_inside(entry.get("path"), (_OUT, _ERR)), bool(entry.get("write"))) for entry in entries)
    return _Config(arguments, inputs, tuple(_inside(path, (_IN,)) for path in paths))


def _arguments(config: dict[str, Any]) -> list[str]:
    args = config.get("args")
    if config.get("shell"):
        if isinstance(args, list) and args and all(isinstance(item, str) for item in args):
            args = " ".join(args)
        if isinstance(args, str) and args:
            return ["/bin/sh", "-c", args]
    elif isinstance(args, list) and args and all(isinstance(item, str) for item in args):
        return args
    raise BuiltinError(f"args must be the program and its arguments, not {args!r}")


def _mappings(config: _Config, job: Job) -> list[Mapping]:
    job.expect_inputs(len(config.inputs))
    found = []
    for (path, write), source in zip(config.inputs, job.run.inputs, strict=True):
        directory = is_directory(source.spec)
        if directory and path == _IN:
            raise BuiltinError("the standard input of the program must be a blob, not a directory")
        found.append(Mapping(path, source.object, directory, write))
    _check_distinct("inputs", [path for path, _ in config.inputs])
    return found


def _wanted(config: _Config, job: Job) -> list[Wanted]:
    job.expect_outputs(len(config.outputs))
    _check_distinct("outputs", config.outputs)
    return [Wanted(path, job.is_directory_output(index)) for index, path in enumerate(config.outputs)]


def _inside(path: Any, reserved: tuple[str, ...]) -> str:
    normal = relative_path(path)
    if normal.split(os.sep, 1)[0] in reserved:
        raise BuiltinError(f"the path {path!r} is reserved")
    return normal


def _check_distinct(what: str, paths: Sequence[str]) -> None:
    if len(set(paths)) != len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise BuiltinError(f"two {what} have the same path {twice!r}")


def _variables(run: Run) -> dict[str, str | None]:
    """What the program finds in its environment besides that of the worker."""
    session, task, number = run.key
    template = run.template_data
    resources = template.get("resources") or {}
    variables: dict[str, str | None] = dict(template.get("env") or {})
    variables["RAIN_TASK_ID"] = str(ID(session, task))
    variables["RAIN_TASK_CPUS"] = str(resources.get("cpus", 1))
    variables["RAIN_TASK_RUN"] = str(number)
    if run.gpus:
        indices = ",".join(map(str, run.gpus))
        variables["RAIN_TASK_GPUS"] = variables["CUDA_VISIBLE_DEVICES"] = indices
    return variables


def _memory_limit(run: Run) -> int | None:
    memory = (run.template_data.get("resources") or {}).get("memory")
    return int(memory) if memory else None
