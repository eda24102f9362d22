"""Spare files: the memory of values that are gone, for new ones.

Touching memory for the first time takes most of the time of writing a large value. So a worker keeps some files of
values that were deleted and that nobody has open or mapped, in a directory in shared memory; it and its executors take
what they need from there by renaming, which only one of them can do.

A spare file is named `BYTES.NUMBER`.
"""

from __future__ import annotations

import os

DIRECTORY = "spare"
"""Name of the directory, beside those in which executors write large results."""

SMALLEST = 512 << 10
"""Below this size (bytes) new memory costs no more than the search for a spare file."""

_SURPLUS = 4


def spare_files(directory: str) -> list[tuple[int, str]]:
    """Size and name of each spare file that may be taken; none without the directory."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    sizes = [(name.partition(".")[0], name) for name in names]
    return [(int(size), name) for size, name in sizes if size.isdecimal()]


def claim(directory: str, size: int, target: str) -> bool:
    """Take a spare file for a value of `size` bytes: the smallest that has as much, else the largest that has half.

    Args:
        directory: of the spare files.
        size: bytes.
        target: its new path, on the same file system.

    Returns:
        False if no file suits. Else the caller opens it (`open_claimed`) and writes every byte of the value.
    """
    if size < SMALLEST:
        return False
    found = spare_files(directory)
    enough = sorted(entry for entry in found if size <= entry[0] <= _SURPLUS * size)
    less = sorted((entry for entry in found if size // 2 <= entry[0] < size), reverse=True)
    for _, name in enough + less:
        try:
            os.rename(os.path.join(directory, name), target)
        except OSError:  # another process was faster
            continue
        return True
    return False


def open_claimed(path: str, size: int) -> int:
    """A descriptor of a claimed file, for reading and writing; it has `size` bytes now, not all of them allocated.

    Raises:
        OSError: it cannot be opened; somebody may have put another thing into the directory.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
