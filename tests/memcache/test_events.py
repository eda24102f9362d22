"""Hooks are called one at a time, in order, and cannot harm the client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rain.memcache import events
from rain.memcache.addresses import Address
from rain.memcache.base import ClusterEvents, ClusterManagment
from rain.memcache.events import MAX_QUEUED, Dispatcher
from tests.memcache.fake_nodes import host

MANAGEMENT: Any = object()


class Hooks(ClusterEvents):
    """Notes events; `gate` holds them back, `failures` are raised one after another."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Address]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[BaseException] = []
        self.running = 0

    async def note(self, event: str, management: ClusterManagment, address: Address) -> None:
        assert management is MANAGEMENT
        assert self.running == 0
        self.running += 1
        try:
            await self.gate.wait()
            self.seen.append((event, address))
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self.running -= 1

    async def on_node_healthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
        await self.note("healthy", cluster_managment, host)

    async def on_node_unhealthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
        await self.note("unhealthy", cluster_managment, host)


class AllHooks(Hooks):
    async def on_node_added(self, cluster_managment: ClusterManagment, host: Address) -> None:
        await self.note("added", cluster_managment, host)

    async def on_node_removed(self, cluster_managment: ClusterManagment, host: Address) -> None:
        await self.note("removed", cluster_managment, host)


async def until_idle() -> None:
    """Let the dispatcher work until it has nothing more to do."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_events_in_order():
    """All kinds, also when hooks are slow; nothing runs while there is nothing to tell."""
    hooks = AllHooks()
    dispatcher = Dispatcher(hooks, MANAGEMENT)
    hooks.gate.clear()
    kinds: list[Any] = ["unhealthy", "healthy", "added", "removed", "unhealthy"]
    for number, kind in enumerate(kinds):
        dispatcher.put(kind, host(number))
    await until_idle()
    assert hooks.seen == []
    hooks.gate.set()
    await until_idle()
    assert hooks.seen == [(kind, host(number)) for number, kind in enumerate(kinds)]
    assert len(asyncio.all_tasks()) == 1
    dispatcher.put("healthy", host(7))
    await until_idle()
    assert hooks.seen[-1] == ("healthy", host(7))
    await dispatcher.close()


async def test_hooks_of_discovery_are_optional():
    """Those who do not have them hear nothing."""
    hooks = Hooks()
    dispatcher = Dispatcher(hooks, MANAGEMENT)
    dispatcher.put("added", host(1))
    dispatcher.put("removed", host(1))
    dispatcher.put("healthy", host(1))
    await until_idle()
    assert hooks.seen == [("healthy", host(1))]
    await dispatcher.close()


async def test_without_hooks_nothing_is_queued():
    dispatcher = Dispatcher(None, MANAGEMENT)
    for _ in range(MAX_QUEUED + 10):
        dispatcher.put("healthy", host(1))
    assert len(asyncio.all_tasks()) == 1
    await dispatcher.close()


async def test_a_hook_that_fails(caplog: pytest.LogCaptureFixture):
    """What it raises is logged, also a CancelledError of its own; the next events come."""
    hooks = Hooks()
    dispatcher = Dispatcher(hooks, MANAGEMENT)
    hooks.failures = [ValueError("broken hook"), asyncio.CancelledError()]
    for number in range(3):
        dispatcher.put("healthy", host(number))
    await until_idle()
    assert [address for _, address in hooks.seen] == [host(0), host(1), host(2)]
    assert [record.getMessage() for record in caplog.records] == [
        "the hook on_node_healthy of cluster_events failed for node cache:11210",
        "the hook on_node_healthy of cluster_events failed for node cache:11211",
    ]
    assert "broken hook" in caplog.text
    await dispatcher.close()


async def test_too_many_events(caplog: pytest.LogCaptureFixture):
    """Some are dropped, with a warning each."""
    hooks = Hooks()
    hooks.gate.clear()
    dispatcher = Dispatcher(hooks, MANAGEMENT)
    dispatcher.put("healthy", host(1))
    await until_idle()  # the first one runs, it is not queued any more
    for _ in range(MAX_QUEUED + 2):
        dispatcher.put("unhealthy", host(2))
    dropped = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(dropped) == 2
    assert dropped[0].getMessage().startswith("event dropped: node cache:11212 is unhealthy, but 1000 events wait")
    hooks.gate.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    assert len(hooks.seen) == 1 + MAX_QUEUED
    await dispatcher.close()


async def test_closing_cancels_the_hook_that_runs():
    """What is queued is dropped, and nothing is taken any more."""
    hooks = Hooks()
    hooks.gate.clear()
    dispatcher = Dispatcher(hooks, MANAGEMENT)
    dispatcher.put("healthy", host(1))
    dispatcher.put("healthy", host(2))
    await until_idle()
    assert hooks.running == 1
    await dispatcher.close()
    assert hooks.running == 0
    dispatcher.put("healthy", host(3))
    hooks.gate.set()
    await until_idle()
    assert hooks.seen == []
    assert len(asyncio.all_tasks()) == 1
    await dispatcher.close()


async def test_a_hook_may_close():
    """It is not cancelled by what it does itself."""
    closed = []

    class Closing(Hooks):
        async def on_node_healthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
            await dispatcher.close()
            await asyncio.sleep(0)
            closed.append(host)

    dispatcher = Dispatcher(Closing(), MANAGEMENT)
    dispatcher.put("healthy", host(1))
    dispatcher.put("healthy", host(2))
    await until_idle()
    assert closed == [host(1)]


async def test_a_hook_that_ignores_its_cancellation(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Closing does not wait for ever."""
    monkeypatch.setattr(events, "CLOSING_TIME", 0.02)
    end = asyncio.Event()

    class Stubborn(Hooks):
        async def on_node_healthy(self, cluster_managment: ClusterManagment, host: Address) -> None:
            while not end.is_set():
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    continue

    dispatcher = Dispatcher(Stubborn(), MANAGEMENT)
    dispatcher.put("healthy", host(1))
    await until_idle()
    await dispatcher.close()
    assert "goes on although it was cancelled" in caplog.text
    end.set()
    await until_idle()
    assert len(asyncio.all_tasks()) == 1
