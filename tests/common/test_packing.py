import pickle
from collections import OrderedDict

import msgpack
import pytest
from hypothesis import given, strategies as st

from rain.common.packing import PickledValue, dump_value, is_plain, pack_args, unpack_args


class Number(int):
    pass


@pytest.mark.parametrize(
    "value",
    [
        0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 1.5, float("inf"), "x", "", "\ud800", b"", b"x",
        True, False, None, (1, 2), [1, (2,)], {"a": 1}, {1: 2}, Number(5), OrderedDict(a=1), {1, 2}, 2j,
        bytearray(b"x"),
    ],
)  # fmt: skip
def test_round_trip_keeps_value_and_type(value):
    args, kwargs = unpack_args(pack_args([value], {"k": value}))
    assert args == [value]
    assert kwargs == {"k": value}
    assert type(args[0]) is type(kwargs["k"]) is type(value)


def test_plain_values_are_plain_msgpack():
    packed = pack_args([1, "a", b"b", None, True, 2.5], {"x": 3})
    assert msgpack.unpackb(packed) == [[1, "a", b"b", None, True, 2.5], {"x": 3}]


def test_other_values_are_extension_1():
    (value,), _ = msgpack.unpackb(pack_args([(1, 2)], {}))
    assert value.code == 1
    assert pickle.loads(value.data) == (1, 2)


def test_no_data_means_no_arguments():
    assert unpack_args(None) == unpack_args(b"") == ([], {})


def test_a_pickler_gets_every_other_value():
    seen = []

    def pickler(value):
        seen.append(value)
        return pickle.dumps(value)

    assert unpack_args(pack_args([1, (2,)], {"a": [3], "b": 2**70}, pickler)) == ([1, (2,)], {"a": [3], "b": 2**70})
    assert seen == [(2,), [3], 2**70]


def test_values_pickled_before_are_taken_as_they_are():
    packed = pack_args([PickledValue(pickle.dumps([1])), 2**80], {})
    assert unpack_args(packed) == ([[1], 2**80], {})


def test_things_of_main_and_local_functions_go_by_value():
    namespace = {"__name__": "__main__"}
    exec("class Thing:\n    number = 3\ndef get(): return Thing.number", namespace)
    assert pickle.loads(dump_value(namespace["get"]))() == 3
    assert pickle.loads(dump_value(lambda: 4))() == 4


def test_what_cannot_be_pickled_raises():
    with pytest.raises(TypeError):
        pack_args([(x for x in ())], {})


def test_unknown_extensions_are_refused():
    with pytest.raises(ValueError, match="extension type 7"):
        unpack_args(msgpack.packb([[msgpack.ExtType(7, b"")], {}]))


simple = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
values = st.recursive(simple, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner))


@given(st.lists(values, max_size=4), st.dictionaries(st.text(), values, max_size=3))
def test_any_arguments(args, kwargs):
    assert unpack_args(pack_args(args, kwargs)) == (args, kwargs)


def test_is_plain():
    assert all(map(is_plain, [1, "a", b"", None, True, 1.0]))
    assert not any(map(is_plain, [2**64, "\ud800", (), Number(1)]))
