"""The loop of the Python executor: takes batches of calls, runs them in order, sends results."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgpack

from rain.common.errors import RainException
from rain.common.packing import cloudpickle, load_extension, pack
from rain.executor.blocks import (
    QUICK,
    Gathered,
)
from rain.executor.channel import PROTOCOL, Channel, connect
from rain.executor.context import Context, _find_context
from rain.executor.failures import describe
from rain.executor.inputs import INFO, LIVE, VALUE, InputObject, typed_instance
from rain.executor.linked import LinkedMembers
from rain.executor.members import run_members
from rain.executor.output import LONG, Output
from rain.executor.results import PICKLE5_INFO, SCALARS, Encoded, ResultEncoder
from rain.executor.templates import Template
from rain.executor.workspace import PROGRESS_FILE, Workspace, open_progress
from rain.process.spawn import LARGE_PAGES, die_with_parent

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_NO_ARGUMENTS: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})


class _SessionState:
    """What is kept of a session: templates by number, functions by object id."""

    __slots__ = ("functions", "templates")

    def __init__(self) -> None:
        self.templates: dict[int, Template] = {}
        self.functions: dict[int, Callable[..., Any]] = {}


class Executor:
    """One executor.

    Args:
        connection: connected to the worker.
        root: work directory.
        executor_id: informative.
        executor_type: likewise.

    Attributes:
        output: tells whose what is written is.
    """

    def __init__(
        self, connection: socket.socket, root: str, executor_id: int = 0, executor_type: str = "py"
    ) -> None:
        self._channel = Channel(connection)
        self.output = Output(self._channel.written)
        self._workspace = Workspace(root)
        self._encoder = ResultEncoder(self._workspace)
        self._progress = open_progress(os.path.join(root, PROGRESS_FILE))
        self._begun = 0
        self._sessions: dict[int, _SessionState] = {}
        self._registration = {"protocol": PROTOCOL, "executor_id": executor_id, "executor_type": executor_type}
        # The current call.
        self._session = 0
        self._state = _SessionState()
        self._objects: dict[int, Any] = {}
        self._row: list[Any] | None = None
        self._context: Context | None = None
        self._gathered: Gathered | None = None
        self._linked: LinkedMembers | None = None

    def run(self) -> None:
        """Serve until the worker closes the connection."""
        global _running
        _running = self
        _find_context[:] = [self.context]
        handlers: dict[str, Callable[..., None]] = {
            "welcome": self._welcome,
            "calls": self._calls,
            "block": self._block,
            "drop_cached": self._drop_cached,
            "end_session": self._end_session,
        }
        self.output.begin()
        self._channel.send(["register", self._registration])
        self._channel.start_watch()
        self._workspace.reset_task()
        while messages := self._channel.receive():
            for name, *data in messages:
                handlers[name](*data)

    # --- messages ---

    def _welcome(self, options: dict[str, Any]) -> None:
        self._workspace.values = options["values"]
        self._encoder.inline_limit = options["inline_limit"]
        cloudpickle()  # while there is nothing to do: most functions need it

    def _drop_cached(self, keys: list[list[int]]) -> None:
        for session, number in keys:
            state = self._sessions.get(session)
            if state is not None:
                state.functions.pop(number, None)

    def _end_session(self, session: int) -> None:
        self._sessions.pop(session, None)

    def _calls(self, session: int, templates: list[Any], objects: list[Any], calls: list[list[Any]]) -> None:
        state = self._enter(session, templates, objects)
        self._channel.begin_batch(len(calls))
        try:
            self._run_calls(state, calls)
        finally:
            self._leave()

    def _block(self, session: int, templates: list[Any], objects: list[Any], block: list[Any]) -> None:
        state = self._enter(session, templates, objects)
        self._channel.begin_batch(1)
        try:
            self._run_block(state, *block)
        finally:
            self._leave()
        self._channel.flush()

    def _enter(self, session: int, templates: list[Any], objects: list[Any]) -> _SessionState:
        """Take what comes with calls of a session."""
        state = self._sessions.get(session)
        if state is None:
            state = self._sessions[session] = _SessionState()
        for number, data in templates:
            state.templates[number] = Template(data)
        self._session, self._state = session, state
        self._objects = {row[0]: row for row in objects}
        return state

    def _leave(self) -> None:
        self._objects = {}
        self._row = self._context = self._gathered = self._linked = None

    # --- calls ---

    def _run_calls(self, state: _SessionState, calls: list[list[Any]]) -> None:
        templates, functions = state.templates, state.functions
        progress, begun, output = self._progress, self._begun, self.output
        append, encode_plain, encode_returned = self._channel.rows.append, self._encoder.plain, self._encoder.returned
        objects = self._objects
        lives = None in [row[VALUE] for row in objects.values()]
        unpack_args, clock = msgpack.unpackb, time.monotonic
        offset = time.time() - clock()
        result: tuple[Any, ...]
        start = clock()
        for row in calls:
            task, run, number, args, inputs, _, specs = row
            value = None
            called = done = start
            begun += 1
            progress[0] = begun
            if 0 < progress[1] <= begun:  # looked at after the store, as the worker looks after its own
                self._end_before(begun)
            self._row = row
            if lives and None in [objects[one][VALUE] for one in inputs if one in objects]:
                append((task, run))  # an earlier call was to make it and failed, or has given its value away
                continue
            try:
                template = templates[number]
                if specs is not None:
                    template = template.specified(specs)
                function = functions.get(inputs[0])
                if function is None:
                    function = self._load_function(inputs[0])
                positional, keywords = (
                    unpack_args(args, ext_hook=load_extension, use_list=False) if args else _NO_ARGUMENTS
                )
                given = positional if template.plain else (self.context(), *positional)
                called = clock()
                value = function(*given, **keywords)
                done = clock()
                outputs = (encode_plain if template.plain else encode_returned)(template, value, inputs)
                info = None if self._context is None else self._task_info()
            except BaseException as error:  # exit() and the like fail the task, too
                failure = self._failure(error, task, run)
                end = done = clock()
                result = (task, run, start + offset, end - start, failure)
            else:
                end = clock()
                result = (task, run, start + offset, end - start, info, outputs)
                if lives:
                    self._hand_on(row[5], outputs, value)
            if output.wrote or end - start > LONG:
                output.attribute(task, run)
            append(result)
            if done - called > QUICK or self._workspace.has_staged:
                self._begun = begun
                self._tidy()
                start = clock()
            else:
                start = end
                self._context = None
        self._begun = begun
        self._channel.flush()  # before the last values are freed, which may take longer than making them
        self._tidy()

    def _hand_on(self, made: list[int], outputs: list[Encoded], value: Any) -> None:
        """Later calls of the batch may need what this one made."""
        for number, (stored, about, _) in zip(made, outputs, strict=False):
            row = self._objects.get(number)
            if row is not None and type(stored) is bytes:
                row[INFO], row[VALUE] = about, stored
                if type(value) in SCALARS and about == PICKLE5_INFO:
                    row.append(value)

    def _run_block(
        self,
        state: _SessionState,
        task: int,
        run: int,
        number: int,
        args: bytes,
        inputs: list[int],
        output: int,
        members: int,
        link: bytes | None,
    ) -> None:
        self._begun += 1
        self._progress[0] = self._begun
        if 0 < self._progress[1] <= self._begun:
            self._end_before(self._begun)
        self._row = [task, run, number, args, inputs, [output], None]
        start, begin = time.time(), time.monotonic()
        gathered = Gathered(members, start - begin)
        row: tuple[Any, ...]
        try:
            if link is not None:
                self._linked = LinkedMembers(self, self._row, link, gathered)
            else:
                template = state.templates[number]
                function = state.functions.get(inputs[0]) or self._load_function(inputs[0])
                for further in inputs[1:]:
                    self._input(further)
        except BaseException as error:  # what all members need is missing: none of them is to blame
            row = (task, run, start, time.monotonic() - begin, self._failure(error, task, run))
        else:
            if self._linked is not None:
                self._linked.run(args)
                self._linked.report()
            else:
                self._gathered = gathered
                run_members(self, template, function, args, gathered)
            if gathered.ran > gathered.done:  # the last one ended in another way
                self.output.attribute(task + gathered.done, run)
            outputs = [] if gathered.stored is None else [gathered.stored]
            duration = time.monotonic() - begin
            row = (task, run, start, duration, gathered.info, outputs, gathered.result().pack(), gathered.ran)
        self._channel.rows.append(row)
        self._tidy()

    def _end_before(self, call: int) -> None:
        """The worker has forbidden this call: tell what is done, and end."""
        self._progress[0] = call - 1
        self._channel.flush()
        os._exit(0)

    def _load_function(self, number: int) -> Callable[..., Any]:
        value = self._input(number).value
        if isinstance(value, str):
            with open(value, "rb") as source:
                value = source.read()
        function = cast("Callable[..., Any]", pickle.loads(value))
        self._state.functions[number] = function
        self._channel.cached.append((self._session, number))
        return function

    def _input(self, number: int) -> InputObject:
        row = self._objects.get(number)
        if row is None:
            raise RainException(f"Data object {self._session}/{number} was not sent to the executor")
        return InputObject(self._session, row[:LIVE])

    def _tidy(self) -> None:
        """After a call that may have left something behind."""
        self._context = None
        self._workspace.drop_staged()
        self._workspace.reset_task()

    def _failure(self, error: BaseException, task: int, run: int) -> dict[str, Any]:
        info = None if self._context is None else self._context.filled_info
        debug = "" if info is None else info.debug
        return describe(error, session=self._session, task=task, run=run, debug=debug).to_map()

    def _task_info(self) -> bytes | None:
        info = None if self._context is None else self._context.filled_info
        if info is None:
            return None
        fields: dict[str, Any] = {}
        if info.user:
            fields["user"] = info.user
        if info.debug:
            fields["debug"] = info.debug
        return pack(fields) if fields else None

    # --- what the running call asks for ---

    def context(self) -> Context:
        """The context of the running call.

        Raises:
            RainException: none runs.
        """
        if self._context is None:
            if self._row is None:
                raise RainException("get_context() works in a running task only")
            if self._linked is not None:
                self._context = self._linked.context()
                return self._context
            task, run, number, _, inputs, outputs, _ = self._row
            if self._gathered is not None:  # of the member that runs
                task += self._gathered.done
                outputs = [outputs[0] + self._gathered.done]
            make_spec = partial(self._state.templates[number].task_spec, self._session, task, inputs, outputs)
            self._context = Context(make_spec, self._state.functions.get(inputs[0]), run, self._workspace)
        return self._context

    def argument(self, name: str, input_index: int, load: bool, content_type: str | None) -> Any:
        """The value for a data object inside of an argument."""
        row = self._row
        if row is None:
            raise RainException("Arguments of a task can be unpickled in the running task only")
        if self._linked is not None:
            row = self._linked.row()
        plain = self._state.templates[row[2]].plain
        if plain:
            known = self._objects.get(row[4][input_index], ())
            if len(known) > LIVE:
                return known[LIVE]
        source = self._input(row[4][input_index])
        if plain:
            return source.natural()
        instance = typed_instance(source.instance(), name, content_type)
        return instance.load() if load else instance


_running: Executor | None = None


def unpickle_input_object(name: str, input_index: int, load: bool, content_type: str | None) -> Any:
    """What a data object inside of a pickled argument becomes in the task.

    Args:
        name: of the parameter, for error texts.
        input_index: position among the inputs of the task.
        load: decode it.
        content_type: type that it must have, None = any.

    Raises:
        RainException: it has another type or cannot be decoded, or no task runs.
    """
    if _running is None:
        raise RainException("Arguments of a task can be unpickled in an executor only")
    return _running.argument(name, input_index, load, content_type)


def _environment(name: str) -> str | None:
    return os.environ.get(f"RAIN_EXECUTOR_{name}") or os.environ.get(f"RAIN_SUBWORKER_{name}")


def tune_collector() -> None:
    """Let the garbage collector look seldom, and never at what is here now."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(100_000, 50, 100)


def main() -> int:
    """Run an executor as the environment says; return its exit code."""
    path = _environment("SOCKET")
    if path is None:
        print("RAIN_EXECUTOR_SOCKET is not set: executors are started by workers", file=sys.stderr)
        return 1
    die_with_parent()
    variable, tunables = LARGE_PAGES
    if os.environ.get(variable) == tunables:
        del os.environ[variable]
    root = os.path.dirname(os.path.abspath(path))
    if sys.path and os.path.abspath(sys.path[0]) == root:
        del sys.path[0]  # where `-m` put the work directory
    executor = Executor(connect(path), root, int(_environment("ID") or 0))
    sys.stdout, sys.stderr = executor.output.streams()
    tune_collector()
    sys.setswitchinterval(0.001)
    executor.run()
    return 0
