"""Ctrl-C while the library is at work: delayed to the moments where stopping does no harm.

A KeyboardInterrupt may otherwise appear between any two instructions of the main thread, for instance after bytes were
taken from a socket and before they were noted, and put the connection out of step.
"""

from __future__ import annotations

import threading

# `signal.signal` looks for the handler in enums, which takes ten times as long as all the rest here.
from _signal import getsignal, signal  # type: ignore[import-not-found]
from contextlib import contextmanager
from signal import SIGINT
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Self

_main_thread_id = threading.main_thread().ident


class InterruptGuard:
    """`with InterruptGuard() as guard:` holds SIGINT back, except inside `with guard.waiting():`.

    Args:
        once: only the first SIGINT is held back; the second one interrupts at any instruction.

    Only in the main thread, and only where SIGINT has a Python handler; elsewhere it does nothing, since no
    KeyboardInterrupt can appear there. Inside of another guard nothing is raised at all: the outer one holds it back.
    """

    __slots__ = ("_handler", "_held_back", "_is_waiting", "_once")

    def __init__(self, *, once: bool = False) -> None:
        self._once = once
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._held_back = False
        self._is_waiting = False

    def __enter__(self) -> Self:
        if threading.get_ident() == _main_thread_id:
            handler = getsignal(SIGINT)
            if callable(handler):
                self._handler = handler
                signal(SIGINT, self._on_signal)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._handler is not None:
            signal(SIGINT, self._handler)
            self._deliver()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._handler is not None and (self._is_waiting or (self._once and self._held_back)):
            self._held_back = False
            self._handler(number, frame)
        else:
            self._held_back = True

    def _deliver(self) -> None:
        if self._held_back and self._handler is not None:
            self._held_back = False
            self._handler(SIGINT, None)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which KeyboardInterrupt may be raised at any instruction."""
        self._is_waiting = True
        try:
            self._deliver()
            yield
        finally:
            self._is_waiting = False
