"""The service levels, each by the program that also prints them as a table."""

from __future__ import annotations

import pytest

from benchmarks.levels import LEVELS, Level, measure


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.measure.__name__)
def test_level(level: Level) -> None:
    reading = measure(level, attempts=4)
    assert reading.kept, f"{reading.what}: {reading.seconds:.3f} s, limit {reading.low:g} .. {reading.high:g} s"
