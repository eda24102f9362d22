"""The engine of the fuzzers: mutated inputs by the thousand, with limits on time and memory.

Hypothesis draws entries of a corpus and seeds; each seed makes `BATCH` mutated inputs, because drawing costs more than
most parsers do. A fuzzer's corpus is what its test makes, and for ever the files in `corpus/NAME/`: inputs that once
broke something.

`RAIN_FUZZ_INPUTS=N` makes N inputs per fuzzer instead of 20,000; with `-m slow` `RAIN_FUZZ_SLOW_INPUTS=N` further ones.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings, strategies as st

INPUTS = int(os.environ.get("RAIN_FUZZ_INPUTS", "20000"))
SLOW_INPUTS = int(os.environ.get("RAIN_FUZZ_SLOW_INPUTS", "500000"))
BATCH = 20
CORPUS = Path(__file__).parent / "corpus"

CPU_LIMIT = 10.0
"""Seconds of processor time after which an input counts as a hang; the slowest takes a hundredth of it."""

_TRACED_SHARE = 20
_SHRINKING_ATTEMPTS = 2000

Target = Callable[[bytes], object]

_NUMBERS = [0, 1, 2, 7, 8, 127, 128, 255, 256, 511, 512, 1023, 1024, 4095, 4096, 65535, 65536, 1 << 20, (1 << 31) - 1]
_NUMBERS += [1 << 31, (1 << 32) - 1, 1 << 32, (1 << 61) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
_BYTES = [0x00, 0x01, 0x7F, 0x80, 0xC1, 0xC7, 0xD9, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF, 0x0A, 0x20, 0x22, 0x2E, 0x2F, 0x5B]


def kept(name: str) -> list[bytes]:
    """The inputs that once broke something."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def fuzz(
    name: str,
    target: Target,
    corpus: Sequence[bytes],
    inputs: int,
    *,
    growth: tuple[int, int] = (1 << 18, 200),
) -> None:
    """Feed mutated inputs to a parser.

    Args:
        name: of the fuzzer and of its folder of kept inputs.
        target: gets each input; it lets every exception through that the parser may not raise.
        corpus: inputs to begin with.
        inputs: how many.
        growth: most memory an input may take: bytes, and bytes per byte of it.
    """
    entries = [b"", *corpus, *kept(name)]
    for entry in entries:
        _try(target, entry, growth, traced=True)

    @settings(
        max_examples=max(1, inputs // BATCH),
        phases=[Phase.generate],
        derandomize=inputs <= INPUTS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(entries) - 1), st.integers(0, (1 << 64) - 1))
    def run(position: int, seed: int) -> None:
        source = random.Random(seed)
        with cpu_limit():
            for number in range(BATCH):
                _try(target, mutated(source, entries[position], entries), growth, traced=seed % _TRACED_SHARE == number)

    run()


def _try(target: Target, data: bytes, growth: tuple[int, int], *, traced: bool) -> None:
    try:
        if traced:
            check_growth(target, data, growth)
        else:
            target(data)
    except Exception as error:
        smallest = data if traced else shrunk(target, data, type(error))
        error.add_note(f"input ({len(smallest)} bytes, to be kept in {CORPUS.name}): {smallest[:2000].hex()}")
        raise


def check_growth(target: Target, data: bytes, growth: tuple[int, int]) -> None:
    """Run it and check the most memory it held at a time; once before, for what is imported when first needed."""
    target(data)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        target(data)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    constant, factor = growth
    assert peak <= constant + factor * len(data), f"{peak} bytes of memory for an input of {len(data)}"


def shrunk(target: Target, data: bytes, kind: type[Exception]) -> bytes:
    """A shorter input with the same exception."""
    attempts, step = 0, max(1, len(data) // 2)
    while step and attempts < _SHRINKING_ATTEMPTS:
        position = 0
        while position < len(data) and attempts < _SHRINKING_ATTEMPTS:
            attempts += 1
            candidate = data[:position] + data[position + step :]
            try:
                target(candidate)
            except Exception as error:
                if type(error) is kind:
                    data = candidate
                    continue
            position += step
        step //= 2
    return data


class HangError(AssertionError):
    """An input takes processor time without end."""


@contextmanager
def cpu_limit(seconds: float = CPU_LIMIT) -> Iterator[None]:
    """End the block with a HangError when it has used this much processor time."""

    def expire(_number: int, _frame: object) -> None:
        raise HangError(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def check_text(error: Exception, part: str = "", *, longest: int = 4000) -> None:
    """A refusal names what it is about, and its text is bounded."""
    text = str(error)
    assert part in text
    assert len(text) <= longest


# --- mutations --------------------------------------------------------------------------------------


def mutated(source: random.Random, entry: bytes, entries: Sequence[bytes]) -> bytes:
    """One of the many ways to spoil an entry."""
    if source.random() < 0.05:
        return source.randbytes(source.randrange(200))
    data = bytearray(entry)
    for _ in range(source.choice((1, 1, 1, 2, 3, 6))):
        source.choice(_MUTATIONS)(source, data, entries)
    return bytes(data)


def _place(source: random.Random, data: bytearray) -> int:
    """A place, more often near the beginning, where the headers are."""
    limit = min(len(data), source.choice((8, 64, 1 << 30)))
    return source.randrange(limit) if limit else 0


def _flip(source: random.Random, data: bytearray, _entries: Sequence[bytes]) -> None:
    if data:
        data[_place(source, data)] ^= 1 << source.randrange(8)


def _set_byte(source: random.Random, data: bytearray, _entries: Sequence[bytes]) -> None:
    if data:
        data[_place(source, data)] = source.choice(_BYTES)


def _set_number(source: random.Random, data: bytearray, _entries: Sequence[bytes]) -> None:
    size, form = source.choice(((2, "H"), (4, "I"), (8, "Q")))
    packed = struct.pack(source.choice("<>") + form, source.choice(_NUMBERS) & ((1 << 8 * size) - 1))
    position = _place(source, data)
    data[position : position + size] = packed


def _cut(source: random.Random, data: bytearray, _entries: Sequence[bytes]) -> None:
    del data[_place(source, data) :]


def _delete(source: random.Random, data: bytearray, _entries: Sequence[bytes]) -> None:
    position = _place(source, data)
    del data[position : position + source.choice((1, 4, 8, 64))]


def _insert(source: random.Random, data: bytearray, _entries: Sequence[bytes]) -> None:
    position = _place(source, data)
    data[position:position] = source.randbytes(source.choice((1, 4, 8, 64)))


def _repeat(source: random.Random, data: bytearray, _entries: Sequence[bytes]) -> None:
    position = _place(source, data)
    piece = data[position : position + source.choice((1, 5, 8, 32))]
    data[position:position] = piece * source.choice((1, 2, 50))


def _splice(source: random.Random, data: bytearray, entries: Sequence[bytes]) -> None:
    other = bytearray(source.choice(entries))
    data[_place(source, data) :] = other[_place(source, other) :]


_MUTATIONS = (_flip, _flip, _set_byte, _set_byte, _set_number, _set_number, _cut, _delete, _insert, _repeat, _splice)
