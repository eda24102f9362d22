"""What a process uses."""

from __future__ import annotations

import mmap
import os
import threading
import time

import pytest

from rain.testing.usage import usage


def test_own_process() -> None:
    before = usage(os.getpid())
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    read, write = os.pipe()
    ballast = mmap.mmap(-1, 30_000_000)  # new pages, unlike what an allocator may have kept
    ballast.write(bytes(len(ballast)))
    end = time.process_time() + 0.1
    while time.process_time() < end:
        sum(range(1000))
    after = usage(os.getpid())
    event.set()
    thread.join()
    size = len(ballast)
    ballast.close()
    os.close(read)
    os.close(write)
    assert after.threads == before.threads + 1
    assert after.descriptors == before.descriptors + 2
    assert after.rss - before.rss > size // 2
    assert after.cpu - before.cpu > 0.05


def test_a_process_that_is_gone() -> None:
    with pytest.raises(OSError, match="No such"):
        usage((1 << 22) + 1)
