"""The backend `dir`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rain.cache.backend import CacheError
from rain.cache.directory import DirectoryBackend, DirectoryTurn

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def backend(tmp_path: Path, threads: Any) -> DirectoryBackend:
    return DirectoryBackend(tmp_path / "cache", 1000, threads)


async def store(backend: DirectoryBackend, key: bytes, entry: bytes) -> None:
    turn = await backend.ask(key)
    assert isinstance(turn, DirectoryTurn)
    await turn.store(entry)


def files(path: Path) -> list[Path]:
    return [place for place in path.rglob("*") if place.is_file() and place.name != "size.lock"]


def test_stored_results_are_found(backend: DirectoryBackend, tmp_path: Path, threads: Any):
    async def main() -> None:
        await store(backend, KEY, b"entry")
        assert await backend.ask(KEY) == b"entry"
        again = DirectoryBackend(tmp_path / "cache", 1000, threads)
        assert await again.ask(KEY) == b"entry"
        assert len(files(tmp_path)) == 1

    asyncio.run(main())


def test_one_computes_and_the_others_wait(backend: DirectoryBackend, tmp_path: Path, threads: Any):
    async def main() -> None:
        other = DirectoryBackend(tmp_path / "cache", 1000, threads)
        turn = await backend.ask(KEY)
        assert isinstance(turn, DirectoryTurn)
        assert await backend.ask(KEY) is None
        assert await other.ask(KEY) is None
        assert isinstance(await other.ask(OTHER), DirectoryTurn)
        await turn.store(b"entry")
        assert await other.ask(KEY) == b"entry"
        await other.close()
        assert isinstance(await backend.ask(OTHER), DirectoryTurn)
        await backend.close()

    asyncio.run(main())


def test_a_turn_given_up_is_the_next_ones(backend: DirectoryBackend):
    async def main() -> None:
        turn = await backend.ask(KEY)
        assert isinstance(turn, DirectoryTurn)
        await turn.give_up()
        turn.end()
        assert isinstance(await backend.ask(KEY), DirectoryTurn)
        await backend.close()

    asyncio.run(main())


def test_fifty_ask_at_once(backend: DirectoryBackend):
    computed = 0

    async def asker() -> bytes:
        nonlocal computed
        while True:
            answer = await backend.ask(KEY)
            if isinstance(answer, bytes):
                return answer
            if answer is not None:
                computed += 1
                await asyncio.sleep(0.05)
                await answer.store(b"entry")
            await asyncio.sleep(0.01)

    async def main() -> None:
        assert await asyncio.gather(*(asker() for _ in range(50))) == [b"entry"] * 50
        assert computed == 1

    asyncio.run(main())


def test_the_turn_of_a_dead_process_is_the_next_ones(backend: DirectoryBackend, tmp_path: Path):
    program = (
        "import asyncio, sys, time\n"
        "from pathlib import Path\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from rain.cache.directory import DirectoryBackend\n"
        "backend = DirectoryBackend(Path(sys.argv[1]), 1000, ThreadPoolExecutor(1))\n"
        "print(asyncio.run(backend.ask(b'k' * 32)) is not None, flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert asyncio.run(backend.ask(KEY)) is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()

        async def main() -> None:
            assert isinstance(await backend.ask(KEY), DirectoryTurn)
            await backend.close()

        asyncio.run(main())
    finally:
        holder.kill()
        holder.communicate()


def test_a_cancelled_question_leaves_no_turn(backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch):
    take = DirectoryBackend._take_turn

    def slowly(self: DirectoryBackend, key: bytes) -> DirectoryTurn | None:
        turn = take(self, key)
        time.sleep(0.1)
        return turn

    async def main() -> None:
        monkeypatch.setattr(DirectoryBackend, "_take_turn", slowly)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.ask(KEY), 0.02)
        monkeypatch.setattr(DirectoryBackend, "_take_turn", take)
        async with asyncio.timeout(20):
            while not isinstance(await backend.ask(KEY), DirectoryTurn):  # noqa: ASYNC110 - a thread ends the first
                await asyncio.sleep(0.01)
        await backend.close()

    asyncio.run(main())


def test_the_least_recently_used_goes_first(backend: DirectoryBackend, tmp_path: Path):
    async def main() -> None:
        keys = [bytes([n]) * 32 for n in range(10)]
        now = time.time()
        for age, key in enumerate(keys):
            await store(backend, key, bytes(100))
            (place,) = [path for path in files(tmp_path) if path.name == key.hex()]
            os.utime(place, (now, now - 1000 + age))
        assert await backend.ask(keys[0]) == bytes(100)  # used now
        for n in range(10, 12):
            await store(backend, bytes([n]) * 32, bytes(100))
        assert await backend.ask(keys[0]) == bytes(100)
        for gone in keys[1:3]:
            turn = await backend.ask(gone)
            assert isinstance(turn, DirectoryTurn), gone
            await turn.give_up()
        assert await backend.ask(keys[3]) == bytes(100)
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 1000

    asyncio.run(main())


def test_what_is_larger_than_all_the_cache_is_not_stored(backend: DirectoryBackend, tmp_path: Path):
    async def main() -> None:
        await store(backend, KEY, bytes(1001))
        assert files(tmp_path) == []

    asyncio.run(main())


def test_leftovers_of_dead_writers_are_removed(backend: DirectoryBackend, tmp_path: Path):
    async def main() -> None:
        await store(backend, KEY, b"entry")
        old, fresh = tmp_path / "cache" / "new" / "old", tmp_path / "cache" / "new" / "fresh"
        old.write_bytes(b"half")
        fresh.write_bytes(b"half")
        os.utime(old, (0, 0))
        await store(backend, OTHER, bytes(900))
        assert not old.exists()
        assert fresh.exists()

    asyncio.run(main())


def test_entries_can_be_discarded(backend: DirectoryBackend):
    async def main() -> None:
        await store(backend, KEY, b"entry")
        await backend.discard(KEY)
        await backend.discard(KEY)
        assert isinstance(await backend.ask(KEY), DirectoryTurn)
        await backend.close()

    asyncio.run(main())


def test_a_directory_that_cannot_be_used(tmp_path: Path, threads: Any):
    (tmp_path / "cache").write_text("a file")
    backend = DirectoryBackend(tmp_path / "cache", 1000, threads)

    async def main() -> None:
        with pytest.raises(CacheError, match=r"cache.*Not a directory"):
            await backend.ask(KEY)
        with pytest.raises(CacheError):
            await backend.discard(KEY)

    asyncio.run(main())


def test_a_full_disk_ends_the_turn(backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "the entry")

    async def main() -> None:
        turn = await backend.ask(KEY)
        assert isinstance(turn, DirectoryTurn)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(CacheError, match="the entry: No space left"):
                await turn.store(b"entry")
        assert files(tmp_path) == []
        assert isinstance(await backend.ask(KEY), DirectoryTurn)
        await backend.close()

    asyncio.run(main())
