"""Remote functions of the tests, sent by value."""

from __future__ import annotations

import os
import time
from typing import Any

from rain.client import remote


@remote()
def add(ctx: Any, x: int, y: int) -> str:
    return str(x + y)


@remote(auto_load=True, auto_encode="pickle")
def total(ctx: Any, parts: list[int]) -> Any:
    return sum(parts)


@remote(auto_encode="pickle")
def number(ctx: Any, value: int) -> Any:
    return value


@remote()
def work(ctx: Any, seconds: float) -> bytes:
    time.sleep(seconds)
    return b"done"


@remote()
def fail(ctx: Any, text: str) -> bytes:
    ctx.debug("about to fail with {}", text)
    raise ValueError(text)


@remote()
def crash(ctx: Any) -> bytes:
    os._exit(7)


@remote()
def pid(ctx: Any) -> str:
    return str(os.getpid())


@remote()
def big(ctx: Any, size: int, fill: int) -> bytes:
    return bytes([fill]) * size
