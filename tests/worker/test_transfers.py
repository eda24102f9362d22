"""Values moved between two stores over real data connections."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rain.common import fs
from rain.net.dataserver import DataServer
from rain.net.places import map_place
from rain.net.secret import Secret
from rain.protocol.data import NOT_HERE, OK, PLACE, Piece
from rain.worker.core.actions import FetchObject
from rain.worker.core.events import ObjectArrived, ObjectUnreachable, StoreFailed, WorkerEvent
from rain.worker.store import Store, StoreError
from rain.worker.transfers import OWN_CONNECTION, StoreSource, Transfers

SECRET = Secret("s" * 64, "the test")
KEY = (3, 17)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Store]:
    yield from make_store(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Store]:
    yield from make_store(tmp_path / "there")


def make_store(directory: Path) -> Iterator[Store]:
    directory.mkdir()
    store = Store(str(directory), memory_budget=64 << 20)
    yield store
    assert store.memory_used == sum(store.size(key) for key in [KEY] if isinstance(store.get(key), Path))
    store.close()


class Bench:
    """Transfers into a store, and their reports."""

    def __init__(self, here: Store, there: Store) -> None:
        loop = asyncio.get_running_loop()
        self.here = here
        self.there = there
        self.events: asyncio.Queue[WorkerEvent] = asyncio.Queue()
        self.reported_there: asyncio.Queue[WorkerEvent] = asyncio.Queue()
        self.transfers = Transfers(
            loop=loop, store=here, secret=SECRET, report=self.events.put_nowait, pauses=(0.0, 0.01)
        )
        source = StoreSource(there, loop, self.reported_there.put_nowait)
        self.server = DataServer("127.0.0.1:0", SECRET, source)
        self.holder = str(self.server.address)

    def fetch(self, size: int, *holders: str, directory: bool = False) -> None:
        self.transfers.fetch(FetchObject(KEY, size, directory, list(holders or (self.holder,))))

    async def end(self) -> WorkerEvent:
        return await asyncio.wait_for(self.events.get(), 20)


@pytest.fixture
async def bench(here: Store, there: Store) -> AsyncIterator[Bench]:
    bench = Bench(here, there)
    yield bench
    bench.transfers.close()
    bench.server.close()


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 9_000_000, OWN_CONNECTION + 1])
async def test_values_of_all_sizes_arrive(bench: Bench, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    bench.there.put(KEY, value)
    bench.fetch(size)
    assert await bench.end() == ObjectArrived(KEY, size)
    assert bytes(bench.here.read(KEY, 0, size)) == value
    assert isinstance(bench.here.get(KEY), Path) == (size >= 65_536)


async def test_the_next_holder_is_asked(bench: Bench) -> None:
    bench.there.put(KEY, b"value")
    bench.fetch(5, unused_address(), bench.holder)
    assert await bench.end() == ObjectArrived(KEY, 5)


async def test_unreachable_objects_are_told_with_reasons(bench: Bench) -> None:
    address = unused_address()
    bench.fetch(5, address, bench.holder)
    event = await bench.end()
    assert isinstance(event, ObjectUnreachable)
    assert event.object == KEY
    assert event.holders == [address, bench.holder]
    assert "refused" in event.reason
    assert "not there" in event.reason
    assert KEY not in bench.here


async def test_the_server_relays_what_cannot_be_reached(bench: Bench) -> None:
    bench.transfers._relay = bench.holder
    bench.there.put(KEY, b"value")
    bench.fetch(5, unused_address())
    assert await bench.end() == ObjectArrived(KEY, 5)


async def test_nothing_is_relayed_that_holders_say_they_do_not_have(bench: Bench) -> None:
    bench.transfers._relay = unused_address()
    bench.fetch(5)
    event = await bench.end()
    assert isinstance(event, ObjectUnreachable)
    assert bench.transfers._relay not in event.reason


async def test_a_server_that_cannot_relay_is_told_of_too(bench: Bench) -> None:
    bench.transfers._relay = unused_address()
    address = unused_address()
    bench.fetch(5, address)
    event = await bench.end()
    assert isinstance(event, ObjectUnreachable)
    assert event.holders == [address]
    assert bench.transfers._relay in event.reason


async def test_a_wrong_size_is_not_taken(bench: Bench) -> None:
    bench.there.put(KEY, b"value")
    bench.fetch(6)
    event = await bench.end()
    assert isinstance(event, ObjectUnreachable)
    assert "5 bytes of an object of 6" in event.reason


async def test_a_damaged_value_is_reported_where_it_is(bench: Bench) -> None:
    bench.there.put(KEY, b"v" * 100_000)
    path = bench.there.get(KEY)
    assert isinstance(path, Path)
    path.chmod(0o600)
    path.write_bytes(b"")
    bench.fetch(100_000)
    assert isinstance(await bench.end(), ObjectUnreachable)
    event = await asyncio.wait_for(bench.reported_there.get(), 10)
    assert isinstance(event, StoreFailed)
    assert event.object == KEY
    assert "damaged" in event.reason


async def test_a_full_store_fails_the_transfer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.there.put(KEY, b"v" * 100_000)

    def full(size: int) -> tuple[int, str]:
        raise StoreError(f"cannot store a value of {size} bytes: disk full", path="/x", size=size)

    monkeypatch.setattr(bench.here, "create_file", full)
    bench.fetch(100_000)
    event = await bench.end()
    assert event == StoreFailed(KEY, "cannot store a value of 100000 bytes: disk full")


class SlowSource:
    """A holder that does not go on before it is told to."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def read(self, session: int, object_id: int, offset: int, length: int) -> Piece:
        self.asked.set()
        assert self.go_on.wait(20)
        return 0, 0, self.size, bytes(min(length, self.size - offset))


@pytest.mark.parametrize("size", [100_000, OWN_CONNECTION])
async def test_a_stopped_transfer_is_never_heard_of(bench: Bench, size: int) -> None:
    source = SlowSource(size)
    server = DataServer("127.0.0.1:0", SECRET, source)
    try:
        bench.fetch(size, str(server.address))
        assert await asyncio.to_thread(source.asked.wait, 10)
        bench.transfers.stop(KEY)
        bench.there.put(KEY, b"n" * size)
        bench.fetch(size)  # the same object again, from elsewhere
        assert await bench.end() == ObjectArrived(KEY, size)
        source.go_on.set()
        await asyncio.to_thread(bench.transfers._threads.shutdown)
        await asyncio.sleep(0)
        assert bench.events.empty()
        assert bytes(bench.here.read(KEY, 0, 1)) == b"n"
    finally:
        source.go_on.set()
        server.close()


async def test_a_silent_holder_does_not_hold_up_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rain.worker.transfers._SLOW", -1.0)  # every failure counts as slow
    asked = 0

    def count(*args: object, **options: object) -> tuple[int, int]:
        nonlocal asked
        asked += 1
        return original(*args, **options)  # type: ignore[arg-type]

    original = bench.transfers._client.fetch
    monkeypatch.setattr(bench.transfers._client, "fetch", count)
    address = unused_address()
    for _ in range(3):
        bench.fetch(5, address)
        event = await bench.end()
        assert isinstance(event, ObjectUnreachable)
        assert "a moment ago" in event.reason
    assert asked == 1


@pytest.mark.parametrize("size", [10, 3_000_000, OWN_CONNECTION + 1])
async def test_directories_arrive(bench: Bench, tmp_path: Path, size: int) -> None:
    (tmp_path / "tree" / "empty").mkdir(parents=True)
    (tmp_path / "tree" / "f").write_bytes(b"f" * size)
    (tmp_path / "tree" / "f").chmod(0o755)
    packed = fs.pack_directory(tmp_path / "tree")
    bench.there.put_tree(KEY, str(tmp_path / "tree"))
    bench.fetch(size, directory=True)
    assert await bench.end() == ObjectArrived(KEY, size)
    assert bytes(bench.here.read(KEY, 0, 1 << 26)) == packed
    path = bench.here.get(KEY)
    assert isinstance(path, Path) == (size > 10)
    if isinstance(path, Path):
        assert (path / "f").stat().st_mode & 0o777 == 0o500


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_directory_that_is_none_is_not_taken(bench: Bench, size: int) -> None:
    bench.there.put(KEY, b"x" * size)
    bench.fetch(size, directory=True)
    event = await bench.end()
    assert isinstance(event, ObjectUnreachable)
    assert "amaged" in event.reason
    assert KEY not in bench.here


def place_of(bench: Bench, key: tuple[int, int]) -> Piece:
    return StoreSource(bench.there, asyncio.get_running_loop(), bench.reported_there.put_nowait).place(*key)


async def test_only_files_have_a_place(bench: Bench, tmp_path: Path) -> None:
    value = b"x" * 100_000
    bench.there.put(KEY, value)
    status, flags, size, place = place_of(bench, KEY)
    assert (status, flags, size) == (OK, PLACE, len(value))
    view = map_place(bytearray(place), size)
    assert view is not None
    bench.there.delete([KEY])
    assert bytes(view) == value
    assert place_of(bench, KEY) == (NOT_HERE, 0, 0, b"")
    bench.there.put((3, 1), b"small")
    assert place_of(bench, (3, 1)) == (OK, PLACE, 5, b"")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(value)
    bench.there.put_tree((3, 2), str(tmp_path / "tree"))
    assert place_of(bench, (3, 2))[3] == b""
    bench.there.delete([(3, 1), (3, 2)])


async def test_memory_of_a_transfer_that_failed_is_not_kept_mapped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = OWN_CONNECTION
    bench.there.put(KEY, b"x" * size)
    real = Store.map_file

    def stop_then_map(store: Store, descriptor: int, path: str, size: int) -> object:
        bench.server.close()
        return real(store, descriptor, path, size)

    monkeypatch.setattr(Store, "map_file", stop_then_map)
    bench.fetch(size)
    assert isinstance(await bench.end(), ObjectUnreachable)
    assert bench.here._segments is not None
    assert not bench.here._segments._mapped
    assert bench.here.memory_used == 0


async def test_transfers_take_memory_that_is_there_and_mapped(bench: Bench) -> None:
    size = 9_000_000
    for letter in (b"a", b"b", b"c"):
        bench.there.put(KEY, letter * size)
        bench.fetch(size)
        assert await bench.end() == ObjectArrived(KEY, size)
        assert bytes(bench.here.read(KEY, 0, size)) == letter * size
        assert bench.here._segments is not None
        assert (len(bench.here._segments._mapped), bench.here._segments.held()) == (1, 0)
        bench.there.delete([KEY])
        bench.here.delete([KEY])
        assert bench.here._segments.held() == size
