"""Records of replies."""

from __future__ import annotations

from rain.memcache.replies import ErrorLine, Items, Violation


def test_items_are_columns_and_rows():
    items = Items()
    assert len(items) == 0
    assert list(items) == []
    items.add(b"a", b"1", 5, None)
    items.extend(Items([b"b"], [b"2"], [6], [7]))
    assert len(items) == 2
    assert list(items) == [(b"a", b"1", 5, None), (b"b", b"2", 6, 7)]
    assert (items.keys, items.values, items.flags, items.cas) == ([b"a", b"b"], [b"1", b"2"], [5, 6], [None, 7])


def test_the_text_of_a_fault_shows_its_beginning():
    assert repr(ErrorLine(b"ERROR" + b"x" * 1000)) == f"<ErrorLine {b'ERROR' + b'x' * 195!r}>"
    assert repr(Violation(b"\xff", "a strange line")) == "<Violation b'\\xff'>"
