"""One timer for many deadlines."""

from __future__ import annotations

import asyncio

import pytest

from rain.memcache.deadlines import NEVER, STEP, Alarm, describe, expire, fail
from rain.memcache.requests import Request
from tests.memcache.virtual import ADDRESS, VirtualLoop, outcome, seconds, virtually, with_waiter


@virtually
async def test_alarm_rings_when_set_and_sleeps_afterwards():
    rung = []

    def look(now: float) -> float:
        rung.append(now)
        return NEVER

    alarm = Alarm(look)
    assert alarm.at == NEVER
    alarm.set(1005.0)
    alarm.set(1002.0)
    assert alarm.at == 1002.0
    await seconds(10)
    assert rung == [1002.0]
    assert alarm.at == NEVER
    alarm.set(1020.0)
    alarm.cancel()
    alarm.cancel()
    await seconds(20)
    assert rung == [1002.0]


@virtually
async def test_alarm_looks_again_when_it_is_told_but_not_all_the_time():
    rung = []
    following = iter([1003.0, 1003.0 + STEP / 10, NEVER])

    def look(now: float) -> float:
        rung.append(now)
        return next(following)

    Alarm(look).set(1001.0)
    await seconds(10)
    assert rung == [1001.0, 1003.0, pytest.approx(1003.0 + STEP)]


@virtually
async def test_an_alarm_set_while_it_looks_wins():
    rung = []

    def look(now: float) -> float:
        rung.append(now)
        if now == 1001.0:
            alarm.set(1002.0)
            return 1004.0
        return NEVER

    alarm = Alarm(look)
    alarm.set(1001.0)
    await seconds(10)
    assert rung == [1001.0, 1002.0]


@virtually
async def test_a_loop_that_rings_early_does_not_hide_a_deadline():
    rung = []

    def look(now: float) -> float:
        rung.append(now)
        return NEVER

    alarm = Alarm(look)
    alarm.set(1001.0)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now = 1001.0 - loop._clock_resolution / 2  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rung == [1001.0]


@virtually
async def test_expire_fails_what_is_due():
    due = with_waiter(Request("get", b"k"), 1001.0)
    done = with_waiter(Request("get", b"k"), 1001.0)
    done.waiter.set_result(None)
    late = with_waiter(Request("get", b"k"), 1003.0)
    later = with_waiter(Request("get", b"k"), 1004.0)
    endless = with_waiter(Request("get", b"k"))
    assert expire([endless, due, done, late, later], 1001.0, ADDRESS) == ([due], 1003.0)
    error = await outcome(due.waiter)
    assert type(error) is TimeoutError
    assert str(error) == "get of b'k' was not answered by cache:11211 within the timeout"
    assert expire([], 1.0, ADDRESS) == ([], NEVER)


@virtually
async def test_failures_of_own_requests_need_not_be_looked_at():
    request = with_waiter(Request("barrier", own=True))
    fail(request, TimeoutError())
    assert request.waiter.exception() is not None
    # `virtually` checks that asyncio does not complain


def test_describe():
    assert describe(Request("get", b"k")) == "get of b'k'"
    assert describe(Request("version")) == "version"
    assert describe(Request("get_many", keys=(b"k", b"l"))) == "get_many of 2 keys (b'k' ...)"
