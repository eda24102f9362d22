"""Submitting what was built in a session."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rain.client.submit import SubmitPacker
from rain.common.errors import RainException
from rain.common.ids import FIRST_ID
from rain.protocol.messages import SubmitCommit

if TYPE_CHECKING:
    from rain.client.base import BaseSession
    from rain.client.connection import Question
    from rain.client.core import Request
    from rain.client.front import SubmitFront
    from rain.protocol.messages import Message


async def submit(front: SubmitFront, session: BaseSession, then: Question | None = None) -> Request | None:
    """Send all unsubmitted tasks and objects; returns when the server has accepted them all. The caller sees to it that
    a session has one submit under way.

    Args:
        front: of the client.
        session: the session.
        then: a question that is sent together with the submit.

    Returns:
        The request of `then`, whose answer is still to be waited for.

    Raises:
        RainException: as `Session.submit`; nothing was submitted.
    """
    with session._lock:
        things, end = session._registry.take()
    if not things and session._submitted == FIRST_ID and then is None:
        return None
    if session._has_staged:
        await _discard(front, session)
        session._has_staged = False
    packer = SubmitPacker(session, session._templates)
    last: tuple[Message, ...] = ()
    try:
        for message in packer.messages(things):
            if last:
                await front.post(*last)
            last = (message,)
    except KeyboardInterrupt:
        session._has_staged = True  # the server may be hung: what it has of this is discarded by the next submit
        raise
    except BaseException:
        await _discard(front, session)
        raise
    what = f"submitting {end - session._submitted} tasks and objects to session {session.session_id}"
    commit: Question = (lambda seq: SubmitCommit(seq, session.session_id, discard=False)), what
    # Whether the server took it must be known, so Ctrl-C waits for the answer.
    with front.uninterrupted():
        questions = [commit] if then is None else [commit, then]
        request, *following = await front.begin(questions, session.session_id, last)
        request.session = 0  # where warnings are errors, one must not hide that the server took the submit
        try:
            session._raise_failure(await front.finish_asking(request))
        except BaseException:
            for other in following:
                front.drop(other)
            raise
        session._templates |= packer.new_templates
        with session._lock:
            session._submitted = end
            session._registry.submitted(end)
    return following[0] if following else None


async def _discard(front: SubmitFront, session: BaseSession) -> None:
    with suppress(RainException):
        await front.ask(
            lambda seq: SubmitCommit(seq, session.session_id, discard=True),
            f"taking back a submit to session {session.session_id}",
        )
