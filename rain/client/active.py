"""The active session: a stack per execution context, and one default session for the process."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from rain.common.errors import RainException

if TYPE_CHECKING:
    from rain.client.base import BaseSession
    from rain.client.session import Session

_stack: ContextVar[tuple[BaseSession, ...]] = ContextVar("rain_session_stack", default=())
_default: BaseSession | None = None


def get_active_session() -> Session:
    """The session in which tasks and data objects are created; of an asyncio client an AsyncSession.

    Raises:
        RainException: there is none.
    """
    stack = _stack.get()
    if stack:
        return cast("Session", stack[-1])
    if _default is None:
        raise RainException(
            "No active session; use `with client.new_session():`, `session.set_as_default()` or the argument session="
        )
    return cast("Session", _default)


def global_session_push(session: BaseSession) -> None:
    """Put a session on top of the current context's stack.

    Raises:
        SessionException: it is closed.
    """
    session._check_open()
    _stack.set((*_stack.get(), session))


def global_session_pop() -> Session:
    """Take the top session from the current context's stack.

    Raises:
        RainException: the stack is empty.
    """
    stack = _stack.get()
    if not stack:
        raise RainException("No session to pop: the session stack of this context is empty")
    _stack.set(stack[:-1])
    return cast("Session", stack[-1])


def leave(session: BaseSession) -> None:
    """Remove the topmost entry of a session; nothing happens if it has none in this context."""
    stack = _stack.get()
    for position in range(len(stack) - 1, -1, -1):
        if stack[position] is session:
            _stack.set(stack[:position] + stack[position + 1 :])
            return


def set_default(session: BaseSession) -> None:
    """Make it the default session of the process."""
    global _default
    _default = session


def clear_default(session: BaseSession) -> None:
    """Clear the default session if it is this one."""
    global _default
    if _default is session:
        _default = None
