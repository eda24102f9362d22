"""Entries of the cache."""

import msgpack
import pytest
from hypothesis import given, strategies as st

from rain.cache.entries import CachedOutput, EntryError, decode, encode

KEY = b"k" * 32
SECRET = b"secret" * 6
OUTPUTS = [CachedOutput(b"value", 5, None, False), CachedOutput(b"tar", 100, b"\x80", True)]


@pytest.mark.parametrize("secret", [b"", SECRET])
def test_what_was_encoded_comes_back(secret):
    assert decode(KEY, encode(KEY, OUTPUTS, secret), secret) == OUTPUTS


def test_no_outputs():
    assert decode(KEY, encode(KEY, [], SECRET), SECRET) == []


@pytest.mark.parametrize("position", range(len(encode(KEY, OUTPUTS, SECRET))))
def test_every_changed_byte_is_found(position):
    entry = bytearray(encode(KEY, OUTPUTS, SECRET))
    entry[position] ^= 1
    with pytest.raises(EntryError):
        decode(KEY, bytes(entry), SECRET)


@pytest.mark.parametrize("length", range(len(encode(KEY, OUTPUTS, b""))))
def test_every_cut_is_found(length):
    with pytest.raises(EntryError):
        decode(KEY, encode(KEY, OUTPUTS, b"")[:length], b"")


def test_an_entry_of_another_key_is_refused():
    with pytest.raises(EntryError, match="code is wrong"):
        decode(b"l" * 32, encode(KEY, OUTPUTS, SECRET), SECRET)


def test_an_entry_with_another_secret_is_refused():
    with pytest.raises(EntryError, match="another key"):
        decode(KEY, encode(KEY, OUTPUTS, b"other" * 8), SECRET)
    with pytest.raises(EntryError):
        decode(KEY, encode(KEY, OUTPUTS, b""), SECRET)


def test_other_versions_are_named():
    entry = bytearray(encode(KEY, OUTPUTS, SECRET))
    entry[8] = 9
    with pytest.raises(EntryError, match="version 9, this is version 1"):
        decode(KEY, bytes(entry), SECRET)
    with pytest.raises(EntryError, match="not a result of Rain"):
        decode(KEY, b"x" * 100, SECRET)


@pytest.mark.parametrize(
    "body",
    [
        1,
        [1],
        [[1, 2, 3]],
        [["s", 1, None, False]],
        [[b"d", "1", None, False]],
        [[b"d", 1, 5, False]],
        [[b"d", 1, None, 1]],
    ],
)
def test_malformed_content_with_a_right_code_is_refused(body, monkeypatch):
    monkeypatch.setattr("rain.cache.entries.msgpack.packb", lambda _: msgpack.Packer().pack(body))
    entry = encode(KEY, OUTPUTS, SECRET)
    with pytest.raises(EntryError, match="malformed"):
        decode(KEY, entry, SECRET)


@given(st.binary(max_size=300))
def test_garbage_is_refused(data):
    with pytest.raises(EntryError):
        decode(KEY, data, SECRET)
