"""The background thread of a connection: heartbeats, answers that somebody wants to be called for, and unkeeping."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import weakref
    from collections import deque
    from collections.abc import Callable, Iterator

    from rain.client.connection import BlockingLink, Connection

UNKEEP_INTERVAL = 0.5
"""Seconds between looks for things to unkeep."""
MAX_UNKEEP = 100_000
"""Ids of one message that unkeeps."""


class Signals:
    """What a connection tells its background thread. wake: somebody wants to be called; stopped: the end; at_end: is
    called then."""

    __slots__ = ("at_end", "stopped", "wake")

    def __init__(self) -> None:
        self.at_end: list[Callable[[], None]] = []
        self.stopped = False
        self.wake = threading.Event()


def serve(reference: weakref.ref[Connection], signals: Signals, interval: float) -> None:
    """Run the thread; it holds the connection only while there is something to do.

    Args:
        reference: the connection.
        signals: of the connection.
        interval: seconds between heartbeats.
    """
    pause = min(interval, UNKEEP_INTERVAL)
    next_beat = time.monotonic() + interval
    while True:
        signals.wake.wait(pause)
        connection = None if signals.stopped else reference()
        if connection is None or connection.is_lost():
            return
        if connection.dropped:
            connection.unkeep_dropped()
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + interval
            connection.tick()
        connection.notice_silence()
        connection.serve_listeners(pause)
        del connection


def end(link: BlockingLink, signals: Signals, pid: int) -> None:
    """End the thread, and the connection unless it was inherited by fork."""
    signals.stopped = True
    signals.wake.set()
    if os.getpid() == pid:
        link.close()
        for call in signals.at_end:
            call()


def forget_dropped(dropped: deque[tuple[int, int, int]], session: int) -> None:
    """The session is closed: the server has forgotten its objects. Others may take from the list meanwhile."""
    with suppress(IndexError):
        for _ in range(len(dropped)):
            found = dropped.popleft()
            if found[0] != session:
                dropped.append(found)


def take_dropped(dropped: deque[tuple[int, int, int]]) -> Iterator[tuple[int, array[int]]]:
    """Empty the list of dropped objects; rising ids by session, in messages of a bounded size."""
    by_session: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))
    while dropped:
        session, first, count = dropped.popleft()
        if count == 1:
            by_session[session].append(first)
        else:
            by_session[session].extend(range(first, first + count))
    for session, found in by_session.items():
        ids = array("I", sorted(found))  # in stretches they cost the server less
        for start in range(0, len(ids), MAX_UNKEEP):
            yield session, ids[start : start + MAX_UNKEEP]
