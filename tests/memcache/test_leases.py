"""Leases: who wins, what is stored, and that nobody is left waiting for one who went away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import pytest

from rain.memcache.base import Item, Lease
from rain.memcache.client_errors import (
    AuthenticationError,
    CommandError,
    NodeUnavailable,
    StorageCommandError,
)
from rain.memcache.factory import create_client
from rain.memcache.testing import MemcachedServer
from tests.memcache.clients import Rig, cancelled, rig
from tests.memcache.model import Model
from tests.memcache.virtual import outcome, turns, virtually

LOCK = b"rain:lease:" + blake2b(b"foo", digest_size=16).hexdigest().encode()

SLOW_LEASE = b"mg foo v f c N30\r\n"


def told(lease: Lease) -> tuple[bytes | None, bool, bool]:
    return lease.item.value if lease.item else None, lease.won, lease.pending


def without_meta() -> Model:
    return Model(meta=False)


async def take(made: Rig, **options: Any) -> Lease:
    return await made.client.get_lease(b"foo", **options)


class TestTaking:
    @pytest.mark.parametrize(
        ("reply", "item", "won", "pending"),
        [
            (b"VA 3 f5 c9\r\nold\r\n", Item(b"old", 5, 9), False, False),
            (b"VA 0 f5 c9\r\n\r\n", Item(b"", 5, 9), False, False),
            (b"VA 0 f0 c9 W\r\n\r\n", None, True, False),
            (b"VA 0 f0 c9 Z\r\n\r\n", None, False, True),
            (b"VA 3 f5 c9 W\r\nold\r\n", Item(b"old", 5, 9), True, False),
            (b"VA 0 f5 c9 W X\r\n\r\n", Item(b"", 5, 9), True, False),
            (b"VA 3 f5 c9 X Z\r\nold\r\n", Item(b"old", 5, 9), False, True),
            (b"VA 0 f5 c9 Z X\r\n\r\n", Item(b"", 5, 9), False, True),
            (b"EN\r\n", None, False, False),
        ],
    )
    @virtually
    async def test_replies(self, reply: bytes, item: Item | None, won: bool, pending: bool):
        async with rig() as made:
            made.wires[0].script = lambda request: reply
            lease = await take(made)
            assert (lease.item, lease.won, lease.pending) == (item, won, pending)
            assert f"won={won} pending={pending}" in repr(lease)
            lease._held = False  # type: ignore[attr-defined]

    @pytest.mark.parametrize("model", [Model, without_meta])
    @virtually
    async def test_one_wins_and_the_others_wait(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            leases = await asyncio.gather(*[take(made) for _ in range(5)])
            assert [told(lease) for lease in leases] == [(None, True, False)] + [(None, False, True)] * 4
            assert await leases[0].fulfil(b"value", flags=3) is True
            lease = await take(made)
            assert (told(lease), lease.item.flags) == ((b"value", False, False), 3)  # type: ignore[union-attr]
            assert lease.item.cas  # type: ignore[union-attr]

    @pytest.mark.parametrize("reply", [b"SERVER_ERROR out of memory\r\n", b"CLIENT_ERROR bad\r\n"])
    @virtually
    async def test_error_line(self, reply: bytes):
        async with rig() as made:
            made.wires[0].script = lambda request: reply
            assert isinstance(await outcome(take(made)), CommandError)

    @virtually
    async def test_never_sent_twice(self):
        async with rig() as made:
            made.silence()
            task = asyncio.ensure_future(take(made))
            await turns()
            made.wires[0].reset()
            assert isinstance(await outcome(task), NodeUnavailable)
            assert made.asked() == [SLOW_LEASE]

    @virtually
    async def test_refresh(self):
        """With `stale`, one caller wins when the item is about to expire."""
        async with rig(Model()) as made:
            await made.client.set(b"foo", b"old", exptime=20)
            assert told(await take(made, stale=10)) == (b"old", False, False)
            await asyncio.sleep(11)
            assert told(await take(made)) == (b"old", False, False)
            winner = await take(made, stale=10)
            assert told(winner) == (b"old", True, False)
            assert told(await take(made, stale=10)) == (b"old", False, True)
            assert await winner.fulfil(b"new", exptime=20)
            assert told(await take(made, stale=10)) == (b"new", False, False)

    @virtually
    async def test_an_unanswered_placeholder_expires(self):
        async with rig(Model()) as made:
            assert (await take(made, lease=5)).won
            await asyncio.sleep(4)
            assert (await take(made)).pending
            await asyncio.sleep(2)
            assert (await take(made)).won

    @virtually
    async def test_value_that_comes_while_the_lease_key_is_added(self):
        """Without meta: the value is asked once more, and the lease key is given back."""
        model = Model(meta=False)
        async with rig(model) as made:

            def script(request: bytes) -> bytes | None:
                answer = model(request)
                if request.startswith(b"add"):
                    model.put(b"foo", b"value")
                return answer

            made.wires[0].script = script
            assert told(await take(made)) == (b"value", False, False)
            await turns()
            assert LOCK not in model.items

    @virtually
    async def test_what_is_sent_without_meta(self):
        async with rig(without_meta()) as made:
            lease = await take(made, lease=5, stale=6)
            assert await lease.fulfil(b"value", exptime=7)
            assert made.asked() == [
                b"gets foo\r\n",
                b"add %b 0 5 0\r\n\r\n" % LOCK,
                b"gets foo\r\n",
                b"set foo 0 7 5\r\nvalue\r\n",
                b"delete %b noreply\r\n" % LOCK,
            ]


class TestFulfil:
    @virtually
    async def test_what_is_sent(self):
        async with rig(Model()) as made:
            lease = await take(made)
            token = lease.token  # type: ignore[attr-defined]
            assert await lease.fulfil(bytearray(b"value"), flags=3, exptime=4)
            assert made.asked()[1:] == [b"cas foo 3 4 5 %d\r\nvalue\r\n" % token]

    @pytest.mark.parametrize("model", [Model, without_meta])
    @virtually
    async def test_once(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            lease, other = await take(made), await take(made)
            with pytest.raises(RuntimeError, match="not won"):
                await other.fulfil(b"value")
            await lease.fulfil(b"value")
            with pytest.raises(RuntimeError, match="fulfilled"):
                await lease.fulfil(b"value")
            made.forget()
            await lease.release()
            await other.release()
            assert made.asked() == []

    @virtually
    async def test_argument_errors_leave_the_lease_held(self):
        async with rig(Model()) as made:
            lease = await take(made)
            for arguments, more, kind in (
                ((b"",), {"flags": -1}, ValueError),
                ((b"",), {"exptime": 2**40}, ValueError),
                (("text",), {}, TypeError),
            ):
                with pytest.raises(kind):
                    await lease.fulfil(*arguments, **more)  # type: ignore[arg-type]
            assert await lease.fulfil(b"value")

    @virtually
    async def test_overwritten_meanwhile(self):
        async with rig(Model()) as made:
            lease = await take(made)
            await made.client.set(b"foo", b"newer")
            assert await lease.fulfil(b"value") is False
            assert told(await take(made)) == (b"newer", False, False)

    @virtually
    async def test_deleted_meanwhile(self):
        async with rig(Model()) as made:
            lease = await take(made)
            await made.client.delete(b"foo")
            assert await lease.fulfil(b"value") is False
            assert await made.client.get(b"foo") is None

    @virtually
    async def test_the_lease_ran_out(self):
        async with rig(Model()) as made:
            lease = await take(made, lease=5)
            await asyncio.sleep(6)
            assert await lease.fulfil(b"value", flags=2) is True
            assert made.asked()[-1] == b"add foo 2 0 5\r\nvalue\r\n"

    @virtually
    async def test_the_lease_ran_out_and_somebody_stored(self):
        model = Model()
        async with rig(model) as made:
            lease = await take(made, lease=5)
            await asyncio.sleep(6)

            def script(request: bytes) -> bytes | None:
                answer = model(request)
                if request.startswith(b"cas"):
                    model.put(b"foo", b"other")
                return answer

            made.wires[0].script = script
            assert await lease.fulfil(b"value") is False

    @pytest.mark.parametrize("model", [Model, without_meta])
    @virtually
    async def test_a_failure_releases(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            lease = await take(made)
            error = await outcome(lease.fulfil(bytes(2_000_000)))
            assert isinstance(error, StorageCommandError)
            await turns()
            assert (await take(made)).won

    @pytest.mark.parametrize("model", [Model, without_meta])
    @virtually
    async def test_cancelled(self, model: Callable[[], Model]):
        made_model = model()
        async with rig(made_model) as made:
            lease = await take(made)
            made.wires[0].script = lambda request: None
            task = asyncio.ensure_future(lease.fulfil(b"value"))
            await turns()
            assert await cancelled(task)
            await turns()
            assert made.asked()[-1] in (
                b"md foo C%d\r\n" % lease.token,  # type: ignore[attr-defined]
                b"delete %b noreply\r\n" % LOCK,
            )


class TestRelease:
    @pytest.mark.parametrize("model", [Model, without_meta])
    @virtually
    async def test_the_next_caller_wins(self, model: Callable[[], Model]):
        async with rig(model()) as made:
            lease = await take(made)
            await lease.release()
            made.forget()
            await lease.release()
            assert made.asked() == []
            assert (await take(made)).won

    @virtually
    async def test_of_a_refresh_nothing_is_sent(self):
        async with rig(Model()) as made:
            await made.client.set(b"foo", b"old", exptime=5)
            lease = await take(made, stale=10)
            assert lease.won
            made.forget()
            await lease.release()
            assert made.asked() == []

    @virtually
    async def test_failing_fulfilment_of_a_refresh_keeps_the_old_value(self):
        async with rig(Model()) as made:
            await made.client.set(b"foo", b"old", exptime=5)
            lease = await take(made, stale=10)
            assert isinstance(await outcome(lease.fulfil(bytes(2_000_000))), StorageCommandError)
            await turns()
            assert told(await take(made)) == (b"old", False, True)

    @virtually
    async def test_not_there_any_more(self):
        async with rig(Model()) as made:
            for meddle in (made.client.delete(b"foo"), made.client.set(b"foo", b"new")):
                lease = await take(made)
                await meddle
                await lease.release()

    @virtually
    async def test_failure_is_raised(self):
        async with rig(Model()) as made:
            lease = await take(made)
            made.wires[0].script = lambda request: b"SERVER_ERROR busy\r\n"
            assert isinstance(await outcome(lease.release()), CommandError)

    @virtually
    async def test_give_up_without_nodes(self):
        """The nodes are gone: the lease runs out by itself."""

        def no_node(key: bytes) -> Any:
            from rain.memcache.client_errors import ClusterNoAvailableNodes

            raise ClusterNoAvailableNodes

        async with rig(Model()) as made:
            lease: Any = await take(made)
            made.client._cluster.node_for = no_node
            made.forget()
            lease.give_up()
            lease.give_up()
            assert made.asked() == []


class TestLate:
    """Nobody is blocked by a caller who did not wait for the reply."""

    @pytest.mark.parametrize("how", ["cancelled", "timed out"])
    @pytest.mark.parametrize(
        ("reply", "then"),
        [
            (b"VA 0 f0 c9 W\r\n\r\n", [b"md foo C9\r\n"]),
            (b"VA 3 f0 c9 W\r\nold\r\n", [b"md foo I\r\n"]),
            (b"VA 0 f0 c9 W X\r\n\r\n", [b"md foo I\r\n"]),
            (b"VA 0 f0 c9 Z\r\n\r\n", []),
            (b"VA 3 f0 c9\r\nold\r\n", []),
            (b"SERVER_ERROR busy\r\n", []),
        ],
    )
    @virtually
    async def test_meta(self, how: str, reply: bytes, then: list[bytes]):
        async with rig(timeout=0.5) as made:
            made.silence()
            other = asyncio.ensure_future(made.client.get(b"other"))
            await turns()
            await asyncio.sleep(0.1)
            task = asyncio.ensure_future(take(made))
            await asyncio.sleep(0.35)
            made.wires[0].answer(b"VA 1\r\nx")  # the connection lives
            await asyncio.sleep(0.2 if how == "timed out" else 0)
            if how == "cancelled":
                task.cancel()
            await asyncio.wait([task])
            await outcome(other)
            assert task.cancelled() or isinstance(task.exception(), TimeoutError)
            made.forget()
            made.wires[0].answer(b"\r\n" + reply)
            await turns()
            assert made.asked() == then

    @virtually
    async def test_cancelled_between_reply_and_wakening(self):
        async with rig(timeout=None) as made:
            made.silence()
            task = asyncio.ensure_future(take(made))
            await turns()
            made.wires[0].answer(b"VA 0 f0 c9 W\r\n\r\n")
            assert await cancelled(task)
            await turns()
            assert made.asked()[1:] == [b"md foo C9\r\n"]

    @pytest.mark.parametrize(("reply", "unlocked"), [(b"STORED\r\n", True), (b"NOT_STORED\r\n", False)])
    @virtually
    async def test_lease_key(self, reply: bytes, unlocked: bool):
        model = Model(meta=False)
        async with rig(model, timeout=None) as made:
            made.wires[0].script = lambda request: None if request.startswith(b"add") else model(request)
            task = asyncio.ensure_future(take(made))
            await turns()
            assert await cancelled(task)
            made.forget()
            made.wires[0].answer(reply)
            await turns()
            assert made.asked() == [b"delete %b noreply\r\n" % LOCK] * unlocked

    @virtually
    async def test_cancelled_at_the_second_question(self):
        model = Model(meta=False)
        async with rig(model, timeout=None) as made:
            asked = []

            def script(request: bytes) -> bytes | None:
                asked.append(request)
                return None if len(asked) == 3 else model(request)

            made.wires[0].script = script
            task = asyncio.ensure_future(take(made))
            await turns()
            assert LOCK in model.items
            assert await cancelled(task)
            await turns()
            assert LOCK not in model.items


class TestOtherFailures:
    @virtually
    async def test_refused_authentication(self):
        made = Rig([lambda request: b"CLIENT_ERROR unauthenticated\r\n"], {})
        await made.client.open()
        assert isinstance(await outcome(take(made)), AuthenticationError)
        await made.client.close()


class TestRealServer:
    async def test_meta(self, servers: tuple[MemcachedServer, MemcachedServer]):
        async with create_client([servers[0].address]) as client, create_client([servers[0].address]) as other:
            lease = await client.get_lease(b"foo", lease=10)
            assert told(lease) == (None, True, False)
            assert told(await other.get_lease(b"foo")) == (None, False, True)
            assert await other.get(b"foo") is None
            assert await other.get_many([b"foo"]) == {}
            await lease.release()
            lease = await other.get_lease(b"foo", lease=10)
            assert lease.won
            assert await lease.fulfil(b"value", flags=5, exptime=100)
            assert (await client.get_lease(b"foo")).item.value == b"value"  # type: ignore[union-attr]
            refresh = await client.get_lease(b"foo", stale=200)
            assert told(refresh) == (b"value", True, False)
            assert told(await other.get_lease(b"foo", stale=200)) == (b"value", False, True)
            await client.delete(b"foo")
            assert await refresh.fulfil(b"newer") is False
            assert await client.get(b"foo") is None

    async def test_without_meta(self, servers: tuple[MemcachedServer, MemcachedServer]):
        addresses = [server.address for server in servers]
        async with (
            create_client(addresses, protocol="classic") as client,
            create_client(addresses, protocol="classic") as other,
        ):
            lease = await client.get_lease(b"foo", lease=10)
            assert told(lease) == (None, True, False)
            assert told(await other.get_lease(b"foo")) == (None, False, True)
            assert await lease.fulfil(b"value")
            assert told(await other.get_lease(b"foo")) == (b"value", False, False)
            await client.delete(b"foo")
            assert (await other.get_lease(b"foo")).won
