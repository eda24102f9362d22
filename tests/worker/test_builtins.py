"""Built-in tasks on a real loop and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rain.common.failure import Failure
from rain.worker.builtins import OPERATIONS, Builtins
from rain.worker.core.actions import Run, RunInput
from rain.worker.core.events import BuiltinStopped, RunFailed, RunResult, RunsEnded, StoreFailed, WorkerEvent
from rain.worker.store import Store
from rain.worker.task_logs import TaskLogs

KEY = (1, 20, 0)
OUTPUT = (1, 20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path), memory_budget=8 << 20)
    yield store
    store.close()
    assert list(tmp_path.iterdir()) == []


class Bench:
    """Built-ins with their events."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.events: list[WorkerEvent] = []
        self.threads = ThreadPoolExecutor(1)
        self._reported = asyncio.Event()
        self.builtins = Builtins(
            loop=asyncio.get_running_loop(),
            store=store,
            task_logs=TaskLogs(f"{store.data_directory}-log"),
            report=self._report,
            wall_clock=lambda: 1000.5,
            sandboxes="/nonexistent",
            threads=self.threads,
        )

    def _report(self, event: WorkerEvent) -> None:
        self.events.append(event)
        self._reported.set()

    async def end(self) -> RunResult | RunFailed:
        """The end of the only job."""
        await asyncio.wait_for(self._reported.wait(), 10)
        event = self.events.pop()
        assert isinstance(event, RunsEnded)
        assert event.executor == 0
        (result,) = event.results
        return result

    async def failure(self) -> Failure:
        end = await self.end()
        assert isinstance(end, RunFailed)
        return end.failure


def run(task_type: str, inputs: list[RunInput], *, config: Any = None, outputs: tuple[int, ...] = (20,)) -> Run:
    args = None if config is None else msgpack.packb(config)
    return Run(KEY, 0, {"task_type": task_type}, args, tuple(inputs), outputs)


def source(number: int, *, spec: dict[str, Any] | None = None, info: dict[str, Any] | None = None) -> RunInput:
    packed = [None if part is None else msgpack.packb(part) for part in (spec, info)]
    return RunInput((1, number), packed[0], packed[1], False)


@pytest.mark.parametrize("task_type", ["buildin/concat", "builtin/concat", "!concat"])
async def test_small_blobs_are_joined_at_once(store: Store, task_type: str) -> None:
    bench = Bench(store)
    store.put((1, 10), b"ab")
    store.put((1, 11), b"c")
    bench.builtins.run(run(task_type, [source(10), source(11), source(10)]))
    (event,) = bench.events
    assert event == RunsEnded(0, [RunResult(KEY, 1000.5, event.results[0].duration, None, [(5, None, b"abcab")])], [])  # type: ignore[union-attr]
    assert store.get(OUTPUT) == b"abcab"


async def test_joining_nothing_gives_an_empty_blob(store: Store) -> None:
    bench = Bench(store)
    bench.builtins.run(run("buildin/concat", []))
    end = await bench.end()
    assert isinstance(end, RunResult)
    assert end.outputs == [(0, None, b"")]


@pytest.mark.parametrize("size", [40_000, 600_000, 5_000_000])
async def test_large_blobs_are_joined_in_files(store: Store, size: int) -> None:
    bench = Bench(store)
    store.put((1, 10), b"a" * size)
    store.put((1, 11), b"b" * size)
    bench.builtins.run(run("buildin/concat", [source(10), source(11)]))
    end = await bench.end()
    assert isinstance(end, RunResult)
    assert end.outputs == [(2 * size, None, None)]
    path = store.get(OUTPUT)
    assert isinstance(path, Path)
    assert path.read_bytes() == b"a" * size + b"b" * size


async def test_directories_cannot_be_joined(store: Store) -> None:
    bench = Bench(store)
    store.put((1, 10), b"ab")
    bench.builtins.run(run("buildin/concat", [source(10), source(10, spec={"data_type": "dir"})]))
    failure = await bench.failure()
    assert "input 1 is a directory" in failure.message
    assert (failure.session, failure.task, failure.retriable) == (1, 20, False)


async def test_a_stopped_join_leaves_nothing(store: Store) -> None:
    bench = Bench(store)
    store.put((1, 10), b"a" * 2_000_000)
    bench.builtins.run(run("buildin/concat", [source(10), source(10)]))
    bench.builtins.stop(KEY)
    await asyncio.to_thread(bench.threads.shutdown)
    for _ in range(3):
        await asyncio.sleep(0)
    assert store.memory_used == 2_000_000
    assert bench.events == []
    assert OUTPUT not in store


@pytest.mark.parametrize(
    ("task_type", "config"),
    [("buildin/sleep", 0.05), ("builtin/sleep", 0.05), ("!sleep", 50), ("buildin/sleep", 0), ("!sleep", 0)],
)
async def test_sleep_hands_the_value_on(store: Store, task_type: str, config: float) -> None:
    bench = Bench(store)
    store.put((1, 10), b"value")
    info = {"content_type": "pickle", "user": {"a": 1}}
    bench.builtins.run(run(task_type, [source(10, info=info)], config=config))
    assert bench.events == []
    end = await bench.end()
    assert isinstance(end, RunResult)
    assert end.outputs == [(5, msgpack.packb(info), b"value")]
    assert end.start == 1000.5
    if config:
        assert end.duration >= 0.049


async def test_sleep_shares_files_and_takes_the_content_type_from_the_spec(store: Store) -> None:
    bench = Bench(store)
    store.put((1, 10), b"v" * 100_000)
    shared = run("buildin/sleep", [source(10, spec={"content_type": "text", "label": "x"})])
    shared.template_data["config"] = 0.0
    bench.builtins.run(shared)
    end = await bench.end()
    assert isinstance(end, RunResult)
    assert end.outputs == [(100_000, msgpack.packb({"content_type": "text"}), None)]
    assert store.get(OUTPUT) == store.get((1, 10))


@pytest.mark.parametrize(
    ("task_type", "config"),
    [
        ("buildin/sleep", -0.1),
        ("buildin/sleep", "1"),
        ("buildin/sleep", None),
        ("buildin/sleep", True),
        ("buildin/sleep", float("nan")),
        ("!sleep", 0.5),
        ("!sleep", -1),
    ],
)
async def test_sleep_refuses_what_is_no_duration(store: Store, task_type: str, config: Any) -> None:
    bench = Bench(store)
    store.put((1, 10), b"value")
    bench.builtins.run(run(task_type, [source(10)], config=config))
    failure = await bench.failure()
    assert "not negative" in failure.message
    assert repr(config) in failure.message


async def test_stopped_sleeps_are_never_heard_of(store: Store) -> None:
    bench = Bench(store)
    store.put((1, 10), b"value")
    bench.builtins.run(run("buildin/sleep", [source(10)], config=0.01))
    await bench.builtins.close()
    await asyncio.sleep(0.03)
    assert bench.events == []
    assert OUTPUT not in store


async def test_a_stop_with_grace_is_answered(store: Store) -> None:
    bench = Bench(store)
    store.put((1, 10), b"value")
    bench.builtins.run(run("buildin/sleep", [source(10)], config=10))
    bench.builtins.stop(KEY, 2.0)
    assert bench.events == [BuiltinStopped(KEY)]
    bench.builtins.stop(KEY, 2.0)
    assert bench.events == 2 * [BuiltinStopped(KEY)]
    bench.builtins.stop(KEY)
    await bench.builtins.close()
    assert len(bench.events) == 2


async def test_unknown_types_fail_with_their_name(store: Store) -> None:
    bench = Bench(store)
    bench.builtins.run(run("buildin/juggle", []))
    failure = await bench.failure()
    assert "'buildin/juggle'" in failure.message
    assert not failure.retriable


@pytest.mark.parametrize("task_type", sorted(name for name, operation in OPERATIONS.items() if operation.outputs == 1))
async def test_a_wrong_number_of_outputs_fails(store: Store, task_type: str) -> None:
    bench = Bench(store)
    store.put((1, 10), b"value")
    bench.builtins.run(run(task_type, [source(10)], config=0, outputs=(20, 21)))
    assert "2 outputs" in (await bench.failure()).message


@pytest.mark.parametrize("damage", ["missing", "damaged"])
async def test_a_lost_input_is_told_before_the_run(store: Store, damage: str) -> None:
    bench = Bench(store)
    if damage == "damaged":
        store.put((1, 10), b"v" * 100_000)
        path = store.get((1, 10))
        assert isinstance(path, Path)
        path.chmod(0o600)
        path.write_bytes(b"")
    bench.builtins.run(run("buildin/concat", [source(10)]))
    lost, ended = bench.events
    assert isinstance(lost, StoreFailed)
    assert lost.object == (1, 10)
    assert isinstance(ended, RunsEnded)
    assert isinstance(ended.results[0], RunFailed)
