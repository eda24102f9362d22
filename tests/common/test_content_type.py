import pickle
import sys

import pytest

from rain.common import RainException
from rain.common.content_type import (
    check_content_type,
    decode_value,
    encode_value,
    has_codec,
    is_type_instance,
    merge_content_types,
)
from rain.common.pickle5 import MAGIC, decode_pickle5, decode_pickle5_all, encode_pickle5, encode_pickle5_parts

KNOWN = [
    None, "", "pickle", "cloudpickle", "pickle5", "json", "cbor", "arrow", "text", "protobuf", "dir",
    "text-latin-1", "text:utf-16", "user/x", "user:x", "mime/image/png", "mime:text", "protobuf/a", "protobuf:b",
]  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_names(name):
    assert check_content_type(name)


@pytest.mark.parametrize("name", ["xml", "text-", "user", "user/", "mime", "text/plain", "Pickle", "pickle-5"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="Unknown content type"):
        check_content_type(name)


@pytest.mark.parametrize(
    ("a", "b", "merged"),
    [
        (None, None, None),
        (None, "text", "text"),
        ("", "text", "text"),
        ("text", "text-latin-1", "text-latin-1"),
        ("text:utf-8", "text", "text:utf-8"),
        ("text:utf-8", "text-utf-8", "text:utf-8"),
        ("user/a", "user/a/b", "user/a/b"),
        ("pickle", "cloudpickle", "cloudpickle"),
    ],
)
def test_merge(a, b, merged):
    assert merge_content_types(a, b) == merged
    if _same_spelling(a, b):
        assert merge_content_types(b, a) == merged


def _same_spelling(a, b):
    return not (a and b and (":" in a) != (":" in b) and a.replace(":", "-") == b.replace(":", "-"))


@pytest.mark.parametrize(
    ("a", "b"), [("text", "json"), ("user/ab", "user/a"), ("pickle", "pickle5"), ("text-a", "text-b")]
)
def test_types_that_contradict(a, b):
    with pytest.raises(RainException, match="Incompatible"):
        merge_content_types(a, b)


@pytest.mark.parametrize(
    ("name", "ctype", "expected"),
    [
        ("text", None, True),
        (None, None, True),
        (None, "text", False),
        ("text-utf-8", "text", True),
        ("text:utf-8", "text-utf-8", True),
        ("text", "text-utf-8", False),
        ("pickle", "cloudpickle", True),
        ("cloudpickle", "pickle", False),
        ("user/ab", "user/a", False),
    ],
)
def test_instances(name, ctype, expected):
    assert is_type_instance(name, ctype) is expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": (1, 2)}, "pickle"),
        ({"a": (1, 2)}, "cloudpickle"),
        ({"a": (1, 2)}, "pickle5"),
        ({"a": [1, None, "\u0159"]}, "json"),
        ("\u0159", "text"),
        ("\u0159", "text-utf-16"),
        ("\xe9", "text:latin-1"),
        ("", "text"),
    ],
)
def test_round_trip(value, name):
    data = encode_value(value, name)
    assert type(data) is bytes
    assert decode_value(data, name) == value
    assert decode_value(memoryview(data), name) == value
    assert has_codec(name)


def test_codecs_say_what_is_wrong():
    with pytest.raises(RainException, match="Only str"):
        encode_value(b"x", "text")
    with pytest.raises(RainException, match="Cannot encode a value of type 'set' as 'json'"):
        encode_value({1}, "json")
    with pytest.raises(RainException, match="text-nothing"):
        encode_value("x", "text-nothing")
    for name in (None, "", "protobuf", "dir", "user/x", "mime:x"):
        assert not has_codec(name)
        with pytest.raises(RainException, match="no codec"):
            encode_value("x", name)
        with pytest.raises(RainException, match="no codec"):
            decode_value(b"x", name)
    with pytest.raises(RainException, match="content type 'pickle'"):
        decode_value(b"", "pickle")
    with pytest.raises(RainException, match="content type 'text'"):
        decode_value(b"\xff", "text")


@pytest.mark.parametrize(("name", "module"), [("cbor", "cbor2"), ("arrow", "pyarrow")])
def test_a_missing_library_names_its_extra(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RainException, match=rf"rain\[{name}\]"):
        encode_value(1, name)


@pytest.mark.parametrize("value", [{"a": [1, "x", b"y"]}, None, 0, ""])
def test_cbor(value):
    assert decode_value(encode_value(value, "cbor"), "cbor") == value


def test_arrow():
    import pyarrow as pa

    assert decode_value(encode_value(["D"], "arrow"), "arrow") == ["D"]
    table = pa.table({"x": [1, 2]})
    assert decode_value(encode_value(table, "arrow"), "arrow") == table
    with pytest.raises(RainException, match="Arrow cannot represent"):
        encode_value(object(), "arrow")


def test_functions_and_classes_of_main_are_pickled_by_value():
    namespace = {"__name__": "__main__"}
    exec("def double(x): return 2 * x", namespace)
    for name in ("pickle", "pickle5"):
        assert decode_value(encode_value(namespace["double"], name), name)(4) == 8


class TestPickle5:
    def test_layout(self):
        blob = pickle.dumps(7, 5)
        assert encode_pickle5(7) == MAGIC + bytes(8) + len(blob).to_bytes(8, "little") + blob
        large = "x" * 500
        assert decode_pickle5(encode_pickle5(large)) == large

    @pytest.mark.parametrize("kind", [bytes, bytearray])
    @pytest.mark.parametrize("size", [(64 << 10) - 1, 64 << 10, 1_000_000])
    def test_bytes_lie_beside_the_pickle(self, kind, size):
        value = kind(b"__main__" * (size // 8) + b"x" * (size % 8))
        data = encode_pickle5(value)
        loaded = decode_pickle5(data)
        assert (type(loaded), loaded) == (kind, value)
        parts = encode_pickle5_parts(value)
        assert b"".join(parts) == data
        if size >= 64 << 10:
            assert parts[-1].obj is value  # not a copy
            assert all(len(part) < 200 for part in parts[:-1])

    def test_buffers_are_aligned_shared_and_read_only(self):
        numpy = pytest.importorskip("numpy")
        first, second = numpy.arange(1000), numpy.arange(5.0)
        data = encode_pickle5({"first": first, "second": second})
        assert data == b"".join(encode_pickle5_parts({"first": first, "second": second}))
        assert int.from_bytes(data[8:12], "little") == 2
        for index in range(2):
            assert int.from_bytes(data[24 + 16 * index : 32 + 16 * index], "little") % 64 == 0
        loaded = decode_pickle5(bytearray(data))
        assert (loaded["first"] == first).all()
        assert not loaded["first"].flags.writeable
        assert loaded["second"].base is not None

    def test_many_values_at_once(self):
        for values in ([], [1, 10**30, "x", None, (1, [2])], [1, "x" * 300, 2], [pickle.PickleBuffer(bytes(100)), 5]):
            encoded = list(map(encode_pickle5, values))
            one_by_one = list(map(decode_pickle5, encoded))
            assert decode_pickle5_all(b"".join(encoded), list(map(len, encoded))) == one_by_one

    def test_damage_among_many_is_told(self):
        with pytest.raises(RainException, match="Damaged pickle5"):
            decode_pickle5_all(encode_pickle5(1) + b"x" * 29, [29, 29])

    def test_arrays_that_are_not_contiguous(self):
        numpy = pytest.importorskip("numpy")
        value = numpy.arange(100).reshape(10, 10)[::2, ::3]
        assert (decode_pickle5(encode_pickle5(value)) == value).all()

    @pytest.mark.parametrize("damage", [lambda d: d[:20], lambda d: b"X" + d[1:], lambda d: d[:-70], lambda d: d[:30]])
    def test_damage_is_told(self, damage):
        data = encode_pickle5([pickle.PickleBuffer(bytes(100))])
        assert decode_pickle5(data) == [bytes(100)]
        with pytest.raises(RainException, match="Damaged pickle5"):
            decode_pickle5(damage(data))
