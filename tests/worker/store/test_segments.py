"""Memory of values that are gone: what is kept, for whom, and until when."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain.common import spares
from rain.worker.store import Store, segments

KEY, OTHER = (1, 1), (1, 2)
SIZE = 5 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path), memory_budget=64 << 20)
    yield made
    made.close()
    assert made.shared_directory is not None
    assert not os.path.exists(made.shared_directory)


def held(store: Store) -> int:
    assert store._segments is not None
    return store._segments.held()


def inode(store: Store, key: tuple[int, int]) -> int:
    path = store.get(key)
    assert isinstance(path, Path)
    return os.stat(path).st_ino


def test_the_next_value_gets_the_memory_of_the_last(store: Store) -> None:
    store.put(KEY, b"x" * SIZE)
    first = inode(store, KEY)
    store.delete([KEY])
    assert (store.memory_used, held(store)) == (0, SIZE)
    store.put(OTHER, b"y" * (SIZE - 1))
    assert (inode(store, OTHER), held(store)) == (first, 0)
    assert bytes(store.read(OTHER, 0, SIZE)) == b"y" * (SIZE - 1)
    path = store.get(OTHER)
    assert isinstance(path, Path)
    assert os.stat(path).st_mode & 0o777 == 0o400


def test_a_file_that_is_too_small_grows(store: Store) -> None:
    store.put(KEY, b"x" * SIZE)
    first = inode(store, KEY)
    store.delete([KEY])
    store.put(OTHER, b"y" * (SIZE + 1000))
    assert inode(store, OTHER) == first
    assert bytes(store.read(OTHER, 0, 2 * SIZE)) == b"y" * (SIZE + 1000)


@pytest.mark.parametrize("size", [spares.SMALLEST - 1, SIZE * 5])
def test_files_of_very_different_size_are_not_taken(store: Store, size: int) -> None:
    store.put(KEY, b"x" * (SIZE if size > SIZE else spares.SMALLEST))
    store.delete([KEY])
    before = held(store)
    assert before
    store.put(OTHER, b"y" * size)
    assert held(store) == before


def test_nobody_who_reads_a_deleted_value_sees_another(store: Store) -> None:
    store.put(KEY, b"x" * SIZE)
    view = store.read(KEY, 0, SIZE)
    store.delete([KEY])
    store.put(OTHER, b"y" * SIZE)
    assert bytes(view) == b"x" * SIZE
    assert bytes(store.read(OTHER, 0, SIZE)) == b"y" * SIZE
    del view
    store.put(KEY, b"z" * SIZE)  # it waited until nobody had it open
    assert held(store) == 0
    assert bytes(store.read(KEY, 0, SIZE)) == b"z" * SIZE


def test_another_process_that_has_a_value_mapped_keeps_it(store: Store) -> None:
    store.put(KEY, b"x" * SIZE)
    script = (
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "file.close()\n"
        "print('mapped', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(set(mapping[:]), flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(store.get(KEY))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "mapped\n"
        store.delete([KEY])
        for _ in range(2):
            store.put(OTHER, b"y" * SIZE)
            store.delete([OTHER])
        told, _ = reader.communicate("go on\n", timeout=20)
    assert told == "{120}\n"


def test_what_is_opened_in_that_moment_ends_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel sends a signal to who holds a lease on a file that is being opened."""
    real = fcntl.fcntl
    opened: list[int] = []

    def slow(descriptor: int, command: int, argument: int = 0) -> int:
        result = real(descriptor, command, argument)
        if command == fcntl.F_SETLEASE and argument == fcntl.F_WRLCK:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            opened.append(descriptor)
        return result

    monkeypatch.setattr(fcntl, "fcntl", slow)
    store.put(KEY, b"x" * SIZE)
    store.delete([KEY])
    assert opened
    assert held(store) == SIZE


def test_without_leases_nothing_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(22, "Invalid argument")
        return real(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    for number in (1, 2):
        store.put((1, number), b"x" * SIZE)
    store.delete([(1, 1), (1, 2)])
    assert held(store) == 0
    assert store._segments is not None
    assert os.listdir(store._segments.directory) == []
    assert os.listdir(str(store.shared_directory)) == ["spare"]


def test_values_come_before_memory_that_is_kept(store: Store) -> None:
    third = 15 << 20
    store.put(KEY, b"x" * third)
    store.delete([KEY])
    assert held(store) == third
    for number in range(2, 6):
        store.put((1, number), b"y" * (third // 15 * 16 - 1))
    assert store.memory_used + held(store) <= store.memory_budget
    assert all(isinstance(store.get((1, number)), Path) for number in range(2, 6))


def test_no_more_is_kept_than_a_part_of_the_budget(store: Store) -> None:
    for number in range(6):
        store.put((1, number), b"x" * SIZE)
    store.delete([(1, number) for number in range(6)])
    assert held(store) == 3 * SIZE  # a quarter of 64 MiB holds three


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    store = Store(str(tmp_path), memory_budget=1 << 30)
    keys = [(1, number) for number in range(segments.MOST_FILES + 5)]
    for key in keys:
        store.put(key, b"x" * spares.SMALLEST)
    store.delete(keys)
    assert held(store) == segments.MOST_FILES * spares.SMALLEST
    store.close()


def test_many_readers_of_deleted_values_do_not_make_it_keep_many_files(store: Store) -> None:
    views = []
    for number in range(12):
        store.put((1, number), b"x" * (1 << 20))
        views.append(store.read((1, number), 0, 1 << 20))
        store.delete([(1, number)])
    assert held(store) <= 8 << 20
    assert all(bytes(view) == b"x" * (1 << 20) for view in views)


def test_what_nobody_takes_goes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, b"x" * SIZE)
    store.delete([KEY])
    store.give_back()
    assert held(store) == SIZE
    monkeypatch.setattr(time, "time", lambda: os.stat(store.data_directory).st_mtime + 3600)
    store.give_back()
    assert held(store) == 0


def test_full_shared_memory_takes_what_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, b"x" * SIZE)
    store.delete([KEY])
    real = os.posix_fallocate
    refused: list[int] = []

    def fallocate(descriptor: int, offset: int, length: int) -> None:
        if held(store):
            refused.append(length)
            raise OSError(28, "No space left on device")
        real(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    store.put(OTHER, b"y" * (SIZE // 5))
    assert refused
    path = store.get(OTHER)
    assert isinstance(path, Path)
    assert str(path).startswith(str(store.shared_directory))


def received(store: Store, key: tuple[int, int], value: bytes) -> None:
    """Store a value as a transfer does."""
    descriptor, path = store.create_file(len(value))
    mapping = store.map_file(descriptor, path, len(value))
    os.close(descriptor)
    mapping[: len(value)] = value
    store.put_file(key, path)


def test_what_is_received_stays_mapped(store: Store) -> None:
    received(store, KEY, b"x" * SIZE)
    assert store._segments is not None
    (first,) = store._segments._mapped.values()
    store.delete([KEY])
    assert held(store) == SIZE
    received(store, OTHER, b"y" * SIZE)
    (second,) = store._segments._mapped.values()
    assert second is first
    assert bytes(store.read(OTHER, 0, SIZE)) == b"y" * SIZE


def test_a_mapping_that_is_too_short_is_replaced(store: Store) -> None:
    received(store, KEY, b"x" * SIZE)
    store.delete([KEY])
    received(store, OTHER, b"y" * (SIZE + (1 << 20)))
    assert store._segments is not None
    (mapped,) = store._segments._mapped.values()
    assert len(mapped.mapping) == SIZE + (1 << 20)


def test_nothing_stays_mapped_that_is_spilled_or_gone(store: Store) -> None:
    received(store, KEY, b"x" * SIZE)
    assert store._segments is not None
    assert store.make_room(store.memory_budget)
    assert not store._segments._mapped
    assert bytes(store.read(KEY, 0, SIZE)) == b"x" * SIZE

    received(store, OTHER, b"y" * SIZE)
    store.delete([OTHER])
    taken = os.path.join(str(store.shared_directory), "taken")
    assert spares.claim(store._segments.directory, SIZE, taken)  # as an executor does, which then dies
    os.unlink(taken)
    store.give_back()
    assert not store._segments._mapped
