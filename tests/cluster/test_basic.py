"""The whole way through real processes: values, functions, retention, limits of size."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import pytest

from rain.client import (
    Client,
    LocalCluster,
    RainException,
    RainTimeoutError,
    blob,
    pickled,
    tasks,
)
from rain.client.rpc import common
from tests.cluster import functions as f

MB = 1 << 20


def test_concat_of_two_blobs(client: Client) -> None:
    with client.new_session() as session:
        task = tasks.concat((blob("Hello "), blob("world!")))
        task.output.keep()
        session.submit()
        assert task.output.fetch().get_bytes() == b"Hello world!"
        task.wait()
        assert task.state == common.TaskState.finished


def test_concat_of_large_pieces(client: Client) -> None:
    pieces = [bytes([n]) * (10 * MB) for n in range(3)]
    with client.new_session() as session:
        task = tasks.concat([blob(piece) for piece in pieces])
        task.output.keep()
        session.submit()
        value = task.output.fetch().get_bytes()
    assert hashlib.sha256(value).digest() == hashlib.sha256(b"".join(pieces)).digest()


def test_large_constants_come_back(client: Client) -> None:
    value = bytes(range(256)) * (20 * MB // 256)
    with client.new_session() as session:
        obj = blob(value)
        obj.keep()
        session.submit()
        assert obj.fetch().get_bytes() == value


def test_python_functions_share_data_with_each_other(client: Client) -> None:
    with client.new_session() as session:
        parts = [f.number(value) for value in range(20)]
        result = f.total(parts)
        result.output.keep()
        session.submit()
        assert result.output.fetch().load() == 190


def test_large_results_go_through_the_store(client: Client) -> None:
    with client.new_session() as session:
        parts = [f.big(3 * MB, fill) for fill in range(4)]
        joined = tasks.concat([part.output for part in parts])
        joined.output.keep()
        session.submit()
        value = joined.output.fetch().get_bytes()
        assert len(value) == 12 * MB
        assert [value[3 * MB * n] for n in range(4)] == [0, 1, 2, 3]


def test_data_moves_between_workers(leak_check: None) -> None:
    with LocalCluster([1, 1], timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        first = [f.big(2 * MB, fill) for fill in range(8)]
        joined = [tasks.concat([one.output, other.output]) for one, other in zip(first[:4], first[4:], strict=True)]
        for task in joined:
            task.output.keep()
        session.submit()
        for low, task in enumerate(joined):
            value = task.output.fetch().get_bytes()
            assert (value[0], value[-1], len(value)) == (low, low + 4, 4 * MB)


def test_chain_of_360_tasks_over_two_submits(client: Client) -> None:
    with client.new_session() as session:
        obj = blob("x")
        for step in range(360):
            task = tasks.concat([obj])
            obj = task.output
            if step == 179:
                obj.keep()
                session.submit()
        obj.keep()
        session.submit()
        assert obj.fetch().get_bytes() == b"x"


def test_diamond(client: Client) -> None:
    with client.new_session() as session:
        root = tasks.concat([blob("ab")])
        layers = [tasks.concat([tasks.concat([tasks.concat([root.output]).output]).output]) for _ in range(64)]
        end = tasks.concat([layer.output for layer in layers])
        end.output.keep()
        session.submit()
        session.wait_all()
        assert end.output.fetch().get_bytes() == b"ab" * 64


def test_later_submits_use_kept_results(client: Client) -> None:
    with client.new_session() as session:
        first = f.number(3)
        first.output.keep()
        session.submit()
        second = f.total([first, first])
        second.output.keep()
        session.submit()
        assert second.output.fetch().load() == 6
        first.output.unkeep()
        with pytest.raises(RainException):
            first.output.fetch()


def test_a_function_is_one_object_in_its_executor(leak_check: None) -> None:
    with LocalCluster(1, cpus=1, timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        made = [f.pid() for _ in range(20)]
        for task in made:
            task.output.keep()
        session.submit()
        assert len({task.output.fetch().get_bytes() for task in made}) == 1


def test_timeout_leaves_the_work_going(client: Client) -> None:
    with client.new_session() as session:
        task = f.work(0.5)
        task.output.keep()
        session.submit()
        with pytest.raises(RainTimeoutError):
            task.wait(timeout=0.05)
        with pytest.raises(RainTimeoutError):
            task.output.fetch(timeout=0)
        assert task.output.fetch().get_bytes() == b"done"


def test_many_threads_use_one_client(client: Client) -> None:
    results: dict[int, int] = {}

    def run(base: int) -> None:
        with client.new_session() as session:
            parts = [f.number(base + n, session=session) for n in range(10)]
            result = f.total(parts, session=session)
            result.output.keep()
            session.submit()
            results[base] = result.output.fetch().load()

    threads = [threading.Thread(target=run, args=(base,)) for base in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {base: sum(range(base, base + 10)) for base in range(8)}


def test_update_tells_what_happened(client: Client) -> None:
    with client.new_session() as session:
        task = f.add(1, 2)
        value = pickled({"a": 1})
        value.keep()
        session.submit()
        task.wait()
        assert task.info is None
        client.update([task, value])
        assert task.info is not None
        assert task.info.attempts == 1
        assert task.info.worker.startswith("127.0.0.1:")
        assert value.fetch().load() == {"a": 1}


def test_server_info_has_both_vocabularies(client: Client) -> None:
    info = client.get_server_info()
    assert info["workers"] == info["governors"]
    (entry,) = info["workers"]
    assert entry["worker_id"] == entry["governor_id"]
    assert entry["resources"]["cpus"] == 2


def test_fetch_streams_to_a_file(client: Client, tmp_path: object) -> None:
    target = f"{tmp_path}/value"
    with client.new_session() as session:
        task = f.big(5 * MB, 3)
        task.output.keep()
        session.submit()
        instance = task.output.fetch(to=target)
    with open(target, "rb") as file:
        assert file.read() == bytes([3]) * (5 * MB)
    assert instance.size == 5 * MB


async def test_inside_a_running_loop(cluster: LocalCluster) -> None:
    """A notebook runs cells inside an asyncio loop: the synchronous client works there and leaves the loop alone."""
    beats = asyncio.create_task(asyncio.sleep(0.01))
    with cluster.client() as client, client.new_session():
        task = f.add(20, 22)
        task.output.keep()
        task.session.submit()
        assert task.output.fetch().get_bytes() == b"42"
    await beats


def test_hundred_thousand_tasks_in_one_submit(client: Client) -> None:
    with client.new_session() as session:
        made = [f.add(n, n) for n in range(100_000)]
        made[-1].output.keep()
        session.submit()
        session.wait_all()
        assert made[-1].output.fetch().get_bytes() == b"199998"


def test_equal_large_constants_are_uploaded_once(client: Client) -> None:
    value = bytes(range(256)) * (3 * MB // 256)
    with client.new_session() as session:
        made = [blob(value, label=f"copy {n}") for n in range(5)]
        joined = tasks.concat(made)
        for obj in (made[1], made[4], joined.output):
            obj.keep()
        session.submit()
        assert joined.output.fetch().get_bytes() == value * 5
        again = blob(value)
        again.keep()
        session.submit()
        made[1].unkeep()
        assert again.fetch().get_bytes() == made[4].fetch().get_bytes() == value
