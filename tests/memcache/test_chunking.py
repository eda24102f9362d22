"""Values stored in parts: they come back whole or not at all."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rain.memcache import manifest
from rain.memcache.base import Item
from rain.memcache.client_errors import (
    ClusterNoAvailableNodes,
    CommandError,
    NodeUnavailable,
    NotFoundCommandError,
    NotStoredStorageCommandError,
    StorageCommandError,
)
from rain.memcache.factory import create_client
from rain.memcache.manifest import MANIFEST_FLAGS
from rain.memcache.testing import MemcachedServer
from tests.memcache.clients import FETCHES, Rig, cancelled, rig
from tests.memcache.model import Model
from tests.memcache.virtual import outcome, turns, virtually

SIZE = 1024
LARGE = bytes(range(256)) * 20  # five parts
SIZES = [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 2 * SIZE + 1, 5 * SIZE - 1]


def chunking(*models: Model, **options: Any) -> Any:
    return rig(*(models or (Model(),)), chunking=True, chunk_size=SIZE, **options)


def parts(model: Model) -> list[bytes]:
    return sorted(key for key in model.items if key.startswith(b"rmc1:"))


def value(item: Item | None) -> bytes | None:
    return None if item is None else item.value


async def fetch(made: Rig, name: str, key: bytes = b"foo") -> Item | None:
    found = await FETCHES[name](made.client, key)
    return found.get(key) if name.endswith("_many") else found  # type: ignore[no-any-return]


class TestStoring:
    @virtually
    async def test_what_is_sent(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE, flags=5, exptime=60)
            told = manifest.decode(model.items[b"foo"].value)
            assert told is not None
            assert model.items[b"foo"].flags == MANIFEST_FLAGS
            assert (told.flags, told.length, told.part_size, told.parts) == (5, len(LARGE), SIZE, 5)
            lines = [request.partition(b"\r\n")[0] for request in made.asked()]
            assert lines == [
                *(b"set %b 0 60 1024" % key for key in told.part_keys()),
                b"set foo %d 60 56" % MANIFEST_FLAGS,
            ]

    @pytest.mark.parametrize("size", SIZES)
    @virtually
    async def test_sizes(self, size: int):
        model = Model()
        async with chunking(model) as made:
            data = (LARGE * 2)[:size]
            await made.client.set(b"foo", bytearray(data), flags=9)
            assert len(parts(model)) == (0 if size <= SIZE else -(-size // SIZE))
            assert await made.client.get(b"foo", True) == Item(data, 9, None)

    @virtually
    async def test_at_most_four_parts_at_a_time(self):
        async with chunking() as made:
            wire = made.wires[0]
            script = wire.script
            wire.script = lambda request: None
            task = asyncio.ensure_future(made.client.set(b"foo", LARGE))
            await turns()
            assert len(made.asked()) == 4
            wire.answer(b"STORED\r\n")
            await turns()
            assert len(made.asked()) == 5
            wire.script = script
            wire.answer(b"STORED\r\n" * 4)
            await task

    @virtually
    async def test_parts_over_all_nodes(self):
        models = [Model() for _ in range(3)]
        async with chunking(*models) as made:
            await made.client.set(b"foo", LARGE * 4)
            assert all(parts(model) for model in models)
            assert value(await made.client.get(b"foo")) == LARGE * 4

    @virtually
    async def test_the_command_asked_for_decides(self):
        model = Model()
        async with chunking(model) as made:
            client = made.client
            assert isinstance(await outcome(client.replace(b"foo", LARGE)), NotStoredStorageCommandError)
            await turns()
            assert not model.items
            await client.add(b"foo", LARGE)
            assert isinstance(await outcome(client.add(b"foo", b"x" * 2000)), NotStoredStorageCommandError)
            await client.replace(b"foo", LARGE[::-1])
            item = await client.gets(b"foo")
            assert item is not None
            assert item.value == LARGE[::-1]
            assert item.cas is not None
            assert isinstance(await outcome(client.cas(b"foo", LARGE, item.cas + 1)), NotStoredStorageCommandError)
            await client.cas(b"foo", LARGE * 2, item.cas)
            assert value(await client.get(b"foo")) == LARGE * 2

    @virtually
    async def test_noreply(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE, noreply=True)
            assert all(b" noreply\r\n" in request for request in made.asked())
            assert value(await made.client.get(b"foo")) == LARGE

    @virtually
    async def test_a_part_that_cannot_be_stored(self):
        model = Model()
        async with chunking(model) as made:

            def script(request: bytes) -> bytes | None:
                if request.startswith(b"set rmc1") and b":3 " in request:
                    return b"SERVER_ERROR out of memory\r\n"
                return model(request)

            made.wires[0].script = script
            error = await outcome(made.client.set(b"foo", LARGE))
            assert isinstance(error, StorageCommandError)
            assert error.reply == "SERVER_ERROR out of memory"
            await turns()
            assert not model.items
            assert not any(request.startswith(b"set foo") for request in made.asked())

    @virtually
    async def test_a_manifest_that_cannot_be_stored(self):
        model = Model()
        async with chunking(model) as made:
            made.wires[0].script = lambda r: b"SERVER_ERROR no\r\n" if r.startswith(b"set foo") else model(r)
            assert isinstance(await outcome(made.client.set(b"foo", LARGE)), StorageCommandError)
            await turns()
            assert not model.items

    @virtually
    async def test_cancelled(self):
        model = Model()
        async with chunking(model, timeout=None) as made:
            made.wires[0].script = lambda r: None if b":4 " in r else model(r)
            task = asyncio.ensure_future(made.client.set(b"foo", LARGE))
            await turns(50)
            assert len(parts(model)) == 4
            assert await cancelled(task)
            await turns()
            assert not model.items

    @virtually
    async def test_timed_out(self):
        """The parts are deleted though the time of the operation is over."""
        model = Model()
        async with chunking(model, timeout=1.0) as made:
            wire = made.wires[0]
            wire.script = lambda r: None if b":4 " in r else model(r)
            task = asyncio.ensure_future(made.client.set(b"foo", LARGE))
            await asyncio.sleep(0.9)
            assert len(parts(model)) == 4
            wire.answer(b"STO")
            assert isinstance(await outcome(task), TimeoutError)
            wire.answer(b"RED\r\n")
            await turns()
            assert not model.items
            assert await made.client.get(b"foo") is None

    @virtually
    async def test_no_nodes_for_the_deletion(self):
        async with chunking() as made:
            node_for = made.client._cluster.node_for

            def until_the_manifest(key: bytes) -> Any:
                if key == b"foo":
                    made.client._cluster.node_for = until_the_manifest
                    raise ClusterNoAvailableNodes
                if made.client._cluster.node_for is until_the_manifest:
                    raise ClusterNoAvailableNodes
                return node_for(key)

            made.client._cluster.node_for = lambda key: until_the_manifest(key)
            assert isinstance(await outcome(made.client.set(b"foo", LARGE)), ClusterNoAvailableNodes)

    @virtually
    async def test_too_many_parts(self):
        async with chunking() as made:
            for call in (
                made.client.set(b"foo", bytes(4097 * SIZE)),
                made.client.set_many({b"foo": bytes(4097 * SIZE)}),
                made.client.get_or_set(b"foo", lambda: bytes(4097 * SIZE)),
            ):
                with pytest.raises(ValueError, match="4097 parts"):
                    await call
            assert all(request.startswith((b"mg", b"md")) for request in made.asked())

    @virtually
    async def test_the_flags_of_manifests_are_refused(self):
        async with chunking() as made:
            client = made.client
            lease = await client.get_lease(b"lease")
            made.forget()
            for call in (
                client.set(b"foo", b"", flags=MANIFEST_FLAGS),
                client.cas(b"foo", b"", 1, flags=MANIFEST_FLAGS),
                client.set_many({b"foo": b""}, flags=MANIFEST_FLAGS),
                client.get_or_set(b"foo", bytes, flags=MANIFEST_FLAGS),
                lease.fulfil(b"", flags=MANIFEST_FLAGS),
            ):
                with pytest.raises(ValueError, match="0xc4a17e55"):
                    await call
            assert made.asked() == []
        async with rig(Model()) as made:
            await made.client.set(b"foo", b"", flags=MANIFEST_FLAGS)

    @virtually
    async def test_set_many(self):
        models = [Model(), Model()]
        async with chunking(*models) as made:
            data = {b"key:%d" % number: LARGE[: 300 * number] for number in range(18)}
            assert await made.client.set_many(data, flags=3) == {}
            found = await made.client.get_many(data, return_flags=True)
            assert {key: (item.value, item.flags) for key, item in found.items()} == {
                key: (stored, 3) for key, stored in data.items()
            }
            made.networks[1].error = ConnectionRefusedError("refused")
            made.networks[1].wires[0].end()
            await turns()
            failures = await made.client.set_many(data)
            assert {key for key in data if made.node_of(key) == 1} <= set(failures)
            assert {type(error) for error in failures.values()} == {NodeUnavailable}

    @virtually
    async def test_set_many_closed_meanwhile(self):
        async with chunking() as made:
            made.silence()
            task = asyncio.ensure_future(made.client.set_many({b"a": LARGE, b"b": LARGE}))
            await turns()
            await made.client.close()
            assert isinstance(await outcome(task), RuntimeError)

    @virtually
    async def test_one_deadline(self):
        async with chunking(timeout=0.5) as made:
            model = made.wires[0].script
            started = asyncio.get_running_loop().time()

            def slow(request: bytes) -> bytes | None:
                asyncio.get_running_loop().now += 0.2  # type: ignore[attr-defined]
                return model(request)

            made.wires[0].script = slow
            assert isinstance(await outcome(made.client.set(b"foo", LARGE)), TimeoutError)
            assert asyncio.get_running_loop().time() - started < 1.5


class TestFetching:
    @pytest.mark.parametrize("meta", [True, False])
    @pytest.mark.parametrize("autobatching", [True, False])
    @pytest.mark.parametrize("name", FETCHES)
    @virtually
    async def test_all_fetches(self, name: str, autobatching: bool, meta: bool):
        async with chunking(Model(meta=meta), autobatching=autobatching) as made:
            await made.client.set(b"foo", LARGE, flags=5)
            await made.client.set(b"small", b"x", flags=6)
            item = await fetch(made, name)
            assert item is not None
            assert (item.value, item.flags) == (LARGE, None)
            assert (item.cas is not None) == name.startswith(("gets", "gats"))
            assert (await fetch(made, name, b"small")) == Item(b"x", None, 2 + 5 if item.cas else None)
            assert await fetch(made, name, b"none") is None

    @virtually
    async def test_flags_where_asked(self):
        async with chunking() as made:
            await made.client.set(b"foo", LARGE, flags=5)
            assert (await made.client.get(b"foo", True)).flags == 5  # type: ignore[union-attr]
            assert (await made.client.get_many([b"foo"], True))[b"foo"].flags == 5
            assert (await made.client.get_lease(b"foo")).item.flags == 5  # type: ignore[union-attr]

    @virtually
    async def test_at_most_four_parts_are_asked_ahead(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            made.forget()
            made.wires[0].script = lambda r: None if r.startswith(b"mg rmc1") else model(r)
            task = asyncio.ensure_future(made.client.get(b"foo"))
            await turns()
            assert len(made.asked()) == 1 + 4
            assert await cancelled(task)

    @pytest.mark.parametrize("name", FETCHES)
    @pytest.mark.parametrize("damage", ["missing", "swapped", "short", "manifest", "appended"])
    @virtually
    async def test_damage_is_a_miss(self, name: str, damage: str, caplog: pytest.LogCaptureFixture):
        model = Model()
        async with chunking(model) as made:
            client = made.client
            await client.set(b"foo", LARGE[:-1], flags=5)
            await client.set(b"sound", LARGE)
            told = manifest.decode(model.items[b"foo"].value)
            assert told is not None
            keys = told.part_keys()
            if damage == "missing":
                del model.items[keys[3]]
            elif damage == "swapped":
                model.items[keys[0]], model.items[keys[1]] = model.items[keys[4]], model.items[keys[0]]
            elif damage == "short":
                model.items[keys[2]].value = model.items[keys[2]].value[:-1]
            elif damage == "manifest":
                model.items[b"foo"].value = b"nonsense"
            else:
                await client.append(b"foo", b"more")
            with caplog.at_level(logging.DEBUG, "rain.memcache.chunking"):
                assert await fetch(made, name) is None
            assert "b'foo'" in caplog.text
            assert client._chunking is not None
            assert client._chunking.broken == 1
            assert value(await fetch(made, name, b"sound")) == LARGE

    @virtually
    async def test_right_lengths_and_wrong_bytes(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            part = model.items[parts(model)[2]]
            part.value = part.value[:-1] + b"?"
            assert await made.client.get(b"foo") is None

    @virtually
    async def test_a_part_that_cannot_be_fetched_is_a_failure(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            made.wires[0].script = lambda r: b"SERVER_ERROR no\r\n" if r.startswith(b"mg rmc1") else model(r)
            assert isinstance(await outcome(made.client.get(b"foo")), CommandError)

    @virtually
    async def test_without_chunking_a_manifest_is_what_it_is(self):
        model = Model()
        async with chunking(model) as made, rig(model) as plain:
            await made.client.set(b"foo", LARGE)
            item = await plain.client.get(b"foo", True)
            assert item is not None
            assert item.flags == MANIFEST_FLAGS
            assert len(item.value) == 56

    @virtually
    async def test_parts_are_plain_reads(self):
        """Lost with a connection, they are asked once more."""
        model = Model()
        async with chunking(model, timeout=10.0) as made:
            await made.client.set(b"foo", LARGE)
            await asyncio.sleep(2)
            made.wires[0].script = lambda r: None if r.startswith(b"mg rmc1") else model(r)
            task = asyncio.ensure_future(made.client.get(b"foo"))
            await turns()
            made.wires[0].reset()
            assert value(await task) == LARGE

    @virtually
    async def test_readers_during_overwriting(self):
        models = [Model() for _ in range(3)]
        old, new = LARGE * 2, LARGE[::-1] * 3
        async with chunking(*models) as made:
            await made.client.set(b"foo", old)
            seen = set()
            for delay in range(60):
                writer = asyncio.ensure_future(made.client.set(b"foo", new if delay % 2 else old))
                await turns(delay % 30)
                seen.add(value(await made.client.get(b"foo")))
                await writer
            assert seen == {old, new}


class TestExpiry:
    @pytest.mark.parametrize("meta", [True, False])
    @pytest.mark.parametrize("name", ["gat", "gats", "gat_many", "gats_many", "touch", "touch_many"])
    @virtually
    async def test_parts_get_the_new_expiry_as_well(self, name: str, meta: bool):
        model = Model(meta=meta)
        async with chunking(model) as made:
            client = made.client
            await client.set(b"foo", LARGE, exptime=10)
            await client.set(b"small", b"x", exptime=10)
            if name == "touch":
                await client.touch(b"foo", 100)
                await client.touch(b"small", 100)
            elif name == "touch_many":
                failures = await client.touch_many([b"foo", b"small", b"none"], 100)
                assert {key: type(error) for key, error in failures.items()} == {b"none": NotFoundCommandError}
            elif name.endswith("_many"):
                await getattr(client, name)(100, [b"foo", b"small"])
            else:
                await getattr(client, name)(100, b"foo")
                await getattr(client, name)(100, b"small")
            await asyncio.sleep(50)
            assert value(await client.get(b"foo")) == LARGE
            assert value(await client.get(b"small")) == b"x"
            await asyncio.sleep(51)
            assert model.get(b"foo") is None
            assert all(model.get(key) is None for key in parts(model))

    @pytest.mark.parametrize("meta", [True, False])
    @virtually
    async def test_touch_of_a_missing_key(self, meta: bool):
        async with chunking(Model(meta=meta)) as made:
            error = await outcome(made.client.touch(b"foo", 1))
            assert isinstance(error, NotFoundCommandError)
            assert error.args == ()
            await made.client.touch(b"foo", 1, noreply=True)
            assert await made.client.touch_many([b"foo"], 1, noreply=True) == {}

    @virtually
    async def test_touch_with_noreply(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE, exptime=10)
            made.forget()
            await made.client.touch(b"foo", 100, noreply=True)
            assert made.asked()[:2] == [b"mg foo f T100\r\n", b"mg foo v f\r\n"]
            assert all(request.endswith(b" noreply\r\n") for request in made.asked()[2:])
            await asyncio.sleep(50)
            assert value(await made.client.get(b"foo")) == LARGE

    @virtually
    async def test_touch_of_damaged_values(self, caplog: pytest.LogCaptureFixture):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            del model.items[parts(model)[2]]
            with caplog.at_level(logging.DEBUG, "rain.memcache.chunking"):
                await made.client.touch(b"foo", 100)
            assert "could not be touched" in caplog.text
            model.items[b"foo"].value = b"nonsense"
            await made.client.touch(b"foo", 100)

    @pytest.mark.parametrize("change", [b"set foo 0 0 1\r\nx\r\n", b"delete foo\r\n"])
    @virtually
    async def test_overwritten_between_the_two_questions(self, change: bytes):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)

            def script(request: bytes) -> bytes | None:
                answer = model(request)
                if request.startswith(b"mg foo f T"):
                    model(change)
                return answer

            made.wires[0].script = script
            await made.client.touch(b"foo", 100)

    @virtually
    async def test_failures(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            made.wires[0].script = lambda r: b"SERVER_ERROR no\r\n" if r.startswith(b"touch rmc1") else model(r)
            assert isinstance(await outcome(made.client.touch(b"foo", 1)), CommandError)
            assert set(await made.client.touch_many([b"foo"], 1)) == {b"foo"}
            made.wires[0].script = lambda r: b"SERVER_ERROR no\r\n"
            assert isinstance(await outcome(made.client.touch(b"foo", 1)), CommandError)

    @virtually
    async def test_touch_many_closed_meanwhile(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            made.wires[0].script = lambda r: None if r.startswith(b"touch rmc1") else model(r)
            task = asyncio.ensure_future(made.client.touch_many([b"foo"], 1))
            await turns()
            await made.client.close()
            assert isinstance(await outcome(task), RuntimeError)

    @virtually
    async def test_a_connection_without_meta_among_others(self):
        """The node looked like one with meta; the request went to a connection that has none."""
        model = Model()
        async with chunking(model) as made:
            await made.client.set_many({b"foo": LARGE, b"small": b"x"}, exptime=10)
            node = made.client._cluster.nodes()[0]
            made.wires[0].script = Model(meta=False)
            made.wires[0].end()
            made.networks[0].script = lambda r: b"ERROR\r\n" if r[:2] in (b"mn", b"mg") else model(r)
            await asyncio.sleep(2)
            assert node.meta is False
            type(node).meta, kept = None, type(node).meta  # type: ignore[assignment,misc]
            try:
                await made.client.touch(b"foo", 100)
                assert await made.client.touch_many([b"small"], 100) == {}
            finally:
                type(node).meta = kept  # type: ignore[method-assign]
            await asyncio.sleep(50)
            assert value(await made.client.get(b"foo")) == LARGE
            assert value(await made.client.get(b"small")) == b"x"


class TestLeases:
    @pytest.mark.parametrize("meta", [True, False])
    @virtually
    async def test_get_or_set(self, meta: bool):
        model = Model(meta=meta)
        async with chunking(model) as made:
            assert await made.client.get_or_set(b"foo", lambda: LARGE, flags=5) == LARGE
            assert len(parts(model)) == 5
            assert await made.client.get_or_set(b"foo", lambda: b"never") == LARGE
            assert (await made.client.get(b"foo", True)).flags == 5  # type: ignore[union-attr]

    @pytest.mark.parametrize("meta", [True, False])
    @virtually
    async def test_a_broken_value_is_replaced(self, meta: bool):
        model = Model(meta=meta)
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            del model.items[parts(model)[2]]
            assert await made.client.get_or_set(b"foo", lambda: LARGE[::-1]) == LARGE[::-1]
            assert value(await made.client.get(b"foo")) == LARGE[::-1]

    @virtually
    async def test_a_broken_value_is_removed_by_its_token(self):
        model = Model()
        async with chunking(model) as made:
            await made.client.set(b"foo", LARGE)
            token = model.items[b"foo"].cas
            del model.items[parts(model)[2]]
            made.forget()
            assert (await made.client.get_lease(b"foo")).won
            assert b"md foo C%d\r\n" % token in made.asked()

    @virtually
    async def test_cancelled_while_parts_are_fetched_for_a_refresh(self):
        """The win is given back, so that somebody else refreshes."""
        model = Model()
        async with chunking(model, timeout=None) as made:
            await made.client.set(b"foo", LARGE, exptime=5)
            made.wires[0].script = lambda r: None if r.startswith(b"mg rmc1") else model(r)
            task = asyncio.ensure_future(made.client.get_lease(b"foo", stale=10))
            await turns()
            assert await cancelled(task)
            await turns()
            assert made.asked()[-1] == b"md foo I\r\n"

    @virtually
    async def test_overtaken(self):
        model = Model()
        async with chunking(model) as made:
            lease = await made.client.get_lease(b"foo")
            await made.client.set(b"foo", b"newer")
            assert await lease.fulfil(LARGE) is False
            await turns()
            assert parts(model) == []

    @virtually
    async def test_placeholders_under_autobatching(self):
        async with chunking(autobatching=True) as made:
            await made.client.get_lease(b"foo")
            assert await made.client.get(b"foo") is None


class TestRealServers:
    @pytest.mark.parametrize("protocol", ["auto", "classic"])
    async def test_large_values(self, servers: tuple[MemcachedServer, MemcachedServer], protocol: Any):
        addresses = [server.address for server in servers]
        default = 523_776
        async with create_client(addresses, chunking=True, timeout=60, protocol=protocol) as client:
            for size in (default - 1, default, default + 1, 2 * default, 2 * default + 1, 5_000_000):
                data = (b"%08d" % size) * (size // 8 + 1)
                await client.set(b"large", data[:size], flags=7)
                item = await client.get(b"large", True)
                assert item is not None
                assert item.value == data[:size]
                assert item.flags == 7
            await client.touch(b"large", 100)
            assert (await client.get_many([b"large"]))[b"large"].value == data[:size]

    async def test_64_mib(self, start_server: Any):
        server = start_server(options=["-m", "256"])
        data = b"0123456789abcdef" * (4 * 1024 * 1024)
        async with create_client([server.address], chunking=True, timeout=60) as client:
            await client.set(b"large", data)
            item = await client.gat(100, b"large")
            assert item is not None
            assert item.value == data
