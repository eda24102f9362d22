"""`ExecutorPool`: the executor processes of a worker, and the conversation with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from rain.common import fs
from rain.common.comm import FrameError
from rain.common.errors import RainException
from rain.common.failure import Failure
from rain.worker.core.events import (
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    RunFailed,
    RunKept,
    RunsEnded,
    RunSkipped,
    StoreFailed,
)
from rain.worker.executor_frames import (
    PYTHON_PROTOCOL,
    SKIPPED_ROW,
    CallError,
    PythonCodec,
    check_registration,
    check_row,
    read_registration,
)
from rain.worker.executor_outputs import take_result
from rain.worker.executor_process import describe_status
from rain.worker.executor_starts import ExecutorStarts
from rain.worker.executor_state import ExecutorState as _Executor
from rain.worker.foreign_codec import ForeignCodec
from rain.worker.grace import GroupEnd
from rain.worker.store import INLINE_LIMIT
from rain.worker.task_logs import UnderWay

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rain.process.guard import Guard
    from rain.worker.core.actions import Run
    from rain.worker.core.events import ObjectKey, RunEnd, TaskKey, WorkerEvent
    from rain.worker.executor_frames import Results
    from rain.worker.executor_process import ExecutorProcess
    from rain.worker.store import Store
    from rain.worker.task_logs import TaskLogs

log = logging.getLogger(__name__)

START_TAIL = 600
"""Bytes of each log quoted when an executor did not come up."""
CRASH_TAIL = 4096
"""Bytes of each log quoted when it died during a task."""

_READ_SIZE = 1 << 18
_CLOSE_TIMEOUT = 5.0
_EXIT_DELAY = 0.1  # seconds from the end of a connection in which a process may end by itself, with its own status
_FORBID_DELAY = 0.02  # seconds after which a number written for the executor is surely seen by it


class ExecutorPool:
    """Starts executors, sends batches, takes results into the store and reports.

    Args:
        loop: the worker's loop; everything happens in it.
        workdir: work directories are made in `executors/work` below it.
        logdir: logs are written to `executors` below it.
        store: gives values of inputs and takes results.
        task_logs: told of what runs wrote.
        report: takes events.
        hear: calls what reads from an executor and reports.
        register_timeout: seconds from start to registration.
        guard: told of all process groups, None without.
        commands: command per executor type; `py` has a default.
        first: a Python executor that was started before, to be used when its number is to start. Its group is known to
            the guard.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        workdir: str | os.PathLike[str],
        logdir: str | os.PathLike[str],
        store: Store,
        task_logs: TaskLogs,
        report: Callable[[WorkerEvent], None],
        hear: Callable[[Callable[[], None]], None],
        register_timeout: float,
        guard: Guard | None = None,
        commands: Mapping[str, Sequence[str]] | None = None,
        first: ExecutorProcess | None = None,
    ) -> None:
        self._loop = loop
        self._starts = ExecutorStarts(workdir, logdir, store.shared_directory, commands, first)
        self._store = store
        self._task_logs = task_logs
        self._report = report
        self._hear = hear
        self._register_timeout = register_timeout
        self._guard = guard
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._executors: dict[int, _Executor] = {}
        self._ending: dict[int, _Executor] = {}  # by pid: killed or told as lost, not reaped yet
        self._all_ended: asyncio.Event | None = None

    # --- orders ---------------------------------------------------------------------------------

    def start(self, executor: int, type: str, env: Iterable[tuple[str, str | None]]) -> None:
        """Start a process; ExecutorReady or ExecutorLost follows.

        Args:
            executor: its id.
            type: `py` or a configured one.
            env: variables to set, or with None to remove.
        """
        try:
            process = self._starts.start(executor, type, tuple(env))
        except RainException as error:
            self._report(ExecutorLost(executor, None, Failure("task", str(error))))
            return
        if self._guard is not None:
            self._guard.add_group(process.pid)
        state = _Executor(executor, type, process, self._starts.make_values_directory(executor))
        self._executors[executor] = state
        self._loop.add_reader(process.pidfd, self._process_ended, state)
        self._loop.add_reader(process.listener, self._accept, state)
        state.timer = self._loop.call_later(self._register_timeout, self._register_timed_out, state)

    def call(self, executor: int, runs: list[Run]) -> None:
        """Send a batch to an executor that is ready; the results are reported by RunsEnded."""
        state = self._executors.get(executor)
        if state is None or not runs:  # lost meanwhile: that is reported already
            return
        assert state.codec is not None
        state.due.extend(runs)
        if state.codec.one_at_a_time:
            self._call_next(state)
        else:
            self._send(state, state.codec.calls(runs))

    def _call_next(self, state: _Executor) -> None:
        """Send the first call that is due to an executor which gets one at a time, if it has none."""
        assert state.codec is not None
        while state.due and not state.is_calling() and state.connection is not None:
            if not state.may_begin():
                state.process.kill_group()
                return
            run = state.due[0]
            if any(item.live and self._store.get(item.object) is None for item in run.inputs):
                state.first_is_over()
                self._report(RunsEnded(state.number, [RunSkipped(run.key)], []))
                continue
            state.log_ends = state.process.log_ends()
            try:
                frames = state.codec.calls([run])
            except CallError as error:
                state.first_is_over()
                failure = Failure("task", str(error), *run.key[:2], attempts=run.key[2])
                self._report(RunsEnded(state.number, [RunFailed(run.key, failure, 0.0, 0.0)], []))
            else:
                self._send(state, frames)

    def drop_cached(self, executor: int, objects: Iterable[ObjectKey]) -> None:
        """Make the executor forget decoded objects."""
        state = self._executors.get(executor)
        if state is not None and state.codec is not None:
            self._send(state, state.codec.drop_cached(objects))

    def end_session(self, session: int) -> None:
        """Make all executors forget what they know of a session."""
        for state in list(self._executors.values()):
            if state.codec is not None:
                self._send(state, state.codec.end_session(session))

    def kill(self, executor: int, grace: float = 0.0) -> None:
        """End the process group: SIGTERM, and SIGKILL after `grace` seconds; then ExecutorStopped follows.

        Without grace: SIGKILL at once, no event follows, also when it is ending with grace already.
        """
        state = self._executors.get(executor)
        if grace:
            if state is not None:
                self._end_with_grace(state, grace)
            else:  # it ended by itself meanwhile
                self._report(ExecutorStopped(executor))
        elif state is not None:
            self._end(state)
        else:
            for state in [state for state in self._ending.values() if state.number == executor]:
                self._end_grace(state)

    def forbid(self, executor: int, key: TaskKey) -> None:
        """The executor shall end instead of beginning this run; RunKept follows if it has not begun."""
        state = self._executors.get(executor)
        if state is not None and state.forbid(key):
            self._loop.call_later(_FORBID_DELAY, self._check_forbidden, state, key)

    def _check_forbidden(self, state: _Executor, key: TaskKey) -> None:
        if self._executors.get(state.number) is state and state.kept(key):
            self._report(RunKept(state.number, key))

    def watched(self) -> list[tuple[TaskKey, int, int]]:
        """Running tasks with a memory request: key, process id, bytes."""
        return [entry for state in self._executors.values() if (entry := state.watched()) is not None]

    def processes(self) -> dict[int, ExecutorProcess]:
        """By the number of their executor, those that are ending included."""
        return {state.number: state.process for state in (*self._ending.values(), *self._executors.values())}

    def under_way(self, session: int, task: int) -> UnderWay | None:
        """The run of a task, or of the block to which it belongs, that an executor has begun and not reported."""
        for state in (*self._executors.values(), *self._ending.values()):
            run = state.running_run()
            if run is not None and run.key[0] == session and 0 <= task - run.key[1] < max(run.members, 1):
                return UnderWay(state.number, state.log_ends, bool(run.members))
        return None

    def conditions(self) -> Counter[str]:
        """How many executors are `coming`, `idle`, `busy`, `stopping`."""
        return Counter(state.condition for state in (*self._executors.values(), *self._ending.values()))

    async def close(self) -> None:
        """Kill all executors and wait until they are gone, a few seconds at most."""
        if self._starts.first is not None:
            self.start(self._starts.first.number, "py", ())  # as if it had been asked for
        for state in list(self._executors.values()):
            self._end(state)
        for state in list(self._ending.values()):
            self._end_grace(state)
        if not self._ending:
            return
        self._all_ended = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._all_ended.wait()

    # --- coming up ------------------------------------------------------------------------------

    def _accept(self, state: _Executor) -> None:
        try:
            connection, _ = state.process.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self._loop.remove_reader(state.process.listener)
        state.process.listener.close()
        connection.setblocking(False)
        state.connection = connection
        self._loop.add_reader(connection, self._hear, partial(self._readable, state))

    def _register_timed_out(self, state: _Executor) -> None:
        text = f"Executor did not register within {self._register_timeout:g} s"
        self._lose(state, None, f"{text}\n{state.process.log_tails(START_TAIL)}")

    def _registered(self, state: _Executor, payload: bytes) -> None:
        registration = read_registration(payload)
        check_registration(registration, state.type)
        if registration.executor_id != state.number:
            log.warning("Executor %d registered with the id %.100r", state.number, registration.executor_id)
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        if registration.protocol == PYTHON_PROTOCOL:
            state.codec = PythonCodec(self._store, self._input_missing)
        else:
            state.codec = ForeignCodec(registration.encoding, self._store, self._input_missing)
        state.log_ends = state.process.log_ends()
        self._send(state, state.codec.welcome(state.values, INLINE_LIMIT))
        self._report(ExecutorReady(state.number))

    def _input_missing(self, key: ObjectKey) -> None:
        self._report(StoreFailed(key, "the value is not in the store"))

    # --- conversation ---------------------------------------------------------------------------

    def _send(self, state: _Executor, frames: list[bytes]) -> None:
        connection = state.connection
        if connection is None or not frames:
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if state.unsent:
            state.unsent += data
            return
        sent = self._try_send(connection, data)
        if sent < len(data):
            state.unsent += memoryview(data)[sent:]
            self._loop.add_writer(connection, self._writable, state)

    @staticmethod
    def _try_send(connection: socket.socket, data: bytes | bytearray | memoryview) -> int:
        try:
            return connection.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # the process is ending, which will be noticed by itself
            return len(data)

    def _writable(self, state: _Executor) -> None:
        assert state.connection is not None
        del state.unsent[: self._try_send(state.connection, state.unsent)]
        if not state.unsent:
            self._loop.remove_writer(state.connection)

    def _readable(self, state: _Executor) -> None:
        if not self._read(state) and state.connection is not None:
            # It closed the connection, so it is dying or useless; how it ended is told when it did.
            self._disconnect(state)
            self._loop.call_later(_EXIT_DELAY, state.process.kill_group)

    def _read(self, state: _Executor) -> bool:
        """Read once; False at the end of the stream, or when the executor is given up."""
        assert state.connection is not None
        try:
            count = state.connection.recv_into(self._buffer)
        except BlockingIOError:
            return True
        except OSError:
            count = 0
        if not count:
            return False
        try:
            for payload in state.reader.feed(self._buffer[:count]):
                if state.codec is None:
                    self._registered(state, payload)
                else:
                    self._take(state, state.codec.results(payload))
                    if state.codec.one_at_a_time:
                        self._call_next(state)
        except FrameError as error:
            self._malformed(state, str(error))
            return False
        return True

    def _malformed(self, state: _Executor, defect: str) -> None:
        if state.codec is None:
            self._lose(state, None, f"Registration of the executor refused: {defect}")
            return
        running = state.running() or (state.due[0].key if state.due else None)
        self._lose(state, running, f"Malformed message from the executor: {defect}")

    def _take(self, state: _Executor, frame: Results) -> None:
        """Take a frame of results in, in one pass."""
        self._note_written(state, state.due, state.written_by_call() or frame.written)
        results: list[RunEnd] = []
        due = state.due
        defect: str | None = None
        for row in frame.rows:
            try:
                check_row(row)
                if not due:
                    raise FrameError(f"a result of task {row[0]}, but nothing was called")
                run = due[0]
                key = run.key
                if row[0] != key[1] or row[1] != key[2]:
                    raise FrameError(f"a result of task {row[0]}, run {row[1]}; due was task {key[1]}, run {key[2]}")
                if len(row) == SKIPPED_ROW:
                    results.append(RunSkipped(key))
                elif len(row) == 5:
                    results.append(RunFailed(key, Failure.from_map(row[4]), row[2], row[3]))
                else:
                    results.append(take_result(self._store, run, row, state.directories))
            except FrameError as error:
                defect = str(error)
            except (TypeError, ValueError, LookupError) as error:
                defect = f"a result of a wrong form: {error!r}"
            if defect is not None:
                break
            state.first_is_over()
        if results or frame.cached:
            self._report(RunsEnded(state.number, results, frame.cached))
        if defect is not None:
            raise FrameError(defect)

    def _note_written(self, state: _Executor, runs: Iterable[Run], written: Sequence[Sequence[int]]) -> None:
        if written:
            state.log_ends = self._task_logs.executor_wrote(state.number, runs, written)

    # --- the end --------------------------------------------------------------------------------

    def _process_ended(self, state: _Executor) -> None:
        """The process is dead: take what it still said, then tell."""
        self._loop.remove_reader(state.process.pidfd)
        if state.group_end is not None:
            state.group_end.leader_ended()
            return
        if state.process.pid not in self._ending:
            while state.connection is not None and self._has_more(state):
                if not self._read(state):
                    break
        lost = state.process.pid not in self._ending
        status = describe_status(state.process.reap())
        if lost:
            self._tell_crash(state, status)
        self._clean(state)

    @staticmethod
    def _has_more(state: _Executor) -> bool:
        assert state.connection is not None
        try:
            return bool(state.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _tell_crash(self, state: _Executor, status: str) -> None:
        running = state.running()
        if state.codec is None:
            text = f"Executor unexpectedly terminated with {status}\n{state.process.log_tails(START_TAIL)}"
        else:
            tails = state.process.log_tails(CRASH_TAIL)
            text = f"Lost connection to executor\nExecutor terminated with {status}\n{tails}"
        self._lose(state, running, text)

    def _lose(self, state: _Executor, running: TaskKey | None, text: str) -> None:
        """Give an executor up: tell, kill."""
        session, task, run = running if running is not None else (0, 0, 0)
        failure = Failure("task", text, session=session, task=task, attempts=run)
        self._report(ExecutorLost(state.number, running, failure))
        self._end(state)

    def _end(self, state: _Executor) -> None:
        """Kill it; the rest happens when it has ended."""
        self._take_out(state)
        self._disconnect(state)
        state.process.kill_group()

    def _end_with_grace(self, state: _Executor, grace: float) -> None:
        """Nothing is heard of it any more. It stays connected, as it ends at once when it is not."""
        self._take_out(state)
        if state.connection is not None:
            self._loop.remove_reader(state.connection)
            self._loop.remove_writer(state.connection)
        state.process.forbid(1)
        state.stop_is_told = True
        state.group_end = GroupEnd(self._loop, state.process.pid, grace, partial(self._ended_with_grace, state))

    def _ended_with_grace(self, state: _Executor) -> None:
        self._disconnect(state)
        state.process.reap()
        self._clean(state)
        if state.stop_is_told:
            self._report(ExecutorStopped(state.number))

    @staticmethod
    def _end_grace(state: _Executor) -> None:
        if state.group_end is not None:
            state.stop_is_told = False
            state.group_end.kill()

    def _take_out(self, state: _Executor) -> None:
        self._executors.pop(state.number, None)
        self._ending[state.process.pid] = state
        state.unfinished = state.running_run()
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        if state.process.listener.fileno() >= 0:
            self._loop.remove_reader(state.process.listener)

    def _disconnect(self, state: _Executor) -> None:
        connection, state.connection = state.connection, None
        if connection is not None:
            self._loop.remove_reader(connection)
            self._loop.remove_writer(connection)
            connection.close()

    def _clean(self, state: _Executor) -> None:
        del self._ending[state.process.pid]
        if state.unfinished is not None and not state.unfinished.members:
            self._note_written(state, [state.unfinished], state.written_by(state.unfinished))
        if self._guard is not None:
            self._guard.remove_group(state.process.pid)
        try:
            state.process.clean()
            if state.values is not None:
                fs.remove_tree(state.values)
        except OSError as error:
            log.warning("Files of executor %d are left: %s", state.number, error)
        if not self._ending and self._all_ended is not None:
            self._all_ended.set()
