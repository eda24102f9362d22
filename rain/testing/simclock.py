"""The clocks of a simulation: monotonic time is the loop's, the clock on the wall may jump."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.testing.simloop import SimLoop

EPOCH = 1_700_000_000.0
"""The wall clock at the beginning."""


class SimClock:
    """Both clocks.

    Args:
        loop: gives the time.
    """

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._offset = EPOCH

    def time(self) -> float:
        """Unix seconds, as the clock on the wall has them."""
        return self._offset + self._loop.time()

    def jump(self, seconds: float) -> None:
        """Set the clock on the wall forward, or back."""
        self._offset += seconds

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Meanwhile `time.time` and `time.monotonic` are these clocks."""
        with mock.patch("time.time", self.time), mock.patch("time.monotonic", self._loop.time):
            yield
