import asyncio
from typing import Any

import pytest

from rain.common.errors import RainConnectionError
from rain.testing.simlinks import BREAKS, DELIVERED, LOST
from rain.testing.simloop import SimLoop
from rain.testing.simnet import SimChannel, SimHello, SimNetwork


class Recorder:
    """A handler that notes all."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.closed: list[str] = []

    def messages_received(self, channel: SimChannel, messages: list[Any]) -> None:
        self.got.extend(messages)

    def channel_closed(self, channel: SimChannel, reason: str) -> None:
        self.closed.append(reason)


class Pair:
    """A connection between the nodes a and b."""

    def __init__(self, seed: int = 0) -> None:
        self.loop = SimLoop(seed, time_limit=100)
        self.net = SimNetwork(self.loop)
        self.a, self.b = self.net.node("a"), self.net.node("b")
        self.here, self.there = Recorder(), Recorder()
        self.hello: SimHello | None = None
        self.other: SimChannel | None = None

    def accept(self, channel: SimChannel, hello: SimHello) -> Recorder:
        self.hello, self.other = hello, channel
        return self.there

    async def connect(self) -> SimChannel:
        listener = self.b.listen(7210, self.accept)
        return await self.a.connect(listener.address, "worker", self.here)


@pytest.fixture
def pair() -> Any:
    pair = Pair()
    yield pair
    pair.loop.shutdown()


@pytest.mark.parametrize("seed", range(5))
def test_messages_arrive_in_order_in_both_directions(seed: int) -> None:
    pair = Pair(seed)

    async def main() -> None:
        channel = await pair.connect()
        assert pair.hello is not None
        assert pair.hello.role == "worker"
        assert pair.other is not None
        for number in range(50):
            channel.send(number)
            pair.other.send(-number)
            if number % 7 == 0:
                await asyncio.sleep(0.001)
        channel.close()
        channel.send("lost")
        await asyncio.sleep(1)

    pair.loop.run_until_complete(main())
    assert pair.there.got == list(range(50))
    assert pair.here.got == [-number for number in range(len(pair.here.got))]
    assert len(pair.here.closed) == len(pair.there.closed) == 1
    pair.loop.shutdown()


def test_refused_and_unanswered_connects(pair: Pair) -> None:
    async def main() -> None:
        with pytest.raises(RainConnectionError, match="refused"):
            await pair.a.connect(f"{pair.b.ip}:1", "worker", pair.here)
        with pytest.raises(RainConnectionError, match="no answer within 3 s"):
            await pair.a.connect("10.9.9.9:1", "worker", pair.here, timeout=3)
        pair.b.refuses = True
        with pytest.raises(RainConnectionError, match="refused"):
            await pair.connect()

    pair.loop.run_until_complete(main())


def test_cut_holds_back_and_heal_delivers(pair: Pair) -> None:
    async def main() -> None:
        channel = await pair.connect()
        assert pair.other is not None
        pair.net.cut("a", "b", one_way=True)
        channel.send("held")
        pair.other.send("passes")
        await asyncio.sleep(5)
        assert (pair.there.got, pair.here.got) == ([], ["passes"])
        pair.net.heal("a", "b")
        await asyncio.sleep(1)
        assert pair.there.got == ["held"]

    pair.loop.run_until_complete(main())


def test_crash_closes_at_the_peer(pair: Pair) -> None:
    async def main() -> None:
        channel = await pair.connect()
        channel.send("on the way")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pair.a.crash()
        await asyncio.sleep(1)

    pair.loop.run_until_complete(main())
    assert pair.there.got == ["on the way"]
    assert len(pair.there.closed) == 1
    assert pair.here.closed == []


@pytest.mark.parametrize("silent", [True, False])
def test_crash_behind_a_cut_is_not_heard(pair: Pair, silent: bool) -> None:
    async def main() -> None:
        await pair.connect()
        pair.net.cut("a", "b")
        pair.a.crash(silent=silent)
        await asyncio.sleep(50)
        assert pair.there.closed == []
        pair.net.heal("a", "b")
        await asyncio.sleep(1)
        assert len(pair.there.closed) == (0 if silent else 1)

    pair.loop.run_until_complete(main())


def test_broken_connection_is_reported_once_at_both_ends(pair: Pair) -> None:
    async def main() -> None:
        channel = await pair.connect()
        assert pair.net.break_connections("a", "b") == 1
        await asyncio.sleep(1)
        channel.abort()
        await asyncio.sleep(1)

    pair.loop.run_until_complete(main())
    assert len(pair.here.closed) == len(pair.there.closed) == 1


def test_paused_node_gets_its_messages_later(pair: Pair) -> None:
    async def main() -> None:
        channel = await pair.connect()
        pair.b.pause()
        for number in range(20):
            channel.send(number)
            await asyncio.sleep(0.01)
        assert pair.there.got == []
        pair.b.resume()
        await asyncio.sleep(1)

    pair.loop.run_until_complete(main())
    assert pair.there.got == list(range(20))


def test_slow_links_keep_the_order_of_each_connection(pair: Pair) -> None:
    async def main() -> None:
        channel = await pair.connect()
        pair.net.slow("a", "b", (5.0, 30.0))
        for number in range(10):
            channel.send(number)
            await asyncio.sleep(0.1)
        assert pair.there.got == []
        await asyncio.sleep(31)

    pair.loop.run_until_complete(main())
    assert pair.there.got == list(range(10))


def test_stalled_connections_carry_nothing_and_new_ones_work(pair: Pair) -> None:
    async def main() -> None:
        channel = await pair.connect()
        assert pair.net.stall_connections("a", "b") == 1
        channel.send("lost")
        channel.abort()
        await asyncio.sleep(50)
        assert (pair.there.got, pair.there.closed) == ([], [])
        (await pair.connect()).send("comes")
        await asyncio.sleep(1)

    pair.loop.run_until_complete(main())
    assert pair.there.got == ["comes"]


@pytest.mark.parametrize("kind", BREAKS)
@pytest.mark.parametrize("seed", range(8))
def test_a_connection_breaks_at_a_message(kind: str, seed: int) -> None:
    pair = Pair(seed)
    pair.net.sabotage.arm("float", kind, 2)
    struck: list[tuple[str, str]] = []
    pair.net.sabotage.struck = lambda source, target: struck.append((source, target))

    async def main() -> None:
        channel = await pair.connect()
        assert pair.other is not None
        for message in (1, 2.0, 3):
            channel.send(message)
        await asyncio.sleep(1)
        pair.other.send("answer")
        await asyncio.sleep(0)
        for message in (4, 5.0, 6):
            channel.send(message)
        await asyncio.sleep(0)
        channel.send(7)
        await asyncio.sleep(1)

    pair.loop.run_until_complete(main())
    assert struck == [("a", "b")]
    assert pair.net.sabotage.hits == {("float", kind): 1}
    assert len(pair.here.closed) == len(pair.there.closed) == 1
    if kind == LOST:
        assert pair.there.got == [1, 2.0, 3, 4]
    elif kind == DELIVERED:
        assert (pair.there.got, pair.here.got) == ([1, 2.0, 3, 4, 5.0], [])
    else:
        assert pair.there.got in ([1, 2.0, 3], [1, 2.0, 3, 4, 5.0, 6])
    pair.loop.shutdown()
