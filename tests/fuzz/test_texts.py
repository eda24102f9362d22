"""Fuzzers of what people and files say: units, addresses, content types, values, secrets, configuration."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rain.common.content_type import (
    check_content_type,
    decode_value,
    encode_value,
    has_codec,
    is_type_instance,
    merge_content_types,
)
from rain.common.errors import AuthenticationError, RainException
from rain.common.packing import pack_args, unpack_args
from rain.common.resources import Resources
from rain.common.units import parse_duration, parse_size
from rain.net.access import AccessFile, newest_access_file, read_access_file, remove_access_file, write_access_file
from rain.net.address import Address
from rain.net.secret import find_secret
from rain.process.workdir import SetupError
from rain.worker.config import read_executor_commands
from tests.fuzz.fuzzing import check_growth, check_text, cpu_limit, fuzz

LONG = 50_000
FILE_GROWTH = (4 << 20, 200)
"""A file is read into a mebibyte."""


def text_of(data: bytes) -> str:
    """Any text, with characters beyond ASCII."""
    return data.decode("utf-8", "surrogateescape")


def refuses(
    kind: type[Exception] | tuple[type[Exception], ...], parse: Callable[[str], Any]
) -> Callable[[bytes], None]:
    """A target that may raise nothing else."""

    def target(data: bytes) -> None:
        try:
            parse(text_of(data))
        except kind as error:
            check_text(error, longest=4 * len(data) + 1000)

    return target


# --- units ------------------------------------------------------------------------------------------


def duration(text: str) -> None:
    seconds = parse_duration(text)
    assert math.isfinite(seconds)
    assert seconds >= 0


def size(text: str) -> None:
    assert parse_size(text) >= 0


def resources(text: str) -> None:
    amounts = Resources.of_request({"memory": text, "name": 1})
    assert amounts.memory >= 0


UNITS = [b"5 s", b"2 min", b"1h30m", b"7d", b"250 ms", b".5h", b"1.", b"500 MB", b"2 GiB", b"4096", b"9" * 400, b"1e5"]
ADDRESSES = [
    b"7210",
    b"127.0.0.1",
    b"127.0.0.1:80",
    b"[::1]:80",
    b"::1",
    b"host",
    b"host:1",
    b"rain://host:1/",
    b"[",
    b"%",
]


@pytest.mark.parametrize("parse", [duration, size, resources])
def test_units(inputs: int, parse: Callable[[str], None]) -> None:
    fuzz("units", refuses(ValueError, parse), UNITS, inputs // 2)


def address(text: str) -> None:
    parsed = Address.parse(text)
    assert 0 <= parsed.port <= 65535
    assert parsed.host
    assert Address.parse(str(parsed)) == parsed
    assert parsed.is_loopback in (True, False)


def test_addresses(inputs: int) -> None:
    fuzz("addresses", refuses(ValueError, address), ADDRESSES, inputs)


@pytest.mark.parametrize("parse", [duration, size, resources, address])
@pytest.mark.parametrize("piece", ["1", "1h", " ", "1 ", ".", "a", ":", "[", "1:", "\u0663", "9"])
def test_long_texts(parse: Callable[[str], None], piece: str) -> None:
    """No text takes time or memory out of proportion."""
    for text in (piece * LONG, "1" + piece * LONG + "!", "1" + piece * LONG + "s"):
        with cpu_limit():
            check_growth(refuses(ValueError, parse), text.encode(), (1 << 20, 100))


# --- content types ----------------------------------------------------------------------------------

TYPES = ["", "pickle", "cloudpickle", "pickle5", "json", "cbor", "arrow", "text", "text-utf-8", "text:latin-1", "dir"]
TYPES += ["user/x", "user:x", "mime/text/html", "protobuf/X", "protobuf:X", "text-no-such-encoding", "text-hex"]


def content_type(text: str) -> None:
    first, _, second = text.partition("|")
    is_type_instance(first, second)
    has_codec(first)
    merged = merge_content_types(first, second)
    if merged:
        assert check_content_type(merged)
        assert is_type_instance(merged, first) or {first, second} == {"pickle", "cloudpickle"}


def test_content_types(inputs: int) -> None:
    corpus = [f"{one}|{other}".encode() for one in TYPES for other in ("", "text", "user", one)]
    fuzz("content-types", refuses((ValueError, RainException), content_type), corpus, inputs)


@pytest.mark.parametrize("name", [name for name in TYPES if "pickle" not in name])
def test_decoding_values(inputs: int, name: str) -> None:
    """Values of types that do not unpickle: decoded, or refused with the type's name."""
    corpus = [b'{"a": [1, 2.5, null, "x"]}', b"[" * 2000, b"9" * 5000, b"\xff\xfe\x00", b"\xa1\x61k\x82\x01\x02"]
    if has_codec(name) and "no-such" not in name and "hex" not in name:
        corpus.append(encode_value("text", name))

    def decode(data: bytes) -> None:
        try:
            decode_value(data, name)
        except (RainException, ValueError) as error:
            check_text(error, name, longest=10 * len(data) + 1000)

    fuzz("values", decode, corpus, inputs // 20, growth=(1 << 20, 600))


# --- packed arguments -------------------------------------------------------------------------------

ARGUMENTS = [pack_args([1, "x", b"y", None, 2.5], {"key": True}), pack_args([], {}), pack_args([[1, 2], {3}], {})]


def test_packed_arguments(inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pickles, which come from who may run any code anyway."""
    monkeypatch.setattr(pickle, "loads", lambda data: data)

    def unpack(data: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, msgpack.UnpackException):
            unpack_args(data)

    fuzz("arguments", unpack, ARGUMENTS, inputs, growth=(1 << 20, 400))


# --- files ------------------------------------------------------------------------------------------

ACCESS = AccessFile("id", "host", ["127.0.0.1"], 7210, None, "t" * 64, None, 1)
AT = Address("127.0.0.1", 7210)


@pytest.fixture
def file(room: Path) -> Path:
    path = room / "file.json"
    path.touch(0o600)
    return path


def test_access_files(inputs: int, file: Path) -> None:
    write_access_file(ACCESS, {}, file)
    good = file.read_bytes()
    environ = {"RAIN_ACCESS_DIR": str(file.parent)}

    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            access = read_access_file(file)
        except AuthenticationError as error:
            check_text(error, str(file))
        else:
            assert 0 < access.port < 65536
            assert str(access.address)
            access.serves(AT)
        newest_access_file(environ, AT)
        secret = find_secret(AT, token=None, token_file=None, access_file=None, environ=environ)
        assert secret.token is None or isinstance(secret.token, str)
        if remove_access_file(file, "other id"):
            file.touch(0o600)

    corpus = [good, b"[]", b"{}", b"[" * 100_000, good.replace(b"7210", b"9" * 5000), good.replace(b"7210", b"1e400")]
    corpus += [good.replace(b'"host"', b'"\\ud800"'), good.replace(b"[\n", b"[\n null,"), b'{"a":' * 30_000]
    fuzz("access-files", read, corpus, inputs // 4, growth=FILE_GROWTH)


def test_token_files(inputs: int, file: Path) -> None:
    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            secret = find_secret(AT, token=None, token_file=file, access_file=None, environ={})
        except AuthenticationError as error:
            check_text(error, str(file))
        else:
            assert secret.token
            assert secret.token.strip() == secret.token

    fuzz("token-files", read, [b"secret\n", b"", b"\n", b"\xff", b"a\nb", b"\0"], inputs // 4, growth=FILE_GROWTH)


WORKER_CONFIG = b'[executors.x]\ncommand = "program --flag"\n[executors.y]\ncommand = ["program", "a b"]\n'


def test_worker_configuration(inputs: int, file: Path) -> None:
    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            commands = read_executor_commands(file)
        except SetupError as error:
            check_text(error, str(file))
            return
        for command in commands.values():
            assert command
            assert all(isinstance(part, str) and "\0" not in part for part in command)
            os.fsencode(command[0])

    corpus = [WORKER_CONFIG, b"[executors.x]\ncommand = " + b"[" * 5000, b"a = " + b"{a=" * 5000]
    corpus += [
        b'[executors.x]\ncommand = "\\u0000"',
        b'[executors."\\u0000"]\ncommand = "x"',
        b"x = 1e9999",
        b"x = 1979-99-99",
    ]
    fuzz("worker-configuration", read, corpus, inputs // 4, growth=FILE_GROWTH)
