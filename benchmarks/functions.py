"""What the tasks of the benchmarks do; importable wherever the repository's root is on the path."""

from __future__ import annotations

import time
from typing import Any


def increment(number: int) -> int:
    """As little work as possible."""
    return number + 1


def add(first: int, second: int) -> int:
    """Two inputs, one output."""
    return first + second


def load_numpy(number: int) -> int:
    """Import numpy, and take so long that all executors do; the number again."""
    import numpy

    time.sleep(0.05)
    return int(numpy.int64(number))


def make_array(mebibytes: int) -> Any:
    """A large value: an array of bytes, every page written."""
    import numpy

    return numpy.full(mebibytes << 20, 7, dtype=numpy.uint8)


def touch_array(array: Any) -> int:
    """Read one byte of each page."""
    return int(array[::4096].sum(dtype="int64"))


def mix(left: int, middle: int, right: int) -> int:
    """Three inputs; the result stays small."""
    return (left + 2 * middle + 3 * right) % 1_000_003


def add_all(*numbers: int) -> int:
    """Any number of inputs."""
    return sum(numbers)


def nap(seconds: float) -> float:
    """Do nothing for a while."""
    time.sleep(seconds)
    return seconds


def make_bytes(number: int) -> bytes:
    """1 MiB of the same byte: the last one of the number."""
    return bytes((number % 256,)) * (1 << 20)


def first_bytes(*parts: bytes) -> tuple[int, int]:
    """How many bytes there are in all, and the sum of the first ones."""
    return sum(map(len, parts)), sum(part[0] for part in parts)


def ends_of(array: Any) -> tuple[int, int, int]:
    """Length, first and last element: a large value is needed, but hardly read."""
    return len(array), int(array[0]), int(array[-1])
