"""An asyncio client whose server is a script: no sockets, no processes."""

from __future__ import annotations

from contextlib import asynccontextmanager

from rain.client.aio import AsyncClient
from rain.client.connect import Target
from rain.client.loop_front import LoopFront, Receiver
from rain.net.address import Address
from rain.net.loopdata import LoopDataClient
from rain.net.secret import Secret
from rain.testing.fake_channel import FakeLoopChannel

TARGET = Target(Address("127.0.0.1", 7210), Secret(None, "test"))


def make_client(server, **options) -> tuple[AsyncClient, FakeLoopChannel]:
    """A client in the running loop, and its channel."""
    receiver = Receiver()
    channel = FakeLoopChannel(receiver, server)
    options = {"request_timeout": 5.0, **options}
    front = LoopFront(channel, receiver, LoopDataClient(TARGET.secret), str(TARGET.address), **options)
    return AsyncClient(front, TARGET), channel


@asynccontextmanager
async def scripted(server, **options):
    """A client that is closed at the end."""
    client, _ = make_client(server, **options)
    async with client:
        yield client
