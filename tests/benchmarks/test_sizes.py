"""Sizes for slow systems."""

from __future__ import annotations

import pytest

from benchmarks import sizes


class Slow:
    """Something that takes so many seconds per unit, by a clock of its own."""

    def __init__(self, monkeypatch, each: float) -> None:
        self.now, self.each, self.ran = 0.0, each, []
        monkeypatch.setattr(sizes.time, "perf_counter", lambda: self.now)

    def run(self, size):
        self.ran.append(size)
        self.now += size * self.each


@pytest.mark.parametrize(
    ("each", "size", "ran"),
    [
        (1.0, 100, [100]),  # the smallest takes too long as well, and is all that is run
        (0.01, 200, [100]),
        (0.001, 2_000, [100, 800]),
        (0.000_1, 20_000, [100, 800, 6400]),
        (0.000_01, 100_000, [100, 800, 6400, 51_200]),
    ],
)
def test_the_size_takes_about_the_seconds(monkeypatch, each, size, ran):
    slow = Slow(monkeypatch, each)
    assert sizes.fitting(slow.run, 100, 100_000, 2.5) == size
    assert slow.ran == [100, *ran]


def test_a_size_below_the_smallest_is_not_made_larger(monkeypatch):
    assert sizes.fitting(Slow(monkeypatch, 1.0).run, 100, 7, 2.5) == 7


@pytest.mark.parametrize(("number", "rounded"), [(1, 1), (4, 2), (5, 5), (99, 50), (100, 100), (2345, 2000), (0, 0)])
def test_round_numbers(number, rounded):
    assert sizes.rounded_down(number) == rounded
