"""A thin client for the simulation: speaks the messages of the protocol through a simulated channel."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainConnectionError
from rain.common.failure import Failure
from rain.protocol import messages as m
from rain.testing.graphs import ChunkWriter
from rain.testing.simdata import read_from

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.testing.graphs import PlannedSubmit
    from rain.testing.simnet import SimChannel, SimNode

HEARTBEAT = 5.0
SILENCE = 15.0


class RefusedError(Exception):
    """The server refused a request."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class SimClient:
    """One connection.

    Attributes:
        warnings: texts of the server's SessionWarnings.
    """

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.warnings: list[str] = []
        self._channel: SimChannel | None = None
        self._seq = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._closed = ""
        self._heard = 0.0

    async def connect(self, address: str) -> None:
        """Connect to the server."""
        self._channel = await self.node.connect(address, "client", self)
        self._heard = asyncio.get_running_loop().time()
        self._beat()

    def close(self) -> None:
        """End the connection."""
        if self._channel is not None:
            self._channel.close()

    async def new_session(self, name: str = "", on_failure: str = "fail") -> SimSession:
        """Open a session."""
        answer = await self.request(m.NewSession(self.next_seq(), name, on_failure, False))
        return SimSession(self, answer.session)

    def next_seq(self) -> int:
        """A number for the next request."""
        self._seq += 1
        return self._seq

    def send(self, message: m.ClientMessage) -> None:
        """Send what needs no answer."""
        if self._closed or self._channel is None:
            raise RainConnectionError(self._closed or "not connected")
        self._channel.send(message)

    async def request(self, message: Any) -> Any:
        """Send a message with a `seq` and wait for its answer.

        Raises:
            RefusedError: the server refused it.
            RainConnectionError: the connection is lost.
        """
        future = asyncio.get_running_loop().create_future()
        self._pending[message.seq] = future
        try:
            self.send(message)
            answer = await future
        finally:
            del self._pending[message.seq]
        if isinstance(answer, m.Refused):
            raise RefusedError(Failure.from_map(answer.failure))
        return answer

    def messages_received(self, channel: SimChannel, messages: list[Any]) -> None:
        """Give answers to those who wait for them."""
        self._heard = self.node.process.time()
        for message in messages:
            if isinstance(message, m.SessionWarning):
                self.warnings.append(message.text)
            elif not isinstance(message, m.Heartbeat):
                future = self._pending.get(message.seq)
                if future is not None and not future.done():
                    future.set_result(message)

    def channel_closed(self, channel: SimChannel, reason: str) -> None:
        """Fail all requests under way."""
        self._closed = reason
        for future in self._pending.values():
            if not future.done():
                future.set_exception(RainConnectionError(reason))

    def _beat(self) -> None:
        if self._closed or self._channel is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard > SILENCE:
            self._channel.abort()
            return
        self._channel.send(m.Heartbeat())
        loop.call_later(HEARTBEAT, self._beat)


class SimSession:
    """A session of a simulated client."""

    def __init__(self, client: SimClient, number: int) -> None:
        self.client = client
        self.number = number
        self._writer = ChunkWriter(number)

    async def submit(self, submit: PlannedSubmit) -> None:
        """Send a part of the graph; returns when the server has accepted it."""
        for message in self._writer.messages(submit):
            self.client.send(message)
        await self.client.request(m.SubmitCommit(self.client.next_seq(), self.number, False))

    async def wait(self, ids: Iterable[int]) -> None:
        """Until all are finished."""
        await self.client.request(m.Wait(self.client.next_seq(), self.number, m.WAIT_ALL, array("I", ids)))

    async def wait_some(self, ids: Iterable[int]) -> list[int]:
        """Until at least one is finished; returns those."""
        answer = await self.client.request(m.Wait(self.client.next_seq(), self.number, m.WAIT_SOME, array("I", ids)))
        return list(answer.ids)

    async def wait_all(self) -> None:
        """Until no unfinished task is left."""
        await self.client.request(m.Wait(self.client.next_seq(), self.number, m.WAIT_SESSION, array("I")))

    async def fetch(self, ids: list[int], *, rounds: int = 50) -> dict[int, bytes]:
        """Values of kept objects, as a real client gets them: inline, or from a worker.

        Raises:
            TimeoutError: not all could be had in so many rounds.
        """
        values: dict[int, bytes] = {}
        unreachable: list[str] = []
        for _ in range(rounds):
            missing = [number for number in ids if number not in values]
            if not missing:
                return values
            answer = await self.client.request(
                m.FetchObjects(self.client.next_seq(), self.number, array("I", missing), unreachable)
            )
            unreachable = []
            for position, number in enumerate(missing):
                inline = answer.values[position] if answer.values else None
                if inline is not None:
                    values[number] = inline
                    continue
                for address in answer.holders[position]:
                    value = await self._try_read(address, number)
                    if value is not None:
                        assert len(value) == answer.sizes[position]
                        values[number] = value
                        break
                    if address not in unreachable:
                        unreachable.append(address)
        raise TimeoutError(f"objects {missing} of session {self.number} could not be fetched in {rounds} rounds")

    async def unkeep(self, ids: Iterable[int]) -> None:
        """Take the keep flags away."""
        await self.client.request(m.UnkeepObjects(self.client.next_seq(), self.number, array("I", ids)))

    async def states(self, ids: Iterable[int]) -> list[int]:
        """States of tasks and objects."""
        answer = await self.client.request(m.GetInfos(self.client.next_seq(), self.number, array("I", ids)))
        return list(answer.states)

    async def close(self) -> None:
        """End the session."""
        await self.client.request(m.CloseSession(self.client.next_seq(), self.number))

    async def _try_read(self, address: str, number: int) -> bytes | None:
        try:
            return await read_from(self.client.node, address, (self.number, number))
        except RainConnectionError:
            return None
