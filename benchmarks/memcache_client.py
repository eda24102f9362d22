"""Measures one Memcached client in this process, all loads one after the other; prints the figures as JSON on stdout.

    python -m benchmarks.memcache_client CLIENT HOST PORT SECONDS

Every value that comes back is compared with the one expected; after the loads that write, everything is read back.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import json
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

KEYS = [b"key-%08d" % number for number in range(1000)]
SIZES = {"100 B": 100, "10 KB": 10_240}
MANY = 100
WARM_UP = 0.2
"""Seconds of each load, as a share of its time, that are not counted."""
GROUPS = [KEYS[start : start + MANY] for start in range(0, len(KEYS), MANY)]
POOL = 32
"""Connections of clients that need one for each operation at a time."""

Result = Any
"""What a call gives: synchronous clients give it directly, the others something to await."""


class WrongValue(Exception):
    """A client gave another value than the one that was stored."""


@dataclass(frozen=True)
class Load:
    """What is measured.

    Attributes:
        operation: `get`, `set`, `set_each` (many, awaited one by one), `get_many` or `set_many`.
        size: of a value; a key of SIZES.
        callers: how many there are at a time.
    """

    operation: str
    size: str
    callers: int

    @property
    def name(self) -> str:
        """As it stands in the results."""
        return f"{self.operation}, {self.size}, {self.callers} callers"


LOADS = [
    *(Load(name, size, callers) for size in SIZES for name in ("get", "set") for callers in (1, 32, 128)),
    Load("get_many", "100 B", 1),
    Load("get_many", "100 B", 32),
    Load("set_each", "100 B", 1),
    Load("set_many", "100 B", 1),
]


class Client:
    """One of the clients measured; `set_many` is the fastest way it has."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def get(self, key: bytes) -> Result:
        """The value of a key, in whatever form."""
        return self.inner.get(key)

    def set(self, key: bytes, value: bytes) -> Result:
        """Store a value, with an answer."""
        return self.inner.set(key, value)

    def get_many(self, keys: Sequence[bytes]) -> Result:
        """The values of many keys, in whatever form."""
        return self.inner.get_many(keys)

    def set_many(self, items: dict[bytes, bytes]) -> Result:
        """Store many values."""
        return asyncio.gather(*(self.inner.set(key, value) for key, value in items.items()))

    def value(self, result: Any) -> bytes:
        """The value of what `get` gave."""
        return cast(bytes, result.value)

    def values(self, result: Any, keys: Sequence[bytes]) -> list[bytes]:
        """The values of what `get_many` gave, in order of the keys."""
        return [result[key].value for key in keys]

    def close(self) -> Result:
        """End it."""
        return self.inner.close()


class Rain(Client):
    """rain.memcache."""

    def set_many(self, items: dict[bytes, bytes]) -> Result:
        """In one operation, which tells what failed."""
        return self.inner.set_many(items)


class Aiomcache(Client):
    """Gives plain values."""

    def get_many(self, keys: Sequence[bytes]) -> Result:
        """Its method has another name."""
        return self.inner.multi_get(*keys)

    def value(self, result: Any) -> bytes:
        """It is the value."""
        return cast(bytes, result)

    def values(self, result: Any, keys: Sequence[bytes]) -> list[bytes]:
        """It is a tuple."""
        return list(result)


class Pymemcache(Client):
    """Synchronous; gives plain values."""

    def set(self, key: bytes, value: bytes) -> Result:
        """Its default is not to wait for the answer."""
        return self.inner.set(key, value, noreply=False)

    def set_many(self, items: dict[bytes, bytes]) -> Result:
        """The same."""
        return self.inner.set_many(items, noreply=False)

    def value(self, result: Any) -> bytes:
        """It is the value."""
        return cast(bytes, result)

    def values(self, result: Any, keys: Sequence[bytes]) -> list[bytes]:
        """A dictionary of values."""
        return [result[key] for key in keys]


async def open_client(name: str, host: str, port: int) -> Client:
    """One of CLIENTS, with the options it is measured with."""
    if name == "rain":
        module = importlib.import_module("rain.memcache")
        return Rain(await module.create_client([module.MemcachedHostAddress(host, port)]))
    if name in ("emcache", "emcache_autobatching"):
        module = importlib.import_module("emcache")
        address = module.MemcachedHostAddress(host, port)
        return Client(await module.create_client([address], autobatching=name == "emcache_autobatching"))
    if name == "aiomcache":
        return Aiomcache(importlib.import_module("aiomcache").Client(host, port, pool_size=POOL))
    return Pymemcache(importlib.import_module("pymemcache").Client((host, port)))


CLIENTS = {
    "rain": "rain.memcache, default options",
    "emcache": "emcache, default options (2 connections)",
    "emcache_autobatching": "emcache with autobatching=True",
    "aiomcache": f"aiomcache with pool_size={POOL}",
    "pymemcache": "pymemcache, synchronous, one caller only",
}


def version_of(name: str) -> str:
    """The version of a client's package."""
    package = name.partition("_")[0]
    if package == "rain":
        return str(importlib.import_module("rain").__version__)
    return importlib.metadata.version(package)


def value_of(key: bytes, size: int) -> bytes:
    """The value that a key has; it begins with the key."""
    return key + b"." * (size - len(key))


def expect(found: object, expected: object) -> None:
    """Stop at a wrong value."""
    if found != expected:
        raise WrongValue(f"{found!r:.100} instead of {expected!r:.100}")


Caller = Callable[[int, float], Awaitable[int]]
"""Goes on until a time, beginning with a key of its own; gives the number of calls made."""


def caller_of(client: Client, load: Load, asynchronous: bool) -> Caller:
    """What each caller of a load does; the loops are plain, so that they add little to what is measured."""
    size = SIZES[load.size]
    values = {key: value_of(key, size) for key in KEYS}
    clock = time.perf_counter

    async def get(number: int, end: float) -> int:
        first, fetch, value = number, client.get, client.value
        while number == first or clock() < end:
            key = KEYS[number % len(KEYS)]
            found = fetch(key)
            if asynchronous:
                found = await found
            if value(found) != values[key]:
                expect(value(found), values[key])
            number += 1
        return number - first

    async def set_(number: int, end: float) -> int:
        first, store = number, client.set
        while number == first or clock() < end:
            key = KEYS[number % len(KEYS)]
            result = store(key, values[key])
            if asynchronous:
                await result
            number += 1
        return number - first

    return {"get": get, "set": set_}.get(load.operation) or _caller_of_many(client, load, asynchronous, values)


def _caller_of_many(client: Client, load: Load, asynchronous: bool, values: dict[bytes, bytes]) -> Caller:
    items = [{key: values[key] for key in keys} for keys in GROUPS]
    wanted = [[values[key] for key in keys] for keys in GROUPS]

    async def get_many(place: int) -> None:
        result = client.get_many(GROUPS[place])
        expect(client.values(await result if asynchronous else result, GROUPS[place]), wanted[place])

    async def set_each(place: int) -> None:
        for key, value in items[place].items():
            result = client.set(key, value)
            if asynchronous:
                await result

    async def set_many(place: int) -> None:
        await done(client.set_many(items[place]))

    call = {"get_many": get_many, "set_each": set_each, "set_many": set_many}[load.operation]

    async def caller(number: int, end: float) -> int:
        first = number
        while number == first or time.perf_counter() < end:
            await call(number % len(GROUPS))
            number += 1
        return number - first

    return caller


async def run(caller: Caller, callers: int, seconds: float) -> int:
    """Let callers go on for some time; how many calls they made."""
    end = time.perf_counter() + seconds
    # They begin at different keys, so that no turn asks twice for one.
    return sum(await asyncio.gather(*(caller(place * len(KEYS) // callers, end) for place in range(callers))))


async def done(result: Result) -> Any:
    """What a call gives in the end."""
    return await result if inspect.isawaitable(result) else result


async def fill(client: Client, size: int) -> None:
    """Store all values of a size."""
    for keys in GROUPS:
        await done(client.set_many({key: value_of(key, size) for key in keys}))


async def check(client: Client, size: int) -> None:
    """All values of a size are there."""
    for keys in GROUPS:
        found = client.values(await done(client.get_many(keys)), keys)
        expect(found, [value_of(key, size) for key in keys])


async def measure(name: str, host: str, port: int, seconds: float) -> dict[str, Any]:
    """Calls per second, and microseconds of CPU of this process per call, for each load that the client can have."""
    client = await open_client(name, host, port)
    asynchronous = inspect.isawaitable(first := client.get(KEYS[0]))
    await done(first)
    figures: dict[str, dict[str, float]] = {}
    stored = 0
    for load in LOADS:
        if load.callers > 1 and not asynchronous:
            continue
        size = SIZES[load.size]
        if stored != size:
            await fill(client, stored := size)
        caller = caller_of(client, load, asynchronous)
        await run(caller, load.callers, seconds * WARM_UP)
        start, cpu = time.perf_counter(), time.process_time()
        calls = await run(caller, load.callers, seconds)
        taken, used = time.perf_counter() - start, time.process_time() - cpu
        figures[load.name] = {"calls_per_second": calls / taken, "cpu_us_per_call": 1e6 * used / calls}
        await check(client, size)
    await done(client.close())
    return {"client": name, "version": version_of(name), "python": platform.python_version(), "loads": figures}


if __name__ == "__main__":
    which, where, place, duration = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(which, where, int(place), float(duration)))), flush=True)
