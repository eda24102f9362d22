"""What a running task knows and can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.common.attribute_views import TaskAttributes
from rain.common.attributes import TaskInfo
from rain.common.content_type import check_content_type, encode_value
from rain.common.data_instance import DataInstance
from rain.common.data_type import DataType
from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.common.attributes import TaskSpec
    from rain.executor.workspace import Workspace

MAX_DEBUG = 1 << 20
"""Longest debug stream in characters."""

_DEBUG_CUT = "\n... (debug stream cut at 1 MiB)"


class Context:
    """The context of a running task, the first argument of remote functions.

    Attributes:
        function: the function that runs.
        attempt: number of this run, from 1.
    """

    __slots__ = ("_info", "_make_spec", "_spec", "_workspace", "attempt", "function")

    def __init__(
        self, make_spec: Callable[[], TaskSpec], function: Any, attempt: int, workspace: Workspace
    ) -> None:
        self.function = function
        self.attempt = attempt
        self._make_spec = make_spec
        self._spec: TaskSpec | None = None
        self._info: TaskInfo | None = None
        self._workspace = workspace

    @property
    def spec(self) -> TaskSpec:
        """What was asked of the task."""
        if self._spec is None:
            self._spec = self._make_spec()
        return self._spec

    @property
    def info(self) -> TaskInfo:
        """To be filled: `info.user` is visible to the client after `update()`."""
        if self._info is None:
            self._info = TaskInfo(attempts=self.attempt)
        return self._info

    @property
    def filled_info(self) -> TaskInfo | None:
        """The info if anybody looked at it."""
        return self._info

    @property
    def attributes(self) -> TaskAttributes:
        """The attributes facade of the task."""
        return TaskAttributes(self.spec, self.info, running=True)

    def blob(self, value: Any, content_type: str | None = None, encode: str | None = None) -> DataInstance:
        """Make a blob to be returned.

        Args:
            value: bytes, stored as they are; str, stored as UTF-8 text; anything with `encode`.
            content_type: type of bytes.
            encode: content type by which the value is encoded.

        Raises:
            RainException: the arguments do not go together.
            ValueError: an unknown content type.
        """
        if encode is not None:
            if content_type is not None:
                raise RainException("blob() takes either content_type or encode, not both")
            return DataInstance(DataType.BLOB, data=encode_value(value, encode), content_type=encode)
        check_content_type(content_type)
        if isinstance(value, str) and content_type is None:
            return DataInstance(DataType.BLOB, data=value.encode(), content_type="text")
        if not isinstance(value, bytes):
            hint = "content_type is for bytes" if isinstance(value, str) else "give encode= to encode it"
            raise RainException(f"blob() takes bytes or str, not {type(value).__name__!r}; {hint}")
        return DataInstance(DataType.BLOB, data=value, content_type=content_type)

    def pickled(self, value: Any) -> DataInstance:
        """Make a pickled blob to be returned."""
        return self.blob(value, encode="pickle")

    def stage_file(self, path: str, content_type: str | None = None) -> DataInstance:
        """Move a file out of the task's directory, to be returned.

        Args:
            path: relative path. What is staged and not returned is dropped.
            content_type: its content type.

        Raises:
            FileNotFoundError: there is no such file.
            IsADirectoryError: it is a directory.
            RainException: the path leads out of the task's directory.
        """
        check_content_type(content_type)
        return self._staged(path, DataType.BLOB, content_type)

    def stage_directory(self, path: str) -> DataInstance:
        """Move a directory out of the task's directory, to be returned; raises as `stage_file`."""
        return self._staged(path, DataType.DIRECTORY, None)

    def _staged(self, path: str, data_type: DataType, content_type: str | None) -> DataInstance:
        directory = self._workspace.is_directory(path)
        if directory and data_type is DataType.BLOB:
            raise IsADirectoryError(f"{path!r} is a directory; use stage_directory()")
        if not directory and data_type is DataType.DIRECTORY and self._workspace.exists(path):
            raise NotADirectoryError(f"{path!r} is not a directory; use stage_file()")
        return DataInstance(data_type, path=self._workspace.stage_path(path), content_type=content_type)

    def debug(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Append a line to the debug stream of the task.

        Args:
            message: a format string, see `str.format`; taken as it is when there are no arguments.
            args, kwargs: arguments of the format string.

        Raises:
            TypeError: the message is not a str.
        """
        if not isinstance(message, str):
            raise TypeError(f"the message of debug() is a str, not {type(message).__name__!r}")
        line = message.format(*args, **kwargs) if args or kwargs else message
        stream = self.info.debug
        if stream.endswith(_DEBUG_CUT):
            return
        stream = f"{stream}\n{line}" if stream else line
        self.info.debug = stream if len(stream) <= MAX_DEBUG else stream[:MAX_DEBUG] + _DEBUG_CUT


# Set by the executor; context imports nothing of it, so that user code can import this module anywhere.
_find_context: list[Callable[[], Context]] = []


def get_context() -> Context:
    """Return the context of the running task, from anywhere inside of it.

    Raises:
        RainException: no task runs in this process.
    """
    if not _find_context:
        raise RainException("get_context() works in a running task only")
    return _find_context[0]()
