"""Coroutines that never suspend, and sessions without a front."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from rain.client.front import NoFront, run
from rain.client.session import Session
from rain.common.errors import RainException


async def plain(value):
    return value


async def nested(value):
    return [await plain(value), await plain(value)]


async def failing():
    await plain(1)
    raise ZeroDivisionError


def test_run_gives_results_and_exceptions():
    assert run(nested(3)) == [3, 3]
    with pytest.raises(ZeroDivisionError):
        run(failing())


def test_run_ends_a_coroutine_that_suspends():
    coroutine = asyncio.sleep(0)
    with pytest.raises(AssertionError, match="suspended"):
        run(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_sessions_without_a_client():
    for name in ("ask", "wait", "submit", "listen"):
        with pytest.raises(RainException, match="only serves to construct graphs"):
            getattr(NoFront(), name)
    session = Session(None, 1)
    for call in (session.submit, session.wait_all, session.cancel):
        with pytest.raises(RainException, match="only serves to construct graphs"):
            call()
    assert session.counts() == {}
    session.close()
    assert not session.active
