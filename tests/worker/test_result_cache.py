"""The worker's side of the result cache."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from rain.cache.backend import CacheError
from rain.cache.directory import DirectoryBackend
from rain.common.fs import pack_directory
from rain.common.task_template import CACHED_INFO
from rain.worker import result_cache
from rain.worker.core.actions import Run, RunInput
from rain.worker.core.events import LookedUp
from rain.worker.result_cache import ResultCache
from rain.worker.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TOLD = {"any": "cache"}
PYTHON: dict[str, Any] = {"task_type": "py/", "cache": True, "cache_code": b"code", "config": {"plain": True}}
BIG = bytes(range(256)) * 1024


class Turn:
    def __init__(self, backend: MemoryBackend, key: bytes) -> None:
        self.backend, self.key = backend, key

    async def store(self, entry: bytes) -> None:
        self.backend.taken.discard(self.key)
        self.backend.check()
        self.backend.entries[self.key] = entry

    async def give_up(self) -> None:
        self.backend.taken.discard(self.key)


class MemoryBackend:
    """A cache in a dict."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.taken: set[bytes] = set()
        self.trouble: Exception | None = None
        self.asked = 0
        self.hangs = self.closed = False

    def check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def ask(self, key: bytes) -> bytes | Turn | None:
        self.asked += 1
        self.check()
        if self.hangs:
            await asyncio.sleep(60)
        if key in self.entries:
            return self.entries[key]
        if key in self.taken:
            return None
        self.taken.add(key)
        return Turn(self, key)

    async def discard(self, key: bytes) -> None:
        self.entries.pop(key, None)

    async def close(self) -> None:
        self.closed = True


@dataclass
class Bench:
    """A worker's cache with a store, and what it reported."""

    cache: ResultCache
    store: Store
    backend: Any
    events: list[LookedUp] = field(default_factory=list)

    async def look_up(self, run: Run) -> LookedUp:
        self.cache.look_up(run)
        return await self.answer(run)

    async def answer(self, run: Run) -> LookedUp:
        async with asyncio.timeout(10):
            while not any(event.key == run.key for event in self.events):  # noqa: ASYNC110 - it is a plain list
                await asyncio.sleep(0.001)
        (event,) = [event for event in self.events if event.key == run.key]
        self.events.remove(event)
        return event

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Until nothing goes on in the background."""
        async with asyncio.timeout(10):
            while self.cache._background:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    def put(self, number: int, value: bytes) -> RunInput:
        self.store.put((1, number), value)
        return RunInput((1, number), None, None, False)

    async def make(self, run: Run, *values: bytes) -> None:
        """The run succeeds with these outputs."""
        for number, value in zip(run.outputs, values, strict=True):
            self.store.put((1, number), value)
        self.cache.keep(run.key, [(len(value), b"\x81\xa1i\x01") for value in values])
        await self.settle()


@asynccontextmanager
async def opened(tmp_path: Path, backend: Any = None, secret: bytes = b"") -> AsyncIterator[Bench]:
    kept = backend or MemoryBackend()

    async def open_backend(told: dict[str, Any], threads: Any) -> tuple[Any, bytes]:
        assert told == TOLD
        if isinstance(kept, Exception):
            raise kept
        return kept, secret

    (tmp_path / "data").mkdir(exist_ok=True)
    store = Store(str(tmp_path / "data"), memory_budget=64 << 20)
    with ThreadPoolExecutor(2) as threads:
        events: list[LookedUp] = []
        cache = ResultCache(
            loop=asyncio.get_running_loop(), store=store, threads=threads, report=events.append,  # type: ignore[arg-type]
            wall_clock=lambda: 1000.0, open_backend=open_backend,
        )  # fmt: skip
        cache.use(TOLD)
        try:
            yield Bench(cache, store, kept, events)
        finally:
            await cache.close()
    store.close()


def run_of(number: int = 20, *, inputs: tuple[RunInput, ...] = (), outputs: int = 1, **template: Any) -> Run:
    function = RunInput((1, 1), None, None, True)
    data = {**PYTHON, "outputs": [{}] * outputs, **template}
    made = tuple(range(number + 1000, number + 1000 + outputs))
    return Run((1, number, 0), 0, data, b"args", (function, *inputs), made)


def test_what_was_kept_is_found(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            first, second = run_of(20, outputs=2), run_of(30, outputs=2)
            assert await bench.look_up(first) == LookedUp(first.key, None)
            await bench.make(first, b"small", BIG)
            result = (await bench.look_up(second)).result
            assert result is not None
            assert (result.key, result.start, result.duration, result.info) == (second.key, 1000.0, 0.0, CACHED_INFO)
            assert result.outputs == [(5, b"\x81\xa1i\x01", b"small"), (len(BIG), b"\x81\xa1i\x01", None)]
            assert bench.store.get((1, 1030)) == b"small"
            path = bench.store.get((1, 1031))
            assert isinstance(path, Path)
            assert path.read_bytes() == BIG
            assert len(bench.store) == 4  # no copies are left
            (entry,) = bench.backend.entries.values()
            size = len(entry)
            counts = {"hits": 1, "misses": 1, "stored": 1, "failures": 0, "read": size, "written": size}
            assert bench.cache.counts == counts

    asyncio.run(main())


def test_failures_are_counted(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            first, second = run_of(20), run_of(30)
            assert (await bench.look_up(first)).result is None
            bench.backend.trouble = CacheError("broken")
            await bench.make(first, b"small")
            assert (await bench.look_up(second)).result is None  # the cache is left alone, which counts as a miss
            counts = {"hits": 0, "misses": 2, "stored": 0, "failures": 1, "read": 0, "written": 0}
            assert bench.cache.counts == counts

    asyncio.run(main())


def test_directories_are_kept_and_found(tmp_path: Path):
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_bytes(BIG)
    (tree / "link").symlink_to("deep/file")

    async def main() -> None:
        async with opened(tmp_path) as bench:
            first, second = (run_of(number, outputs=1) for number in (20, 30))
            for run in (first, second):
                run.template_data["outputs"] = [{"data_type": "dir"}]
            assert (await bench.look_up(first)).result is None
            archive = pack_directory(tree)
            bench.store.put_tree((1, 1020), str(tree))
            bench.cache.keep(first.key, [(len(BIG), None)])
            await bench.settle()
            result = (await bench.look_up(second)).result
            assert result is not None
            assert result.outputs == [(len(BIG), None, None)]
            found = bench.store.get((1, 1030))
            assert isinstance(found, Path)
            assert pack_directory(found) == archive

    asyncio.run(main())


def test_what_is_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rain.worker.cached_values.MAX_OUTPUT", 100)

    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of()
            assert (await bench.look_up(run)).result is None
            await bench.make(run, bytes(101))
            assert bench.backend.entries == {}
            assert bench.backend.taken == set()
            assert len(bench.store) == 1

    asyncio.run(main())


CHANGES: list[dict[str, Any]] = [
    {"task_type": "py/other"},
    {"cache_code": b"changed"},
    {"config": {"plain": False}},
    {"env": {"A": "1"}},
    {"cache": "text"},
    {"labels": ["x"]},
    {"outputs": [{"content_type": "json"}]},
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_template_is_another_result(tmp_path: Path, change: dict[str, Any]):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run, other = run_of(20), run_of(30)
            assert (await bench.look_up(run)).result is None
            await bench.make(run, b"value")
            other.template_data.update(change)
            assert (await bench.look_up(other)).result is None

    asyncio.run(main())


def test_names_and_priorities_do_not_count(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of(20, name="one", priority=1, resources={"cpus": 1})
            assert (await bench.look_up(run)).result is None
            await bench.make(run, b"value")
            other = run_of(30, name="two", priority=2, resources={"cpus": 2})
            assert (await bench.look_up(other)).result is not None

    asyncio.run(main())


def test_inputs_and_arguments_count(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of(20, inputs=(bench.put(10, b"input"),))
            assert (await bench.look_up(run)).result is None
            await bench.make(run, b"value")
            same = run_of(30, inputs=(bench.put(11, b"input"),))
            assert (await bench.look_up(same)).result is not None
            others = [
                run_of(40, inputs=(bench.put(12, b"inpuT"),)),
                run_of(41, inputs=(bench.put(13, BIG),)),
                run_of(42),
                run_of(43, inputs=(replace(bench.put(14, b"input"), info=msgpack.packb({"content_type": "text"})),)),
                run_of(44, inputs=(replace(bench.put(15, b"input"), spec=msgpack.packb({"content_type": "json"})),)),
                replace(run_of(45, inputs=(bench.put(16, b"input"),)), args=b"others"),
            ]
            for other in others:
                assert (await bench.look_up(other)).result is None

    asyncio.run(main())


def test_a_text_stands_for_code_and_config(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of(20, cache="v1")
            assert (await bench.look_up(run)).result is None
            await bench.make(run, b"value")
            same = replace(run_of(30, cache="v1", config={"x": 1}), args=b"others")
            assert (await bench.look_up(same)).result is not None
            assert (await bench.look_up(run_of(40, cache="v2"))).result is None

    asyncio.run(main())


def test_an_input_that_has_gone_is_a_miss(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of(20, inputs=(RunInput((1, 99), None, None, False),))
            assert (await bench.look_up(run)).result is None
            assert bench.backend.asked == 0
            assert (await bench.look_up(run_of(30))).result is None
            assert bench.backend.asked == 1

    asyncio.run(main())


def test_one_computes_and_the_others_wait(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            runs = [run_of(20 + number) for number in range(20)]
            for run in runs:
                bench.cache.look_up(run)
            await bench.until(lambda: bench.events)
            (event,) = bench.events
            assert event.result is None
            (winner,) = [run for run in runs if run.key == event.key]
            bench.events.clear()
            await bench.make(winner, b"value")
            for run in runs:
                if run is not winner:
                    assert (await bench.answer(run)).result is not None

    asyncio.run(main())


@pytest.mark.parametrize("end", ["stop", "lost value"])
def test_the_next_one_computes_when_the_first_comes_to_nothing(tmp_path: Path, end: str):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            first, second = run_of(20), run_of(30)
            assert (await bench.look_up(first)).result is None
            bench.cache.look_up(second)
            await asyncio.sleep(0.05)
            assert bench.events == []
            if end == "stop":
                bench.cache.stop(first.key)
            else:
                bench.cache.keep(first.key, [(5, None)])  # its output is not in the store any more
            assert (await bench.answer(second)).result is None
            assert not bench.cache._background

    asyncio.run(main())


def test_who_waits_too_long_computes_without_storing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(result_cache, "LONGEST_WAIT", 0.05)

    async def main() -> None:
        async with opened(tmp_path) as bench:
            first, second = run_of(20), run_of(30)
            assert (await bench.look_up(first)).result is None
            assert (await bench.look_up(second)).result is None
            await bench.make(second, b"value")
            assert bench.backend.entries == {}
            await bench.make(first, b"value")
            assert len(bench.backend.entries) == 1

    asyncio.run(main())


def test_stopped_lookups_say_nothing_and_leave_nothing(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            made = run_of(20)
            assert (await bench.look_up(made)).result is None
            await bench.make(made, BIG)
            for turns in range(12):
                run = run_of(40 + turns)
                bench.cache.look_up(run)
                for _ in range(turns):
                    await asyncio.sleep(0)
                if not bench.events:
                    bench.cache.stop(run.key)
                await asyncio.sleep(0.05)
                await bench.until(lambda: bench.events or len(bench.store) == 1)
                if bench.events:
                    bench.store.delete([(1, number) for number in run.outputs])
                bench.events.clear()
            assert bench.backend.taken == set()

    asyncio.run(main())


@pytest.mark.parametrize(
    "damage",
    [lambda entry: entry[:-1], lambda entry: entry[:-1] + b"?", lambda entry: b"", lambda entry: b"garbage" * 100],
)
def test_damaged_entries_are_removed_and_made_again(tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        async with opened(tmp_path, secret=b"s" * 32) as bench:
            first, second, third = run_of(20), run_of(30), run_of(40)
            assert (await bench.look_up(first)).result is None
            await bench.make(first, b"value")
            ((key, entry),) = bench.backend.entries.items()
            bench.backend.entries[key] = damage(entry)
            assert (await bench.look_up(second)).result is None
            await bench.make(second, b"value")
            assert bench.backend.entries == {key: entry}
            assert (await bench.look_up(third)).result is not None

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    (record,) = caplog.records
    assert "entry of the result cache is refused and removed" in record.getMessage().lower()


def test_entries_of_strangers_are_refused(tmp_path: Path):
    async def main() -> None:
        backend = MemoryBackend()
        async with opened(tmp_path / "a", backend, b"t" * 32) as bench:
            run = run_of(20)
            assert (await bench.look_up(run)).result is None
            await bench.make(run, b"theirs")
        async with opened(tmp_path / "b", backend, b"o" * 32) as bench:
            assert (await bench.look_up(run)).result is None

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    asyncio.run(main())


def test_an_entry_with_another_number_of_outputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(result_cache, "result_key", lambda parts: b"k" * 32)

    async def main() -> None:
        async with opened(tmp_path) as bench:
            run, other = run_of(20), run_of(30, outputs=2)
            assert (await bench.look_up(run)).result is None
            await bench.make(run, b"value")
            assert (await bench.look_up(other)).result is None

    asyncio.run(main())


def test_a_cache_that_fails_is_left_alone_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            bench.backend.trouble = CacheError("it is down")
            for number in range(5):
                assert (await bench.look_up(run_of(20 + number))).result is None
            assert bench.backend.asked == 1
            bench.backend.trouble = None
            bench.cache._off_until = 0.0
            assert (await bench.look_up(run_of(40))).result is None
            assert bench.backend.asked == 2

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    (record,) = caplog.records
    assert record.getMessage() == "The result cache fails, tasks run without it: it is down"


def test_a_cache_that_does_not_answer_costs_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(result_cache, "ASK_SECONDS", 0.05)

    async def main() -> None:
        async with opened(tmp_path) as bench:
            bench.backend.hangs = True
            assert (await bench.look_up(run_of(20))).result is None
            assert (await bench.look_up(run_of(30))).result is None
            assert bench.backend.asked == 1

    asyncio.run(main())


def test_a_result_that_cannot_be_stored_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of(20)
            assert (await bench.look_up(run)).result is None
            bench.backend.trouble = CacheError("disk full")
            await bench.make(run, b"value")
            assert len(bench.store) == 1

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "The result cache fails, tasks run without it: disk full"
    ]


def test_what_is_being_stored_is_stored_before_the_end(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of(20)
            assert (await bench.look_up(run)).result is None
            bench.store.put((1, 1020), b"value")
            bench.cache.keep(run.key, [(5, None)])
            await bench.cache.close()
            assert len(bench.backend.entries) == 1

    asyncio.run(main())


def test_a_full_store_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            run = run_of(20, outputs=2)
            assert (await bench.look_up(run)).result is None
            await bench.make(run, b"small", BIG)
            staged = result_cache.stage_output

            def full(store: Store, output: Any, limit: int) -> Any:
                if len(output.data) > 100:
                    raise OSError(28, "No space left on device")
                return staged(store, output, limit)

            monkeypatch.setattr(result_cache, "stage_output", full)
            assert (await bench.look_up(run_of(30, outputs=2))).result is None
            assert len(bench.store) == 2

    asyncio.run(main())


def test_a_cache_that_cannot_be_opened_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        async with opened(tmp_path, CacheError("no key file")) as bench:
            for number in (20, 30):
                assert (await bench.look_up(run_of(number))).result is None

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    (record,) = caplog.records
    assert record.getMessage().endswith("cannot be used by this worker, its tasks run without: no key file")


def test_without_a_cache_nothing_is_looked_up(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            assert (await bench.look_up(run_of(20))).result is None
            bench.cache.use({})
            await bench.settle()
            assert bench.backend.closed
            bench.cache.look_up(run_of(30))
            assert bench.events == [LookedUp((1, 30, 0), None)]


def test_the_cache_of_another_server_takes_the_place(tmp_path: Path):
    async def main() -> None:
        async with opened(tmp_path) as bench:
            bench.cache.use({})
            bench.cache.use(TOLD)  # before the first one was open
            assert (await bench.look_up(run_of(20))).result is None
            bench.cache.use(dict(TOLD))
            assert (await bench.look_up(run_of(30, cache="text"))).result is None
            assert bench.backend.asked == 2

    asyncio.run(main())


def test_the_directory_backend_does_it_too(tmp_path: Path):
    async def main() -> None:
        with ThreadPoolExecutor(2) as threads:
            async with opened(tmp_path, DirectoryBackend(tmp_path / "cache", 1 << 20, threads)) as bench:
                first, second = run_of(20), run_of(30)
                assert (await bench.look_up(first)).result is None
                await bench.make(first, b"value")
                assert (await bench.look_up(second)).result is not None

    asyncio.run(main())
