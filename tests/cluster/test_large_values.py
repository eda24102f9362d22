"""Large values through real processes: mapped by the client, their memory taken again, never under somebody's eyes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rain.client import Client, LocalCluster, aio, delayed, gather, remote

MB = 1 << 20
SIZE = 8 * MB


def filled(letter: int, size: int = SIZE) -> Any:
    import numpy

    return numpy.full(size, letter, dtype=numpy.uint8)


def letters(array: Any) -> list[int]:
    """What is in an array, looked at all of it."""
    import numpy

    return [int(value) for value in numpy.unique(array)]


make = delayed(filled)
look = delayed(letters)


def spare_files(cluster: LocalCluster) -> list[Path]:
    """In all directories of this user: the test is the only one to make values of this size."""
    return [
        path
        for path in Path("/dev/shm").glob(f"rain-{os.geteuid()}-*/spare/[0-9]*")
        if path.name.partition(".")[0].startswith(str(SIZE)[:4])
    ]


def mapped_files() -> list[str]:
    """Files of stores that this process has mapped."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/rain-" in line]


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_client_maps_what_a_worker_here_has(client: Client) -> None:
    with client.new_session() as session:
        task = make(1)
        session.submit()
        array = task.result()
        assert mapped_files()
        assert letters(array) == [1]
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2
    assert letters(array) == [1]
    del array
    assert mapped_files() == []


def test_a_value_that_somebody_has_keeps_its_bytes(cluster: LocalCluster, client: Client) -> None:
    held: list[Any] = []
    with client.new_session() as session:
        for letter in range(1, 7):
            task = make(letter)
            seen = look(task)
            session.submit()
            assert seen.result() == [letter]
            if letter % 2:
                held.append((letter, task.result()))
            task.output.unkeep()
            session.wait_all()
        until(lambda: spare_files(cluster))
        for letter in range(7, 10):
            task = make(letter)
            session.submit()
            assert letters(task.result()) == [letter]
            task.output.unkeep()
    assert [letters(array) for _, array in held] == [[letter] for letter, _ in held]


def test_functions_that_keep_an_input_keep_its_bytes(client: Client) -> None:
    @delayed
    def keep(array: Any) -> int:
        import builtins

        builtins.kept = array  # type: ignore[attr-defined]
        return os.getpid()

    @delayed
    def kept(process: int) -> list[int] | None:
        import builtins

        import numpy

        array = getattr(builtins, "kept", None)
        return None if array is None else [int(value) for value in numpy.unique(array)]

    with client.new_session() as session:
        first = make(1)
        keeper = keep(first)
        session.submit()
        process = keeper.result()
        first.output.unkeep()
        for letter in range(2, 6):
            task = make(letter)
            session.submit()
            session.wait(task)
            task.output.unkeep()
            time.sleep(0.2)
        found = [kept(process) for _ in range(4)]
        session.submit()
        assert {tuple(value) for task in found if (value := task.result()) is not None} == {(1,)}


async def test_the_asyncio_client_maps_too(cluster: LocalCluster) -> None:
    opening = aio.create_client(cluster.address, access_file=cluster.access_file)
    async with opening as client, client.new_session() as session:
        with session.bind_only():
            task = make(3)
        array = await task
        assert mapped_files()
        assert letters(array) == [3]


def test_fetching_into_a_file(client: Client, tmp_path: Path) -> None:
    @remote()
    def content(ctx: Any) -> bytes:
        return b"z" * SIZE

    with client.new_session() as session:
        task = content()
        task.output.keep()
        session.submit()
        path = tmp_path / "value"
        task.output.fetch(to=path)
        assert path.read_bytes() == b"z" * SIZE


def test_bytes_come_as_bytes(client: Client) -> None:
    @remote(auto_load=True, auto_encode="pickle5")
    def repeat(ctx: Any, value: Any) -> Any:
        return type(value)(value[:1]) * SIZE

    with client.new_session():
        tasks = [repeat(value) for value in (b"ab", bytearray(b"cd"))]
        again = [repeat(task) for task in tasks]
        results = gather([*tasks, *again])
    assert results == [b"a" * SIZE, bytearray(b"c") * SIZE] * 2
    assert [type(value) for value in results] == [bytes, bytearray] * 2
    results[1][0] = 5  # its own


def test_programs_of_tasks_do_not_inherit_how_memory_is_allocated(client: Client) -> None:
    @delayed
    def variable() -> tuple[str | None, str]:
        script = "import os; print(os.environ.get('GLIBC_TUNABLES'))"
        text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        return os.environ.get("GLIBC_TUNABLES"), text.strip()

    with client.new_session() as session:
        task = variable()
        session.submit()
        assert task.result() == (None, "None")


def test_executors_keep_the_memory_in_which_values_are_made(client: Client) -> None:
    """Else many a value costs page faults, or a large page that the kernel has to clear."""

    @delayed
    def faults() -> int:
        import resource

        def fill() -> int:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            value = bytes((1,)) * MB
            assert value
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        for _ in range(3):  # malloc learns that values of this size come and go
            fill()
        found, kept = 0, []
        for _ in range(16):
            kept.append(bytes((1,)) * (MB // 8))  # the next ones lie a bit further back
            fill()
            found += sum(fill() for _ in range(10))
        return found

    with client.new_session():
        assert faults().result() < 20
