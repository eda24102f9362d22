"""Every exception Rain raises.

    RainException(Exception)
      RainConnectionError(RainException, ConnectionError)
      AuthenticationError(RainException)
      RainTimeoutError(RainException, TimeoutError)
      InvalidRequestError(RainException)
      SessionException(RainException)
        TaskException(SessionException)
          TaskCancelled(TaskException)
    RainWarning(Warning)
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rain.common.ids import ID


class RainException(Exception):
    """Base of all errors of Rain."""


class RainConnectionError(RainException, ConnectionError):
    """Cannot connect, or the connection is lost."""


class AuthenticationError(RainException):
    """No secret, or a wrong one."""


class RainTimeoutError(RainException, TimeoutError):
    """A `timeout=` expired; the work goes on."""


class InvalidRequestError(RainException):
    """The server refused a request (unknown id, invalid submit ...)."""


class SessionException(RainException):
    """The session is closed, detached, lost, or failed with no task to blame."""


class TaskException(SessionException):
    """A task failed.

    Attributes:
        task: the client's `Task`, or None if this client has no handle of it.
        task_id: `ID` of the task, or None.
        message: the error text of the task (for Python tasks the remote traceback).
        debug: the debug stream of the task.
        worker: id of the worker of the last run, `""` if the task never ran.
        attempts: runs started.
    """

    def __init__(
        self,
        text: str,
        *,
        task: Any = None,
        task_id: ID | None = None,
        message: str = "",
        debug: str = "",
        worker: str = "",
        attempts: int = 0,
        pickled_cause: bytes | None = None,
    ) -> None:
        super().__init__(text)
        self.task = task
        self.task_id = task_id
        self.message = message
        self.debug = debug
        self.worker = worker
        self.attempts = attempts
        self._pickled_cause = pickled_cause
        self._cause: BaseException | None = None

    @property
    def cause(self) -> BaseException | None:
        """The original Python exception of the task, unpickled when first asked for, or None."""
        if self._cause is None and self._pickled_cause is not None:
            pickled, self._pickled_cause = self._pickled_cause, None
            try:
                value = pickle.loads(pickled)
            except Exception as error:  # user classes may raise anything while unpickling
                self.add_note(f"The original exception could not be unpickled: {error!r}")
                return None
            if isinstance(value, BaseException):
                self._cause = value
        return self._cause


class TaskCancelled(TaskException):
    """A task was cancelled."""


class RainWarning(Warning):
    """Something works but probably not as meant."""
