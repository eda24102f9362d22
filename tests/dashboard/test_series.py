"""A bounded number of points over time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, strategies as st

from rain.dashboard.series import Series


@given(st.lists(st.floats(0, 1e6), max_size=300), st.integers(2, 40))
def test_bounded_and_in_order(times: list[float], limit: int):
    series = Series(2, limit)
    for place, time in enumerate(sorted(times)):
        series.add(time, place)
    points = series.points()
    assert len(points) == len(series) <= limit
    assert points == sorted(points)
    if times:
        assert points[-1] == [max(times), len(times) - 1]
        assert points[0][0] == min(times)


def test_keeps_all_while_there_is_room():
    series = Series(3, 4)
    for time in range(4):
        series.add(time, 2 * time, 0)
    assert series.points() == [[0, 0, 0], [1, 2, 0], [2, 4, 0], [3, 6, 0]]


def test_spread_evenly():
    series = Series(1, 100)
    for time in range(10_000):
        series.add(time)
    times = [point[0] for point in series.points()]
    steps = [after - before for before, after in pairwise(times)]
    assert len(times) >= 50
    assert max(steps) <= 10_000 / 25
