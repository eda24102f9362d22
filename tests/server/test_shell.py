"""The server's shell with constants that cannot be stored."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from rain.server.core.actions import DropConstants, ServerAction, ShareConstant, WriteConstant
from rain.server.core.events import ConstantLost, ServerEvent, Tick
from rain.server.shell import ServerShell
from rain.testing.simloop import SimLoop


class FullDisk:
    def write(self, session: int, obj: int, offset: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space", f"/constants/{session}/{obj}")

    def share(self, session: int, obj: int, source: int) -> None:
        raise OSError(errno.EMLINK, "too many links", f"/constants/{session}/{obj}")

    def drop(self, session: int, objects: list[int] | None) -> None:
        return


class ScriptedCore:
    def __init__(self, actions: list[ServerAction]) -> None:
        self.actions = actions
        self.events: list[ServerEvent] = []

    def handle(self, events: list[ServerEvent], now: float) -> list[ServerAction]:
        self.events += events
        actions, self.actions = self.actions, []
        return actions


def test_the_core_learns_of_constants_that_cannot_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    loop = SimLoop(seed=1)
    core = ScriptedCore([WriteConstant(1, 10, 0, 4, b"data"), ShareConstant(1, 12, 11), DropConstants(1, None)])
    shell = ServerShell(core, loop, FullDisk(), lambda code: None)  # type: ignore[arg-type]
    with caplog.at_level(logging.CRITICAL, "rain.server"):
        shell.post(Tick())
        loop.run_until_complete(_some_turns())
    loop.shutdown()
    lost = [event for event in core.events if isinstance(event, ConstantLost)]
    assert [(event.session, event.object_id) for event in lost] == [(1, 10), (1, 12)]
    assert "no space: '/constants/1/10'" in lost[0].reason
    assert "too many links" in lost[1].reason


async def _some_turns() -> None:

    for _ in range(5):
        await asyncio.sleep(0)
