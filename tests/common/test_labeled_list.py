import copy

import pytest

from rain.common.labeled_list import LabeledList


@pytest.fixture
def abc():
    return LabeledList(pairs=[("a", 1), (None, 2), ("c", 3)])


def test_ways_to_make_one(abc):
    assert LabeledList([1, 2, 3], labels=["a", None, "c"]) == abc
    assert LabeledList(abc) == abc
    assert copy.copy(abc) == abc
    assert abc.copy() == abc
    assert LabeledList().data == []
    with pytest.raises(ValueError, match="2 labels for 1 items"):
        LabeledList([1], labels=["a", "b"])


def test_access(abc):
    assert (abc[0], abc["c"], abc[-1], abc[0:2]) == (1, 3, 3, [1, 2])
    assert abc[:1] + abc[1:] == [1, 2, 3]
    assert list(abc) == [1, 2, 3]
    assert list(abc.items()) == [("a", 1), (None, 2), ("c", 3)]
    assert "a" in abc
    assert 1 not in abc
    assert None not in abc
    with pytest.raises(KeyError):
        abc["b"]
    with pytest.raises(IndexError):
        abc[3]


def test_changes(abc):
    abc.append(4, "d")
    abc.insert(0, 0, label="zero")
    abc.set(1, 10, label="a")
    assert list(abc.items()) == [("zero", 0), ("a", 10), (None, 2), ("c", 3), ("d", 4)]
    abc[1] = 11
    assert abc.get_label(1) is None
    abc.set_label(1, "one")
    abc.set_label("c", None)
    assert abc.labels == ["zero", "one", None, None, "d"]
    assert abc.pop() == 4
    assert abc.pop("zero") == 0
    del abc[0]
    abc.remove(3)
    assert (abc.data, abc.labels) == ([2], [None])
    abc[0:1] = [7, 8]
    assert (abc.data, abc.labels) == ([7, 8], [None, None])
    abc.extend([9])
    assert abc.index(9) == 2
    abc._check()


def test_a_duplicate_label_changes_nothing(abc):
    before = list(abc.items())
    for change in (
        lambda: abc.append(9, "a"),
        lambda: abc.insert(0, 9, "a"),
        lambda: abc.set(2, 9, "a"),
        lambda: abc.set_label(2, "a"),
    ):
        with pytest.raises(KeyError, match="Duplicate label 'a'"):
            change()
    with pytest.raises(KeyError):
        LabeledList(pairs=[("x", 1), ("x", 2)])
    assert list(abc.items()) == before
    abc.set(0, 5, "a")
    assert abc["a"] == 5


@pytest.mark.parametrize("label", [1, slice(1), b"a"])
def test_a_label_is_a_str(abc, label):
    with pytest.raises(TypeError):
        abc.append(9, label)
    with pytest.raises(TypeError):
        LabeledList([1], labels=[label])


def test_an_empty_label_is_a_label():
    items = LabeledList(pairs=[("", 1)])
    assert items[""] == 1
    assert "" in items


def test_equality(abc):
    class Other(LabeledList):
        pass

    assert abc != [1, 2, 3]
    assert abc != Other(pairs=abc.items())
    assert abc != LabeledList([1, 2, 3])
    with pytest.raises(TypeError):
        hash(abc)
