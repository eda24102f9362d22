"""Mapping files without keeping them open."""

from __future__ import annotations

import mmap
import os
from functools import cache
from typing import Any

_MAP_FIXED = 0x10


@cache
def _system_mmap() -> Any:
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    return call


def map_descriptor(descriptor: int, size: int) -> memoryview:
    """Map the first `size` bytes of an open file, read-only.

    A mapping of Python's own duplicates the descriptor, so a thousand values would be a thousand open files.

    Args:
        descriptor: may be closed afterwards.
        size: at least 1, at most that of the file.

    Raises:
        OSError: it cannot be mapped.
    """
    import ctypes

    # It gives the addresses, and gives them back at its end.
    holder = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(holder))
    mapped = _system_mmap()(start, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, descriptor, 0)
    if mapped != start:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return memoryview(holder).toreadonly()
