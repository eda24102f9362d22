"""When one caller is alone, the reply to its request is taken on the spot instead of by way of the event loop.

A turn of the loop costs more than a request. For a moment (`STRETCH`) the connection waits for replies itself, as a
blocking client does, if a request that took the ordinary way has just shown that one task asks again and again, that
the loop had nothing else to do meanwhile, and that the server is quick. Then one request takes the ordinary way again:
no other task waits longer than that moment, and where there is anything else to do, all requests take the ordinary way.

So that a reply costs one system call instead of two, the descriptor blocks meanwhile, until the loop's next turn at the
latest: its transport never finds it blocking.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import Callable

    from rain.memcache.replies import Answer

STRETCH = 1e-3
"""Seconds during which requests take the shortcut."""
SOON = 200e-6
"""Seconds in which the reply must have come on the ordinary way."""
IDLE = 40e-6
"""Seconds of processor time that the loop may have used meanwhile; its own two turns take 10 to 30 microseconds."""
ALONE = 2.0
"""If it used more than this many times the least ever, the next request is looked at, too: a callback that came due
during a stretch may have had its turn, and what it led to has not."""
FIRST_PAUSE = 4
LONGEST_PAUSE = 1024
"""Requests that take the ordinary way without being looked at when the shortcut does not pay; doubled each time."""

_PATIENCE = struct.pack("@ll", 0, 1000)
"""A `timeval` of 1 ms, until a reply is left to the loop; the kernel makes one or two of its ticks of it."""
_MOST_READ = 16 << 10

_task_of = asyncio.current_task


class Shortcut:
    """Decides whether the requests of a connection may take the shortcut, and exchanges bytes for them.

    Attributes:
        trying: the reply to a request on the ordinary way is going to be judged.
        until: time of the loop when the stretch ends.
        held: the descriptor blocks: the stretch goes on, and nothing has happened in the loop since its last request.

    Args:
        connected: the socket, which does not block.
        leave: has the transport send bytes.
    """

    def __init__(self, connected: TransportSocket | socket.socket, leave: Callable[[bytes], None]) -> None:
        self.trying = False
        self.until = 0.0
        self.held = False
        self._loop = asyncio.get_running_loop()
        self._descriptor = connected.fileno()
        self._leave = leave
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connected.setsockopt(socket.SOL_SOCKET, option, _PATIENCE)
        self._task = 0  # who sent the last lone request
        self._again = False  # the last one was in doubt
        self._left = 0  # requests until the next is looked at
        self._pause = FIRST_PAUSE
        self._sent_at = 0.0
        self._used_before = 0.0
        self._least = IDLE

    def try_out(self, now: float) -> None:
        """A lone request was just sent on the ordinary way."""
        task = id(_task_of(self._loop))
        if task != self._task:
            self._task = task
            self._again = False
        elif self._left:
            self._left -= 1
        else:
            self.trying = True
            self._sent_at = now
            self._used_before = time.thread_time()

    def judge(self, now: float) -> bool:
        """Return whether a stretch begins, now that the first bytes of its reply are here."""
        self.trying = False
        used = time.thread_time() - self._used_before
        self._least = min(self._least, used)
        if now - self._sent_at > SOON or used > IDLE:
            self._rest(self._pause)
            return False
        self._again = used > ALONE * self._least and not self._again
        if self._again:
            return False
        self.until = now + STRETCH
        return True

    def hold(self, now: float) -> bool:
        """Return whether the current task may go on, after a turn of the loop; the descriptor blocks then."""
        if now >= self.until:
            self._pause = FIRST_PAUSE
            return False
        if id(_task_of(self._loop)) != self._task:
            return False  # it does not pay that another one asks
        if signal.getitimer(signal.ITIMER_REAL)[1]:
            return False  # signals again and again: each interrupts the system call, and the patience begins anew
        os.set_blocking(self._descriptor, True)
        self.held = True
        self._loop.call_soon(self.release)
        return True

    def release(self) -> None:
        """Let nothing block any more; whoever has the transport send something calls this first."""
        if self.held:
            self.held = False
            os.set_blocking(self._descriptor, False)

    def give_up(self) -> None:
        """A reply was not there soon: whatever was due in the loop has waited."""
        self._rest(LONGEST_PAUSE)

    def _rest(self, pause: int) -> None:
        self._again = False
        self._left = pause
        self._pause = min(2 * pause, LONGEST_PAUSE)

    def exchange(self, data: bytes) -> bytes:
        """Send bytes and return what comes back soon, or nothing; the transport comes across any error or end, too."""
        written = 0
        try:
            written = os.write(self._descriptor, data)
            if written == len(data):
                return os.read(self._descriptor, _MOST_READ)
        except OSError:
            if written == len(data):
                return b""
        self.release()
        self._leave(data[written:])
        return b""

    def read_on(self, received: bytes, feed: Callable[[bytes], list[Answer]]) -> list[Answer]:
        """Return what a reply that comes in pieces completes, as long as they come soon; the first one is here."""
        completed = feed(received)
        while received and not completed:
            try:
                received = os.read(self._descriptor, _MOST_READ)
            except OSError:
                received = b""
            completed = feed(received)
        return completed
