"""Bars of who ran what when."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rain.dashboard.overview import Overview
from rain.dashboard.runs import Runs
from rain.dashboard.session_view import SessionView
from rain.dashboard.stream import stream
from rain.dashboard.submits import add_templates
from rain.testing.server_builders import SubmitBuilder
from tests.dashboard.stories import BEGIN, W1, W2, Story, chain

Bars = list[list[Any]]


def slots(overview: Overview, session: int | None = 1, **window: Any) -> dict[str, list[Bars]]:
    """Per worker its slots; times relative to BEGIN."""
    answer = overview.stream(session, **window)
    return {
        row["worker"]: [[[bar[0] - BEGIN, bar[1] - BEGIN, *bar[2:]] for bar in slot] for slot in row["slots"]]
        for row in answer["rows"]
    }


def test_one_run_after_the_other_is_one_slot(story: Story):
    story.session().submit(chain("a", "b", "a")).finished(12, 14, start=BEGIN).finished(16, start=BEGIN + 3)
    overview = story.overview()
    assert slots(overview) == {W1: [[[0, 1, 0, 12, 0, 1], [1, 2, 1, 14, 0, 1], [3, 4, 0, 16, 0, 1]]]}
    answer = overview.stream(1)
    assert (answer["from"], answer["to"], answer["names"], answer["total"]) == (BEGIN, BEGIN + 4, ["a", "b"], 3)


def test_overlapping_runs_and_workers(story: Story):
    story.session().submit(chain(*"abcd"))
    story.finished(12, start=BEGIN, seconds=4).finished(14, 16, start=BEGIN + 1).finished(18, start=BEGIN, worker=W2)
    found = slots(story.overview())
    assert [[bar[3] for bar in slot] for slot in found[W1]] == [[12], [14, 16]]
    assert [[bar[3] for bar in slot] for slot in found[W2]] == [[18]]


def test_failed_and_running_ones(story: Story):
    story.session(on_failure="continue").submit(chain(*"abc")).failed(12, start_time=BEGIN + 1, duration=2.0)
    story.wait(3).started(14).wait(4).started(16).wait(1).worker()
    found = slots(story.overview())
    assert found == {W1: [[[1, 3, 0, 12, 1, 1], [3, 8, 1, 14, 2, 1]], [[7, 8, 2, 16, 2, 1]]]}


def test_a_run_that_was_lost_stays(story: Story):
    story.session().submit(chain("a")).started(12).wait(2).retried(12).wait(1).finished(12, worker=W2)
    assert slots(story.overview()) == {W1: [[[0, 2, 0, 12, 1, 1]]], W2: [[[2, 3, 0, 12, 0, 1]]]}


def test_narrow_neighbours_are_one_bar(story: Story):
    builder = SubmitBuilder().array(10, 1000, name="many").task(2010, [], [2011], name="long")
    story.session().submit(builder).members(1010, 10, [0.001] * 1000, start=BEGIN)
    story.finished(2010, start=BEGIN + 50, seconds=50)
    overview = story.overview()
    (bars,) = slots(overview, width=1000)[W1]
    assert len(bars) <= 25
    assert sum(bar[5] for bar in bars) == 1001
    assert bars[-1] == [50, 100, 1, 2010, 0, 1]
    (closer,) = slots(overview, begin=BEGIN, end=BEGIN + 0.1, width=1000)[W1]
    assert 99 <= len(closer) <= 101
    assert all(bar[5] == 1 for bar in closer)


def test_a_failed_one_shows_among_many(story: Story):
    story.session(on_failure="continue").submit(SubmitBuilder().array(10, 1000, name="many"))
    story.members(1010, 10, [0.001] * 500, start=BEGIN)
    story.failed(1510, start_time=BEGIN + 0.5, duration=0.001)
    story.members(1511, 511, [0.001] * 489, start=BEGIN + 0.501)
    (bars,) = slots(story.overview(), width=4)[W1]
    assert sorted(bar[4] for bar in bars)[-1] == 1
    assert sum(bar[4] == 1 for bar in bars) == 1
    assert sum(bar[5] for bar in bars) == 990


def test_all_sessions_share_slots(story: Story):
    for number in (1, 2, 3):
        story.session(number).submit(chain("a", "b"), session=number)
        story.wait(2).finished(12, 14, session=number)
    overview = story.overview()
    answer = overview.stream()
    assert [len(row["slots"]) for row in answer["rows"]] == [1]
    assert answer["total"] == 6
    named = sorted(bar[3] for bar in answer["rows"][0]["slots"][0])
    assert named == [[number, task] for number in (1, 2, 3) for task in (12, 14)]
    story.finished(14, session=1, start=BEGIN + 0.5)
    assert [len(row["slots"]) for row in story.overview().stream()["rows"]] == [2]


def test_of_many_slots_pixels_are_wider(monkeypatch: pytest.MonkeyPatch, story: Story):
    monkeypatch.setattr("rain.dashboard.stream.MOST_BARS", 100)
    story.session().submit(SubmitBuilder().array(10, 10_000, name="many"))
    for lane in range(10):
        place = 1000 * lane
        story.members(10_010 + place, 10 + place, [0.01] * 1000, start=BEGIN)
    answer = story.overview().stream(1)
    assert sum(len(slot) for row in answer["rows"] for slot in row["slots"]) <= 250
    assert answer["total"] == 10_000


def test_figures_that_cannot_be(story: Story):
    story.session().submit(chain(*"abcd").array(100, 3, name="m"))
    story.finished(12, start=float("nan")).finished(14, seconds=float("inf"), start=BEGIN).finished(16, seconds=-1.0)
    story.failed(18, start_time="yesterday", duration="long").members(103, 100, [float("nan"), -1.0, 2.0], start=1e300)
    overview = story.overview()
    assert overview.stream(1)["from"] >= BEGIN - 10
    assert overview.stream(1)["to"] <= BEGIN + 10
    assert overview.groups(1)["groups"][0]["sum"] >= 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20), st.booleans()), max_size=120),
    st.integers(0, 120),
    st.integers(0, 120),
    st.integers(1, 50),
)
def test_every_run_is_in_one_bar(given_runs: list[tuple[int, int, bool]], begin: int, end: int, width: int):
    """Whatever overlaps how: the bars of a slot are in order, and their counts add up."""
    session = SessionView(1, 0.0)
    add_templates(session, SubmitBuilder().task(0, name="a").templates)
    session.grow(len(given_runs))
    for task, (start, seconds, is_failed) in enumerate(given_runs):
        session.runs.end(session.runs.begin(task, 0, start), start, seconds, is_failed)
    answer = stream([session], [W1], 0.0, None, None, width, of_all=False)
    bars = [bar for row in answer["rows"] for slot in row["slots"] for bar in slot]
    assert answer["total"] == sum(bar[5] for bar in bars) == len(given_runs)
    assert (1 in {bar[4] for bar in bars}) == any(is_failed for _, _, is_failed in given_runs)
    for row in answer["rows"]:
        for slot in row["slots"]:
            assert all(left[1] <= right[0] + 1e-3 for left, right in pairwise(slot))
    window = stream([session], [W1], 0.0, begin, end, width, of_all=False)
    last = max(begin, end)
    certain = sum(start <= last and start + seconds >= begin for start, seconds, _ in given_runs)
    assert certain <= window["total"] <= len(given_runs)
    for row in window["rows"]:
        assert all(bar[0] <= last and bar[1] >= begin for slot in row["slots"] for bar in slot)


SECONDS = st.integers(1, 256).map(lambda number: number / 256)
"""What ends at other moments is further apart than the tolerance of slots."""


@given(st.lists(st.lists(SECONDS, min_size=1, max_size=30), min_size=1, max_size=5))
def test_executors_that_report_in_turn_have_a_slot_each(lanes: list[list[float]]):
    """No more slots than executors, if each reports its runs in order and not much later than the others."""
    runs, times = Runs(), [0.0] * len(lanes)
    waiting = [list(lane) for lane in lanes]
    while any(waiting):
        lane = min((k for k, left in enumerate(waiting) if left), key=lambda k: times[k] + waiting[k][0])
        seconds = waiting[lane].pop(0)
        runs.end(runs.begin(0, 0, times[lane]), times[lane], seconds)
        times[lane] += seconds
    assert len(runs.slots[0]) <= len(lanes)
    assert sum(len(slot.runs) for slot in runs.slots[0]) == sum(map(len, lanes))


def test_sequences_are_placed_as_one():
    runs = Runs()
    assert runs.add_sequence(5, 0, 10.0, array("d", [1.0, 2.0])) == 1
    assert runs.add_sequence(7, 0, 11.0, array("f", [1.0])) == 3
    assert runs.add_sequence(8, 0, 13.0, array("f", [1.0])) == 4
    assert [list(slot.runs) for slot in runs.slots[0]] == [[1, 2, 4], [3]]
    assert list(runs.starts)[1:] == [10.0, 11.0, 11.0, 13.0]
    assert runs.span() == (10.0, 14.0)
