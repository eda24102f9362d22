"""Sizes at which a slow system does not take minutes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = 8
LONG_ENOUGH = 0.3
"""Seconds of a trial that tell how long more would take."""


def fitting(run: Callable[[int], Any], smallest: int, largest: int, seconds: float) -> int:
    """The largest size that takes about so many seconds, by trials of growing sizes.

    Args:
        run: runs with this size.
        smallest: a size that is run in any case.
        largest: a size not to go beyond.
        seconds: how long the size may take.

    Returns:
        `largest`, or a round number (1, 2 or 5 and zeros) not below `smallest`.
    """
    size = min(smallest, largest)
    run(size)  # what is slow only the first time
    while True:
        start = time.perf_counter()
        run(size)
        taken = time.perf_counter() - start
        if taken >= LONG_ENOUGH or size * STEP >= largest:
            fits = int(size * seconds / taken)
            return largest if fits >= largest else max(min(smallest, largest), rounded_down(fits))
        size *= STEP


def rounded_down(number: int) -> int:
    """The next round number: 1, 2 or 5 and zeros."""
    if number < 1:
        return 0
    power = int(10 ** (len(str(number)) - 1))
    return max(digit * power for digit in (1, 2, 5) if digit * power <= number)
