"""Keys bound to connections by loose writes."""

from __future__ import annotations

from rain.memcache.ordering import Bindings


def test_nothing_is_bound_at_first():
    bindings = Bindings[str]()
    assert not bindings.active
    assert bindings.find((b"k",)) is None
    assert bindings.connections() == []
    assert bindings.bound_to("A") == 0
    assert bindings.split([b"k", b"l"]) == [[b"k", b"l"]]


def test_a_key_is_bound_until_its_mark_is_reached():
    bindings = Bindings[str]()
    bindings.bind((b"k",), "A", 3)
    assert bindings.active
    assert bindings.find((b"k",)) == "A"
    assert bindings.find((b"other",)) is None
    assert bindings.find((b"other", b"k")) == "A"
    bindings.settle("A", 2)
    assert bindings.find((b"k",)) == "A"
    bindings.settle("A", 3)
    assert bindings.find((b"k",)) is None
    assert not bindings.active


def test_replies_of_another_connection_settle_nothing():
    bindings = Bindings[str]()
    bindings.bind((b"k",), "A", 1)
    bindings.settle("B", 9)
    assert bindings.find((b"k",)) == "A"


def test_a_later_write_keeps_the_key_bound():
    bindings = Bindings[str]()
    bindings.bind((b"k",), "A", 1)
    bindings.bind((b"k",), "A", 2)
    assert bindings.bound_to("A") == 2
    bindings.settle("A", 1)
    assert bindings.find((b"k",)) == "A"
    assert bindings.bound_to("A") == 1


def test_whole_node():
    bindings = Bindings[str]()
    bindings.bind((), "A", 1)
    bindings.bind((), "A", 2)
    bindings.settle("A", 1)
    assert bindings.find((b"anything",)) == "A"
    bindings.settle("A", 2)
    assert bindings.find((b"anything",)) is None


def test_a_connection_that_is_gone_binds_nothing():
    bindings = Bindings[str]()
    bindings.bind((b"k",), "A", 1)
    bindings.bind((b"l",), "B", 1)
    bindings.release("A")
    assert bindings.find((b"k",)) is None
    assert bindings.find((b"l",)) == "B"
    assert bindings.connections() == ["B"]
    bindings.release("B")
    bindings.release("B")
    assert not bindings.active


def test_split_groups_keys_by_connection():
    bindings = Bindings[str]()
    bindings.bind((b"a1", b"a2"), "A", 1)
    bindings.bind((b"b1",), "B", 1)
    assert bindings.split([b"x", b"a1", b"b1", b"y", b"a2"]) == [[b"x", b"y"], [b"a1", b"a2"], [b"b1"]]
