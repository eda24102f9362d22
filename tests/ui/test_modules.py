"""The pure modules of the page, called in the browser."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.ui.browser import Browser
from tests.ui.fake_server import World, fake_server


@pytest.fixture(scope="module")
def port(leak_check: None) -> Iterator[int]:
    with fake_server(World()) as port:
        yield port


@pytest.fixture
def page(browser: Browser, port: int) -> Browser:
    browser.open(f"http://127.0.0.1:{port}/", "table")
    return browser


def test_durations(page: Browser) -> None:
    given = [None, 0, 2e-7, 0.00213, 0.25, 0.9999, 1.234, 59.96, 75, 3600, 90061]
    expected = [
        "\u2013",
        "0 s",
        "1 µs",
        "2.1 ms",
        "250 ms",
        "1 s",
        "1.23 s",
        "1 min 0 s",
        "1 min 15 s",
        "1 h 0 min",
        "1 d 1 h",
    ]
    assert page.module("format", "return a.map(m.duration)", given) == expected


def test_sizes_and_counts(page: Browser) -> None:
    assert page.module("format", "return a.map(m.size)", [0, 999, 1000, 1536, 999_999, 73_400_000]) == [
        "0 B", "999 B", "1 kB", "1.54 kB", "1 MB", "73.4 MB",
    ]  # fmt: skip
    assert page.module("format", "return a.map(m.count)", [7, 1000, 1234567]) == [
        "7",
        "1\u202f000",
        "1\u202f234\u202f567",
    ]


def test_percent_is_100_only_at_the_end(page: Browser) -> None:
    given = [[0, 0], [1, 1000], [999, 1000], [99_999, 100_000], [5, 5]]
    assert page.module("format", "return a.map(([x, y]) => m.percent(x, y))", given) == [
        "0 %",
        "< 1 %",
        "99.9 %",
        "99.9 %",
        "100 %",
    ]


def test_gist_of_a_traceback_is_its_last_line(page: Browser) -> None:
    text = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no\n'
    assert page.module("format", "return m.gist(a)", text) == "ValueError: no"
    assert page.module("format", "return m.gist(a)", "first\nsecond") == "first"


def test_times_of_the_log(page: Browser) -> None:
    assert page.module("format", "return m.logTime(a)", "2026-01-31 08:09:10.500000000 UTC") == 1769846950.5


def test_scales_are_round_and_reach_the_top(page: Browser) -> None:
    for top in (0.03, 1, 7, 100, 12345):
        marks = page.module("chart", "return m.scale(a)", top)
        assert marks[0] == 0
        assert marks[-1] >= top
        assert len(marks) <= 6


def test_spacing_keeps_order_and_distance(page: Browser) -> None:
    wished = [5, 5, 5, 0, 30, 31, 2]
    placed = page.module("layout", "return m.spaced(a, b)", wished, 4)
    assert all(after - before >= 4 - 1e-9 for before, after in itertools.pairwise(placed))
    assert page.module("layout", "return m.spaced(a, b)", [0, 10, 20], 4) == [0, 10, 20]


LAYOUT = "const p = m.layout(a, b, {row: 10, column: 20, gap: 20}); return {x: [...p.x], y: [...p.y]};"


def test_layout_goes_from_left_to_right(page: Browser) -> None:
    nodes = [{"id": name} for name in "abcd"]
    edges = [["a", "c", 1], ["b", "c", 1], ["c", "d", 1]]
    place = page.module("layout", LAYOUT, nodes, edges)
    assert place["x"][0] == place["x"][1] < place["x"][2] < place["x"][3]
    assert place["y"][0] != place["y"][1]


def test_layout_survives_circles(page: Browser) -> None:
    nodes = [{"id": name} for name in "abc"]
    place = page.module("layout", LAYOUT, nodes, [["a", "b", 1], ["b", "a", 1], ["b", "c", 1], ["c", "c", 1]])
    assert len({*zip(place["x"], place["y"], strict=True)}) == 3


def test_layout_of_two_thousand_nodes_is_quick_and_has_no_two_in_one_place(page: Browser) -> None:
    nodes = [{"id": str(i), "kind": "task"} for i in range(2000)]
    edges = [[str(i), str(i // 2), 1] for i in range(1, 2000)]
    code = """
        const start = performance.now();
        const p = m.layoutTasks(a, b, {row: 46, column: 96, gap: 60});
        return {time: performance.now() - start, places: [...p.x].map((x, i) => `${x} ${p.y[i]}`)};"""
    answer = page.module("layout", code, nodes, edges)
    assert answer["time"] < 3000
    assert len(set(answer["places"])) == 2000


def test_names_that_differ_in_a_number_share_a_colour(page: Browser) -> None:
    assert page.module("streamdraw", "return a.map(m.kindOf)", ["part-001", "part-002", "train/3", "42"]) == [
        "part",
        "part",
        "train",
        "42",
    ]
