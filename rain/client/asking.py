"""Questions about a session: it must be open, and what the server refuses becomes an exception."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.client.base import BaseSession
    from rain.client.core import Reply
    from rain.client.front import Front
    from rain.protocol.messages import Message


async def ask(front: Front, session: BaseSession, make: Callable[[int], Message], what: str) -> Reply:
    """One exchange.

    Raises:
        RainException: as `Connection.ask`, and what the server answers.
    """
    session._check_connected()
    return session._raise_failure(await front.ask(make, what, session=session.session_id))


async def wait_for(
    front: Front,
    session: BaseSession,
    make: Callable[[int], Message],
    what: str,
    timeout: float | None,
    *,
    submit: bool = False,
) -> Reply:
    """A question whose answer may take long; with `submit` it follows a submit in one go.

    Raises:
        RainException: as `Connection.wait`, and what the server answers.
    """
    session._check_connected()
    if submit:
        return session._raise_failure(await front.submit_and_wait(session, make, what, timeout))
    return session._raise_failure(await front.wait(make, what, session=session.session_id, timeout=timeout))


async def submit(front: Front, session: BaseSession) -> None:
    """Send all unsubmitted tasks and objects; returns when the server has accepted them all.

    Raises:
        RainException: as `Session.submit`.
    """
    session._check_connected()
    await front.submit(session)
