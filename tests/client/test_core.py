"""The sans-IO core of the client."""

from __future__ import annotations

import pytest

from rain.client.core import ClientCore, again, result_of
from rain.common.errors import RainConnectionError, RainException
from rain.common.failure import Failure
from rain.protocol.messages import Accepted, GetServerInfo, Heartbeat, Refused, SessionCreated, SessionWarning


@pytest.fixture
def core():
    return ClientCore("host:7210", 100.0)


def test_answers_find_their_requests(core):
    one, two = core.open("one"), core.open("two", 4)
    assert (one.seq, two.seq, two.session, core.waiting) == (1, 2, 4, 2)
    assert core.received([SessionCreated(2, 7), Heartbeat()], 101.0) == [two]
    assert result_of(two) == SessionCreated(2, 7)
    assert not one.done
    assert core.received([Accepted(1)], 102.0) == [one]
    assert core.waiting == 0


def test_refusal(core):
    request = core.open("x")
    core.received([Refused(1, Failure("invalid", "why").to_map())], 101.0)
    assert result_of(request) == Failure("invalid", "why")


def test_late_answers_are_dropped(core):
    request = core.open("x")
    core.forget(request)
    assert core.received([Accepted(1), Accepted(99)], 101.0) == []
    assert not request.done


def test_loss_ends_everything(core):
    requests = [core.open("one"), core.open("two")]
    cause = OSError("gone")
    assert core.lose("closed", cause) == requests
    with pytest.raises(RainConnectionError, match="host:7210 lost: closed") as raised:
        result_of(requests[0])
    assert raised.value.__cause__ is cause
    with pytest.raises(RainConnectionError, match="closed"):
        core.open("three")
    assert core.lose("again") == []
    with pytest.raises(RainConnectionError, match="closed"):
        core.open("four")


def test_silence(core):
    assert core.silent_since(114.9) is None
    assert core.patience(105.0) == 10.0
    assert core.silent_since(115.0) == 15.0
    core.received([Heartbeat()], 115.0)
    assert core.silent_since(129.0) is None
    assert core.patience(200.0) == 0.0


def test_warnings_are_given_once(core):
    core.received([SessionWarning(3, "a"), SessionWarning(3, "b"), SessionWarning(4, "c")], 101.0)
    assert core.has_warnings(3)
    assert core.take_warnings(3) == ["a", "b"]
    assert core.take_warnings(3) == []
    assert core.has_warnings(4)


def test_unexpected_message_ends_the_connection(core):
    request = core.open("x")
    assert core.received([GetServerInfo(1)], 101.0) == [request]
    assert isinstance(core.lost, RainConnectionError)
    assert "GetServerInfo" in str(core.lost)


def test_again_is_a_fresh_exception():
    error = RainException("text")
    error.__cause__ = KeyError()
    fresh = again(error)
    assert fresh is not error
    assert (type(fresh), fresh.args, fresh.__cause__) == (RainException, ("text",), error.__cause__)
