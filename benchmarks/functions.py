"""What the tasks of the benchmarks do; importable wherever the repository's root is on the path."""

from __future__ import annotations

from typing import Any


def increment(number: int) -> int:
    """As little work as possible."""
    return number + 1


def add(first: int, second: int) -> int:
    """Two inputs, one output."""
    return first + second


def make_array(mebibytes: int) -> Any:
    """A large value: an array of bytes, every page written."""
    import numpy

    return numpy.full(mebibytes << 20, 7, dtype=numpy.uint8)


def touch_array(array: Any) -> int:
    """Read one byte of each page."""
    return int(array[::4096].sum(dtype="int64"))
