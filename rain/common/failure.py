"""Why something failed, as plain data that crosses every boundary."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal, get_args

from rain.common.structs import dataclass

FailureKind = Literal["task", "cancelled", "session", "invalid", "connection", "internal"]

_KINDS = get_args(FailureKind)
MAX_TEXT = 1 << 20
MAX_EXCEPTION = 64 << 10


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure.

    Attributes:
        kind: which exception the client raises for it: `task` TaskException, `cancelled`
            TaskCancelled, `session` SessionException, `invalid` InvalidRequestError,
            `connection` RainConnectionError, `internal` RainException.
        message: what failed and why, for people.
        session: session id, 0 if none.
        task: id of the task to blame, 0 if none.
        debug: debug stream of the task.
        worker: id (`IP:PORT`) of the worker of the last run, `""` if it never ran.
        attempts: runs started.
        exception: pickled original Python exception (at most 64 KiB) or None.
        retriable: False where another run cannot help (e.g. infeasible).
    """

    kind: FailureKind
    message: str
    session: int = 0
    task: int = 0
    debug: str = ""
    worker: str = ""
    attempts: int = 0
    exception: bytes | None = None
    retriable: bool = True

    def to_map(self) -> dict[str, Any]:
        """The msgpack form."""
        return asdict(self)

    @classmethod
    def from_map(cls, data: dict[str, Any]) -> Failure:
        """Inverse of `to_map`.

        Raises:
            ValueError: a key is unknown or missing, or a value is of a wrong type.
        """
        try:
            failure = cls(**data)
        except TypeError as error:
            raise ValueError(f"not a failure: {error}") from None
        sound = (
            isinstance(failure.kind, str)
            and failure.kind in _KINDS
            and isinstance(failure.message, str)
            and isinstance(failure.debug, str)
            and isinstance(failure.worker, str)
            and type(failure.session) is type(failure.task) is type(failure.attempts) is int
            and isinstance(failure.exception, bytes | None)
            and isinstance(failure.retriable, bool)
        )
        if not sound:
            raise ValueError("a field of a failure has a wrong type")
        return failure
