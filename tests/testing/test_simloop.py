import asyncio

import pytest

from rain.testing.simloop import DeadlockError, LivelockError, SimLoop, SimulationError, current_process


def run_trace(seed: int) -> tuple[list[str], float]:
    loop = SimLoop(seed)
    order: list[str] = []

    async def step(name: str) -> None:
        for number in range(3):
            await asyncio.sleep(1)
            order.append(f"{name}{number}")

    async def main() -> None:
        await asyncio.gather(*(step(name) for name in "abcd"))

    loop.run_until_complete(main())
    now = loop.time()
    loop.shutdown()
    return order, now


def test_time_is_virtual_and_the_seed_decides_the_order() -> None:
    first, now = run_trace(1)
    assert now == 3.0
    assert run_trace(1) == (first, now)
    assert any(run_trace(seed)[0] != first for seed in range(2, 6))
    assert {text[1] for text in first[:4]} == {"0"}


def test_ordinary_asyncio_code_runs() -> None:
    loop = SimLoop(3)

    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        async with asyncio.TaskGroup() as group:

            async def produce() -> None:
                for number in range(5):
                    await queue.put(number)

            group.create_task(produce())
            got = [await queue.get() for _ in range(5)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                await asyncio.Event().wait()
        assert await loop.run_in_executor(None, sum, [1, 2]) == 3
        return got

    assert loop.run_until_complete(main()) == [0, 1, 2, 3, 4]
    loop.shutdown()


def test_deadlock_names_the_waiting_tasks() -> None:
    loop = SimLoop(0)

    async def main() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="stuck here")

    with pytest.raises(DeadlockError, match="stuck here"):
        loop.run_until_complete(main())
    loop.shutdown()


def test_livelock_is_found() -> None:
    loop = SimLoop(0, time_limit=10)

    def beat() -> None:
        loop.call_later(1, beat)

    async def main() -> None:
        beat()
        await asyncio.Event().wait()

    with pytest.raises(LivelockError, match="not done after 10 s"):
        loop.run_until_complete(main())
    loop.shutdown()


def test_unhandled_exception_of_a_callback_ends_the_run() -> None:
    loop = SimLoop(0)

    def fail() -> None:
        raise ValueError("boom")

    async def main() -> None:
        loop.call_later(1, fail)
        await asyncio.sleep(5)

    with pytest.raises(SimulationError, match="boom"):
        loop.run_until_complete(main())
    loop.shutdown()


def test_killed_process_does_nothing_more() -> None:
    loop = SimLoop(0)
    beats: list[float] = []

    async def beat() -> None:
        assert current_process() is process
        try:
            while True:
                beats.append(loop.time())
                await asyncio.create_task(asyncio.sleep(1))
        finally:
            beats.append(-1)

    process = loop.process("worker")

    async def main() -> None:
        process.spawn(beat())
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(5)

    loop.run_until_complete(main())
    assert beats == [0, 1, 2]
    loop.shutdown()


def test_paused_process_catches_up_after_resume() -> None:
    loop = SimLoop(0)
    seen: list[float] = []

    async def main() -> None:
        process = loop.process("worker")

        async def sleeper() -> None:
            await asyncio.sleep(1)
            seen.append(loop.time())

        task = process.spawn(sleeper())
        process.call_soon(seen.append, 0.0)
        await asyncio.sleep(0.5)
        process.pause()
        await asyncio.sleep(9.5)
        assert seen == [0.0]
        process.resume()
        await task

    loop.run_until_complete(main())
    assert seen == [0.0, 10.0]
    loop.shutdown()
