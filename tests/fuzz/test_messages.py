"""The fuzzer of messages: valid ones of every class, spoilt, decoded in a child process; and some made by hand."""

from __future__ import annotations

import struct
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from rain.protocol.codec import MESSAGE_CLASSES, decode, encode
from rain.protocol.framing import segment_table
from rain.protocol.limits import ProtocolError
from rain.protocol.messages import ObjectsFetched
from tests.fuzz.decode_child import decode_one, load_corpus
from tests.fuzz.fuzzing import check_growth, cpu_limit
from tests.protocol.strategies import messages

ROOT = Path(__file__).parents[2]
PER_CLASS = 4
SEEDS = (1, 2)


def examples(cls: type[Any], count: int) -> list[Any]:
    """Valid messages of a class, the same in each run."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(messages(cls))
    def collect(message: Any) -> None:
        found.append(message)

    collect()
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with frames of every class of messages."""
    path = tmp_path_factory.mktemp("messages") / "corpus"
    frames = [encode([message]) for cls in MESSAGE_CLASSES for message in examples(cls, PER_CLASS)]
    path.write_bytes(b"".join(struct.pack("<I", len(frame)) + frame for frame in frames))
    assert load_corpus(path) == frames
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_spoilt_messages(inputs: int, seed: int, corpus: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    command = [sys.executable, "-m", "tests.fuzz.decode_child", str(inputs // len(SEEDS)), str(seed)]
    child = subprocess.run([*command, str(corpus), str(current)], cwd=ROOT, capture_output=True, check=False)
    (size,) = struct.unpack_from("<I", current.read_bytes())
    last = current.read_bytes()[4 : 4 + size]
    assert child.returncode == 0, f"exit {child.returncode} at {last.hex()}\n{child.stderr.decode()[-5000:]}"
    assert child.stdout.decode() == f"done {inputs // len(SEEDS)}\n"


@settings(max_examples=300, database=None, deadline=None, derandomize=True)
@given(st.sampled_from(MESSAGE_CLASSES).flatmap(messages), st.data())
def test_every_prefix_is_refused_or_complete(message: Any, data: st.DataObject) -> None:
    frame = encode([message])
    decode_one(frame[: data.draw(st.integers(0, len(frame)))])


def with_raw_list(raw: bytes) -> bytes:
    """A frame with these bytes where a packed list should be."""
    value = bytes(len(raw))
    packed = msgpack.packb([value])
    frame = encode([ObjectsFetched(1, array("Q"), [value], [], [], [])])
    assert frame.count(packed) == 1
    return frame.replace(packed, raw.ljust(len(packed), b"\xc0"))


@pytest.mark.parametrize("size", [1000, 100_000, 4_000_000])
def test_lists_that_claim_too_much(size: int) -> None:
    """Memory is not taken for elements that are not there, however often they are claimed."""
    frame = with_raw_list((b"\xdd" + struct.pack(">I", size)) * 1000 + b"\xc0" * size)
    with cpu_limit():
        check_growth(_refused, frame, (4 << 20, 20))


def _refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


@pytest.mark.parametrize("depth", [10, 500, 511, 512, 1000, 1023, 1024, 100_000])
def test_deep_nesting(depth: int) -> None:
    with cpu_limit():
        _refused(with_raw_list(b"\x91" * depth + b"\xc0"))


def test_pointers_beyond_the_message() -> None:
    for words in ([0xFFFFFFFF_FFFFFFFF], [0x00000001_7FFFFFFC], [0x00000002_00000002], [3], [1 << 63]):
        body = struct.pack(f"<{len(words)}Q", *words)
        decode_one(segment_table([len(body)]) + body)
