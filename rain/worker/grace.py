"""Ends a process group with grace: SIGTERM first, SIGKILL for what does not obey."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from rain.worker.monitor import descendants, is_alive_in

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_LOOK_INTERVAL = 0.02
_DYING_SECONDS = 1.0
"""How long what got SIGKILL is waited for: it may hang in the kernel."""


class GroupEnd:
    """The end of one process group.

    The owner does not reap the leader before `done`: till then the number cannot belong to others.

    Args:
        loop: for the timers.
        group: process id of the leader, which is a child of this process and not reaped.
        grace: seconds between SIGTERM and SIGKILL.
        done: called once, in the loop, when all have ended, or the leader has and the others got SIGKILL long ago.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, group: int, grace: float, done: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._group = group
        self._done = done
        self._members = descendants(group)
        self._leader_ended = False
        self._killed = False
        self._patience_ends = 0.0
        self._timer: asyncio.TimerHandle | None = loop.call_later(grace, self.kill)
        self._look_timer: asyncio.TimerHandle | None = None
        self._signal(signal.SIGTERM)

    def leader_ended(self) -> None:
        """To be called when the leader is dead; `done` follows, now or later."""
        self._leader_ended = True
        self._look()

    def kill(self) -> None:
        """Wait no longer."""
        if self._killed or self._timer is None:
            return
        self._killed = True
        self._patience_ends = self._loop.time() + _DYING_SECONDS
        self._members += descendants(self._group)
        self._signal(signal.SIGKILL)
        if self._leader_ended:
            self._look()

    def _look(self) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        is_patient = not self._killed or self._loop.time() < self._patience_ends
        if is_patient and any(is_alive_in(pid, self._group) for pid in self._members):
            self._look_timer = self._loop.call_later(_LOOK_INTERVAL, self._look)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._done()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, number)
