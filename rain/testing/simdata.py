"""Data connections in the simulation: asking another node for a value."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from rain.common.errors import RainConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from rain.testing.simloop import SimLoop
    from rain.testing.simnet import SimChannel, SimNode

ObjectKey: TypeAlias = "tuple[int, int]"

DATA_TIMEOUT = 5.0
"""Seconds after which a transfer counts as failed."""


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Ask for the value of an object."""

    key: ObjectKey


@dataclass(frozen=True, slots=True)
class DataAnswer:
    """The value, None if it is not here. size: what was announced; less has come if the other side stopped early."""

    key: ObjectKey
    value: bytes | None
    size: int


class DataServer:
    """Channel handler that answers requests from a coroutine function.

    Attributes:
        delay: most seconds until it answers.
        short: how likely it stops in the middle of a value.
    """

    delay = 0.0
    short = 0.0

    def __init__(self, read: Callable[[ObjectKey], Coroutine[Any, Any, bytes | None]]) -> None:
        self._read = read
        self._answering: set[asyncio.Task[None]] = set()

    def messages_received(self, channel: SimChannel, messages: list[Any]) -> None:
        """Answer each request."""
        for message in messages:
            task = asyncio.get_running_loop().create_task(self._answer(channel, message), name="data answer")
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, channel: SimChannel, message: DataRequest) -> None:
        rng = cast("SimLoop", asyncio.get_running_loop()).rng
        if self.delay:
            await asyncio.sleep(rng.uniform(0.0, self.delay))
        value = await self._read(message.key)
        size = 0 if value is None else len(value)
        if value and self.short and rng.random() < self.short:
            value = value[: rng.randrange(size)]
        channel.send(DataAnswer(message.key, value, size))

    def channel_closed(self, channel: SimChannel, reason: str) -> None:
        """Nothing is kept per connection."""


class _Answer:
    def __init__(self, future: asyncio.Future[DataAnswer]) -> None:
        self._future = future

    def messages_received(self, channel: SimChannel, messages: list[Any]) -> None:
        if not self._future.done():
            self._future.set_result(messages[0])

    def channel_closed(self, channel: SimChannel, reason: str) -> None:
        if not self._future.done():
            self._future.set_exception(RainConnectionError(f"data connection to {channel.peer}: {reason}"))


async def read_from(node: SimNode, address: str, key: ObjectKey) -> bytes | None:
    """Read a value from the data port at `address`.

    Returns:
        The value, None if the other side does not have it.

    Raises:
        RainConnectionError: no connection, or no answer in time.
    """
    future: asyncio.Future[DataAnswer] = asyncio.get_running_loop().create_future()
    channel = None
    try:
        channel = await node.connect(address, "data", _Answer(future), timeout=DATA_TIMEOUT)
        channel.send(DataRequest(key))
        async with asyncio.timeout(DATA_TIMEOUT):
            answer = await future
        if answer.value is not None and len(answer.value) < answer.size:
            raise RainConnectionError(f"data connection to {address}: {len(answer.value)} of {answer.size} bytes came")
        return answer.value
    except TimeoutError:
        raise RainConnectionError(f"data connection to {address}: no answer within {DATA_TIMEOUT:g} s") from None
    finally:
        if channel is not None:
            channel.abort()
        future.cancel()
        if not future.cancelled():
            future.exception()  # retrieved, so that nobody complains
