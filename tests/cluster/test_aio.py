"""The asyncio client with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rain.client import (
    AuthenticationError,
    Client,
    LocalCluster,
    RainConnectionError,
    RainException,
    RainTimeoutError,
    SessionException,
    TaskCancelled,
    TaskException,
    aio,
    blob,
    delayed,
    directory,
    tasks,
)
from rain.client.aio import AsyncClient, AsyncSession
from rain.common.states import DataObjectState, TaskState
from rain.net import loopdata


def pause(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def fail(text: str) -> None:
    raise ValueError(text)


def square(value: int) -> int:
    return value * value


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a loop of its own, which may leave neither asyncio tasks nor threads."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            threads = set(threading.enumerate())
            await test(*args, **kwargs)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert set(threading.enumerate()) <= threads

        asyncio.run(main())

    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def connect(cluster: LocalCluster, **options: Any) -> aio.Opening[AsyncClient]:
    return aio.create_client(cluster.address, access_file=cluster.access_file, **options)


@contextlib.asynccontextmanager
async def counted_turns() -> AsyncIterator[list[None]]:
    """Turns that others get in the loop meanwhile, at most one in a millisecond."""
    turns: list[None] = []

    async def count() -> None:
        while True:
            await asyncio.sleep(0.001)
            turns.append(None)

    counting = asyncio.create_task(count())
    yield turns
    counting.cancel()
    await asyncio.wait([counting])


async def until(condition: Callable[[], Awaitable[Any]], limit: float = 30.0) -> None:
    async with asyncio.timeout(limit):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


# --- clients -------------------------------------------------------------------------------------------


def test_create_client(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        client = await connect(cluster, timeout="20 s", connection_timeout=None)
        assert isinstance(client, AsyncClient)
        assert (client.address, client.cluster) == (cluster.address, None)
        assert len((await client.get_server_info())["workers"]) == 1
        await client.close()
        await client.close()
        async with connect(cluster) as client:
            assert (await client.get_server_info())["server"]["address"] == cluster.address
        with pytest.raises(RainException, match="closed"):
            await client.get_server_info()
        host, port = cluster.address.split(":")
        async with aio.create_client("localhost", port, access_file=cluster.access_file):
            pass
        async with (
            aio.create_client(host, int(port), token=_token(cluster)),
            aio.create_client(access_file=cluster.access_file),
        ):
            pass

    main()


def _token(cluster: LocalCluster) -> str:
    import json

    return str(json.loads(Path(cluster.access_file).read_text())["token"])


def test_clients_that_cannot_connect(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        with pytest.raises(AuthenticationError, match="token"):
            await aio.create_client(cluster.address, token="0" * 64)
        with pytest.raises(RainConnectionError, match="Connection refused"):
            await aio.create_client("127.0.0.1:1", token="0" * 64)
        with pytest.raises(ValueError, match="port"):
            await aio.create_client("127.0.0.1:1", 2)
        with pytest.raises(RainException, match="ncrypted"):
            await aio.create_client(cluster.address, ssl=True)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(RainTimeoutError, match=address):
                await aio.create_client(address, token="0" * 64, connection_timeout=0.1)

    main()


def test_an_embedded_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAIN_ADDRESS", "RAIN_ACCESS_FILE"):
        monkeypatch.delenv(name, raising=False)

    @in_loop
    async def main() -> None:
        async with counted_turns() as turns:
            client = await aio.create_client()
        assert len(turns) > 10
        async with client.new_session():
            assert isinstance(client.cluster, LocalCluster)
            assert client.cluster.address == client.address
            assert await delayed(square)(7) == 49
        async with counted_turns() as turns:
            await client.close()
        assert len(turns) > 10
        opening = asyncio.ensure_future(aio.create_client())
        await asyncio.sleep(0.1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    main()


# --- one graph, all calls ------------------------------------------------------------------------------


def test_a_graph(cluster: LocalCluster, tmp_path: Path) -> None:
    @in_loop
    async def main() -> None:
        async with connect(cluster) as client:
            async with client.new_session("graph") as session:
                joined = tasks.concat((blob("Hello "), blob("world")))
                packed = tasks.make_directory({"a/b": joined})
                joined.output.keep()
                packed.output.keep()
                await session.submit()
                assert joined.state is TaskState.notAssigned
                finished, objects = await session.wait_some([joined], [joined.output])
                assert finished or objects
                await session.wait([joined, packed])
                await session.wait_all()
                assert packed.state is TaskState.finished
                assert joined.output.state is DataObjectState.finished
                assert (await session.fetch(joined)).get_str() == "Hello world"
                assert [one.get_str() for one in await joined.fetch_outputs()] == ["Hello world"]
                await packed.output.fetch(to=tmp_path / "tree")
                assert (tmp_path / "tree/a/b").read_text() == "Hello world"
                await client.update([joined, packed.output])
                assert joined.info is not None
                assert joined.info.attempts == 1
                assert (await session.counts()) == {"finished": 2}
                assert await joined.done()
                assert await joined.exception() is None
                await session.unkeep(joined.output)
                with pytest.raises(RainException, match="not kept"):
                    await session.fetch(joined)
                assert await session.cancel() == 0
            assert not session.active
            with pytest.raises(SessionException):
                await session.submit()
            info = await client.get_server_info()
            assert info["server"]["sessions"] == 0

    main()


def test_results(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        async with connect(cluster) as client, client.new_session() as session:
            made = [delayed(square)(n) for n in range(50)]
            assert await asyncio.gather(*made) == [n * n for n in range(50)]
            assert await made[3].result() == 9
            array = session.map(square, range(2000))
            assert await array.result() == [n * n for n in range(2000)]
            assert await array.counts() == {"finished": 2000}
            pauses = session.map(pause, [1.0, 0.0], "ab"), session.map(pause, [1.0, 0.0], "ab")
            assert [value async for value in pauses[0].iter_results(ordered=False)] == ["b", "a"]
            assert [value async for value in pauses[1].iter_results()] == ["a", "b"]
            found = await aio.gather({"one": made[2], "array": session.map(square, range(3)), "plain": [1]})
            assert found == {"one": 4, "array": [0, 1, 4], "plain": [1]}
            slow, quick = delayed(pause)(1.0, "slow"), delayed(pause)(0.0, "quick")
            assert [await task.result() async for task in aio.as_completed([slow, quick])] == ["quick", "slow"]

    main()


def test_large_values_do_not_block_the_loop(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 100 << 20
    monkeypatch.setattr(loopdata, "map_place", lambda place, size: None)  # as if it were another machine

    @in_loop
    async def main() -> None:
        async with connect(cluster) as client, client.new_session():
            task = delayed(bytes)(size)
            constant = blob(os.urandom(3 << 20))
            constant.keep()
            await task.exception()
            async with counted_turns() as turns:
                value = await task.output.fetch()
            assert len(turns) > 20
            async with counted_turns() as turns:
                await task.output.fetch(to=tmp_path / "value")
            assert len(turns) > 20
            assert value.size == size == (tmp_path / "value").stat().st_size
            assert (await constant.fetch()).get_bytes() == constant.data

    main()


def test_failures(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        async with connect(cluster) as client:
            async with client.new_session() as session:
                bad = delayed(fail)("no such luck")
                for call in (bad.result, session.wait_all, session.submit, lambda: aio.gather([bad])):
                    with pytest.raises(TaskException, match="no such luck") as caught:
                        await call()
                    assert caught.value.task is bad
                assert isinstance(caught.value.cause, ValueError)
                assert isinstance(await bad.exception(), TaskException)
                assert bad.state is TaskState.failed
            async with client.new_session(on_failure="continue") as session:
                bad, good = delayed(fail)("no"), delayed(square)(3)
                after = delayed(square)(bad)
                assert await good == 9
                with pytest.raises(TaskException):
                    await session.wait_all()
                await session.wait_all(check=False)
                assert [one.state for one in (bad, good, after)] == [
                    TaskState.failed,
                    TaskState.finished,
                    TaskState.aborted,
                ]
                first, second = await aio.gather([bad, good], return_exceptions=True)
                assert isinstance(first, TaskException)
                assert second == 9

    main()


def test_cancelling_tasks(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        async with connect(cluster) as client, client.new_session() as session:
            task = delayed(pause)(60)
            more = session.map(pause, [60] * 5)
            await session.submit()
            assert await task.done() is False
            assert await task.cancel() is True
            assert await task.cancel() is False
            with pytest.raises(TaskCancelled):
                await task
            assert await more.cancel() == 5
            assert await session.cancel() == 0
            assert await delayed(square)(2) == 4

    main()


def test_cancelling_coroutines(cluster: LocalCluster) -> None:
    """A call is cancelled after ever more turns of the loop; then everything still works."""

    @in_loop
    async def main() -> None:
        async with connect(cluster) as client, client.new_session() as session:
            known = delayed(square)(5)
            large = delayed(bytes)(3 << 20)
            assert await known == 25
            assert len(await large) == 3 << 20
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: delayed(square)(4).result(),
                lambda: session.map(square, range(100)).result(),
                lambda: aio.gather([delayed(square)(1), large]),
                large.result,
                session.submit,
                session.wait_all,
                known.update,
                client.get_server_info,
                client.new_session,
            ]
            for call in calls:
                for turns in range(12):
                    pending = asyncio.ensure_future(call())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    pending.cancel()
                    await asyncio.wait([pending])
                    if not pending.cancelled() and isinstance(pending.result(), AsyncSession):
                        await pending.result().close()
                assert await delayed(square)(6) == 36
            endless = delayed(pause)(60)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(endless.result(), 0.3)
            assert await endless.done() is False
            assert (await session.counts())["running"] == 1
            assert await endless.cancel()

            async def one_session() -> bool:
                return bool((await client.get_server_info())["server"]["sessions"] == 1)

            await until(one_session)

    main()


def test_timeouts(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        async with connect(cluster) as client, client.new_session() as session:
            task = delayed(pause)(2.5, "late")
            await session.submit()
            for call in (task.wait, task.result, session.wait_all, task.output.fetch):
                for timeout in (0, 0.05):
                    with pytest.raises(RainTimeoutError, match="the work goes on"):
                        await call(timeout=timeout)
            with pytest.raises(RainTimeoutError):
                await aio.gather([task], timeout=0.05)
            assert await task.result(timeout=20) == "late"
            assert await task.result(timeout=0) == "late"

    main()


def test_dropped_results_leave_the_workers(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        async with connect(cluster) as client, client.new_session():

            async def held() -> int:
                return sum(len(entry["objects"]) for entry in (await client.get_server_info())["workers"])

            made = [delayed(bytes)(1000 + n) for n in range(50)]
            await aio.gather(made)
            assert await held() >= 50
            made.clear()
            gc.collect()

            async def gone() -> bool:
                return await held() < 10

            await until(gone)

    main()


# --- many users ----------------------------------------------------------------------------------------


def test_many_asyncio_tasks_use_one_client(cluster: LocalCluster) -> None:
    async def work(client: AsyncClient, n: int) -> int:
        async with client.new_session(f"{n}") as session:
            part = delayed(square)(n)
            total: int = await delayed(sum)([part, 1])
            await session.wait_all()
            return total

    @in_loop
    async def main() -> None:
        async with connect(cluster) as client:
            assert await asyncio.gather(*(work(client, n) for n in range(15))) == [n * n + 1 for n in range(15)]
            async with client.new_session() as session:
                made = [delayed(square)(n) for n in range(20)]
                await asyncio.gather(*(session.submit() for _ in range(5)), *(task.result() for task in made))
                assert await session.counts() == {"finished": 20}

    main()


def test_both_kinds_of_clients_in_one_loop(cluster: LocalCluster) -> None:
    async def main() -> None:
        with Client(cluster.address, access_file=cluster.access_file) as plain:
            async with connect(cluster) as client:
                first, second = plain.new_session(), await client.new_session()
                made = [delayed(pause).options(session=one)(0.1, n) for n, one in enumerate((first, second))]
                assert await aio.gather(made) == [0, 1]
                assert {task async for task in aio.as_completed(made)} == set(made)
                await asyncio.to_thread(first.close)

    asyncio.run(main())


def test_another_loop_is_refused(cluster: LocalCluster) -> None:
    async def start() -> AsyncClient:
        return await connect(cluster)

    async def info(client: AsyncClient) -> None:
        await client.get_server_info()

    with asyncio.Runner() as runner:
        client = runner.run(start())
        with pytest.raises(RainException, match="belongs to the event loop in which it was made"):
            asyncio.run(info(client))
        runner.run(client.close())


def test_a_client_that_nobody_refers_to_is_disconnected(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        client = await connect(cluster)
        session = await client.new_session()
        assert await delayed(square).options(session=session)(3) == 9
        del client, session
        gc.collect()
        async with connect(cluster) as other:

            async def alone() -> bool:
                return bool((await other.get_server_info())["server"]["sessions"] == 0)

            await until(alone)

    main()


# --- the server dies -----------------------------------------------------------------------------------


def test_the_server_dies(cluster: LocalCluster) -> None:
    @in_loop
    async def main() -> None:
        client = await connect(cluster)
        session = await client.new_session()
        task = delayed(pause).options(session=session)(60)
        await session.submit()
        pending = [asyncio.ensure_future(one) for one in (task.wait(), task.result(), session.wait_all())]
        watching = asyncio.ensure_future(_all(aio.as_completed([task])))
        await asyncio.sleep(0.1)
        (server,) = [one for one in cluster._group.processes if one.name == "server"]
        os.kill(server.popen.pid, signal.SIGKILL)
        for one in [*pending, watching]:
            with pytest.raises(RainConnectionError, match=cluster.address):
                async with asyncio.timeout(12):  # before it counts as silent
                    await one
        for call in (session.submit, task.done, client.get_server_info, client.new_session):
            with pytest.raises(RainConnectionError, match=cluster.address):
                await call()
        await session.close()
        await client.close()

    main()


async def _all(things: Any) -> list[Any]:
    return [thing async for thing in things]


def test_directories(cluster: LocalCluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for n in range(20):
        (source / f"{n}").mkdir(parents=True)
        (source / f"{n}/file").write_bytes(os.urandom(100_000))

    @in_loop
    async def main() -> None:
        async with connect(cluster) as client, client.new_session() as session:
            packed = tasks.sleep(0.0, directory(source))
            packed.output.keep()
            await session.submit()
            await packed.output.fetch(to=tmp_path / "fetched")
            with pytest.raises(FileExistsError):
                await packed.output.fetch(to=tmp_path / "fetched")

    main()
    for n in range(20):
        assert (tmp_path / f"fetched/{n}/file").read_bytes() == (source / f"{n}/file").read_bytes()
