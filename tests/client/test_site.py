"""Where things were made, however often it is noted."""

from __future__ import annotations

from rain.client.site import MAX_FRAMES, Site, format_site, here


def noted() -> Site:
    return here()


def outer(depth: int) -> Site:
    return outer(depth - 1) if depth else middle()


def middle() -> Site:
    return noted()


def test_a_loop_has_one_site() -> None:
    sites = [middle() for _ in range(3)]
    assert sites[0] is sites[1] is sites[2]


def test_sites_differ_by_any_of_their_frames() -> None:
    first = middle()
    second = middle()
    deep = outer(1)
    deeper = outer(7)
    again = middle()
    assert len({first, second, deep, deeper, again}) == 5
    assert [text.count("in middle") for text in map(format_site, (first, deep, deeper))] == [1, 1, 1]
    assert len(deeper) == 2 * MAX_FRAMES
