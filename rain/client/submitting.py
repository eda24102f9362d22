"""Submitting what was built in a session."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rain.client.interrupts import InterruptGuard
from rain.client.submit import SubmitPacker
from rain.common.errors import RainException
from rain.common.ids import FIRST_ID
from rain.protocol.messages import SubmitCommit

if TYPE_CHECKING:
    from rain.client.connection import Connection, Question
    from rain.client.core import Request
    from rain.client.session import Session
    from rain.protocol.messages import Message


def submit(session: Session, connection: Connection, then: Question | None = None) -> Request | None:
    """Send all unsubmitted tasks and objects; returns when the server has accepted them all.

    Args:
        session: the session.
        connection: of its client.
        then: a question that is sent together with the submit.

    Returns:
        The request of `then`, whose answer is still to be waited for.

    Raises:
        RainException: as `Session.submit`; nothing was submitted.
    """
    with session._submitting:
        with session._lock:
            things, end = session._registry.take()
        if not things and session._submitted == FIRST_ID and then is None:
            return None
        packer = SubmitPacker(session, session._templates)
        last: tuple[Message, ...] = ()
        try:
            for message in packer.messages(things):
                if last:
                    connection.post(*last)
                last = (message,)
        except BaseException:
            _discard(session, connection)
            raise
        what = f"submitting {end - session._submitted} tasks and objects to session {session.session_id}"
        commit: Question = (lambda seq: SubmitCommit(seq, session.session_id, discard=False)), what
        # Whether the server took it must be known, so Ctrl-C waits for the answer.
        with InterruptGuard():
            questions = [commit] if then is None else [commit, then]
            request, *following = connection.begin(questions, session.session_id, last)
            try:
                session._raise_failure(connection.finish(request, is_wait=False))
            except BaseException:
                for other in following:
                    connection.drop(other)
                raise
            session._templates |= packer.new_templates
            with session._lock:
                session._submitted = end
                session._registry.submitted(end)
        return following[0] if following else None


def _discard(session: Session, connection: Connection) -> None:
    with suppress(RainException):
        connection.ask(
            lambda seq: SubmitCommit(seq, session.session_id, discard=True),
            f"taking back a submit to session {session.session_id}",
        )
