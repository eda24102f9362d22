"""The store: small values, files, budget, spilling, damage, and reads that race deletions."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain.worker.store import INLINE_LIMIT, Store, StoreError, store as store_module

KB = 1024
BIG = 100 * KB


def big(letter: str, size: int = BIG) -> bytes:
    return letter.encode() * size


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    store = Store(str(data), memory_budget=4 * BIG)
    yield store
    store.close()
    assert store.shared_directory is not None
    assert not os.path.exists(store.shared_directory)
    assert list(data.iterdir()) == []


def in_memory(store: Store, key: tuple[int, int]) -> bool:
    path = store.get(key)
    assert isinstance(path, Path)
    return path.is_relative_to(str(store.shared_directory))


def test_small_values_are_bytes(store: Store) -> None:
    value = b"x" * (INLINE_LIMIT - 1)
    store.put((1, 10), value)
    assert store.get((1, 10)) is value
    assert store.size((1, 10)) == len(value)
    assert store.read((1, 10), 2, 3) == b"xxx"
    store.delete([(1, 10), (1, 11)])
    assert store.get((1, 10)) is None
    with pytest.raises(KeyError):
        store.size((1, 10))
    with pytest.raises(KeyError):
        store.read((1, 10), 0, 1)


def test_large_values_are_read_only_files_in_private_shared_memory(store: Store) -> None:
    store.put((1, 10), big("a"))
    path = store.get((1, 10))
    assert isinstance(path, Path)
    assert path.read_bytes() == big("a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    directory = path.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory.name.startswith(f"rain-{os.geteuid()}-{os.getpid()}-")
    assert store.memory_used == BIG
    assert store.read((1, 10), BIG - 3, 100) == b"aaa"
    assert store.read((1, 10), 5000, 7) == b"a" * 7
    assert store.read((1, 10), BIG, 7) == b""
    store.delete([(1, 10)])
    assert not path.exists()
    assert store.memory_used == 0


def test_an_existing_value_wins(store: Store, tmp_path: Path) -> None:
    store.put((1, 10), big("a"))
    store.put((1, 10), big("b"))
    other = tmp_path / "other"
    other.write_bytes(big("c", BIG + 1))
    assert store.put_file((1, 10), str(other)) == BIG
    assert not other.exists()
    assert store.read((1, 10), 0, 1) == b"a"
    assert store.memory_used == BIG


def test_least_recently_used_files_are_spilled_and_old_paths_stay_valid(store: Store, data: Path) -> None:
    for number in range(4):
        store.put((1, number), big("abcd"[number]))
    first = store.get((1, 0))
    second = store.get((1, 1))
    assert isinstance(first, Path)
    assert isinstance(second, Path)
    store.get((1, 2))
    store.put((1, 0), b"")  # no effect
    store.read((1, 3), 0, 1)
    store.get((1, 0))
    store.put((1, 4), big("e"))
    assert store.make_room()
    assert not in_memory(store, (1, 1))
    assert all(in_memory(store, (1, number)) for number in (0, 2, 3, 4))
    assert second.read_bytes() == big("b")
    assert store.read((1, 1), 0, BIG) == big("b")
    assert store.get((1, 1)).parent == data  # type: ignore[union-attr]
    assert store.memory_used == 4 * BIG
    store.delete([(1, 1)])
    assert not os.path.lexists(second)
    assert list(data.iterdir()) == []


def test_a_value_above_the_budget_goes_to_disk(store: Store) -> None:
    store.put((1, 1), big("x", 5 * BIG))
    assert not in_memory(store, (1, 1))
    assert store.memory_used == 0


def test_without_shared_memory_everything_large_is_on_disk(data: Path, tmp_path: Path) -> None:
    for store in (Store(str(data), memory_budget=0), Store(str(data), shared_memory=str(tmp_path / "none"))):
        assert store.shared_directory is None
        store.put((1, 1), big("x"))
        assert store.read((1, 1), 0, BIG) == big("x")
        assert store.get((1, 1)).parent == data  # type: ignore[union-attr]
        store.close()
    assert list(data.iterdir()) == []


def test_small_values_beyond_their_budget_become_files(data: Path) -> None:
    store = Store(str(data), memory_budget=BIG, small_budget=10)
    store.put((1, 1), b"0123456789")
    store.put((1, 2), b"abc")
    store.put((1, 3), b"")
    assert store.get((1, 1)) == b"0123456789"
    assert isinstance(store.get((1, 2)), Path)
    assert store.read((1, 2), 1, 10) == b"bc"
    assert store.get((1, 3)) == b""
    store.close()


def test_put_file_moves_from_anywhere(store: Store, tmp_path: Path) -> None:
    on_disk = tmp_path / "output"
    on_disk.write_bytes(big("o"))
    inode = on_disk.stat().st_ino
    assert store.put_file((1, 1), str(on_disk)) == BIG
    assert not on_disk.exists()
    path = store.get((1, 1))
    assert isinstance(path, Path)
    assert path.stat().st_ino == inode

    own = store.new_file(BIG)
    assert store.memory_used == BIG
    Path(own).write_bytes(big("m", BIG - 1))
    assert store.put_file((1, 2), own) == BIG - 1
    assert store.memory_used == BIG - 1
    assert str(store.get((1, 2))) == own

    small = tmp_path / "small"
    small.write_bytes(b"tiny")
    assert store.put_file((1, 3), str(small)) == 4
    assert store.get((1, 3)) == b"tiny"
    assert not small.exists()


def test_links_are_replaced_by_copies(store: Store, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.write_bytes(big("o"))
    soft, hard = tmp_path / "soft", tmp_path / "hard"
    soft.symlink_to(original)
    os.link(original, hard)
    for number, link in enumerate((soft, hard)):
        assert store.put_file((1, number), str(link)) == BIG
        assert not os.path.lexists(link)
        path = store.get((1, number))
        assert isinstance(path, Path)
        assert path.stat().st_ino != original.stat().st_ino
        assert path.read_bytes() == big("o")
    assert original.read_bytes() == big("o")


def test_put_file_refuses_what_is_no_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a regular file"):
        store.put_file((1, 1), str(tmp_path))
    with pytest.raises(StoreError, match="No such file") as caught:
        store.put_file((1, 1), str(tmp_path / "missing"))
    assert caught.value.errno == errno.ENOENT
    assert (1, 1) not in store


def test_shared_values_live_as_long_as_one_object_has_them(store: Store) -> None:
    store.put((1, 1), big("s"))
    store.put((1, 2), b"small")
    assert store.share((1, 1), (1, 3)) == BIG
    assert store.share((1, 2), (1, 4)) == 5
    assert store.get((1, 3)) == store.get((1, 1))
    store.delete([(1, 1), (1, 2)])
    assert store.read((1, 3), 0, BIG) == big("s")
    assert store.get((1, 4)) == b"small"
    assert store.memory_used == BIG
    store.delete([(1, 3)])
    assert store.memory_used == 0
    with pytest.raises(KeyError):
        store.share((1, 1), (1, 5))


def test_promised_space_counts_until_discarded(store: Store) -> None:
    path = store.new_file(4 * BIG)
    assert store.memory_used == 4 * BIG
    assert os.path.dirname(store.new_file(BIG)) == store.data_directory
    store.discard_file(path)
    assert store.memory_used == 0


def test_full_shared_memory_falls_back_to_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    allocate = os.posix_fallocate
    assert store.shared_directory is not None
    device = os.stat(store.shared_directory).st_dev

    def full(descriptor: int, offset: int, length: int) -> None:
        if os.fstat(descriptor).st_dev == device:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    store.put((1, 1), big("x"))
    assert not in_memory(store, (1, 1))
    assert store.memory_used == 0


def test_full_disk_is_told_with_sizes_and_path(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, pieces: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(str(data), memory_budget=0)
    monkeypatch.setattr(store_module, "write_all", full)
    with pytest.raises(StoreError, match=r"102,400 bytes.*No space left on device") as caught:
        store.put((1, 1), big("x"))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.size == BIG
    assert caught.value.path.startswith(str(data))
    assert (1, 1) not in store
    assert list(data.iterdir()) == []


def test_failing_spill_fails_the_value_that_does_not_fit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    for number in range(4):
        store.put((1, number), big("x"))
    monkeypatch.setattr(store_module, "copy_file", full)
    assert store.shared_directory is not None
    refused = 0
    for number in range(3):  # as executors write: into shared memory, without a promise
        path = store.new_file(0)
        if not path.startswith(store.shared_directory):
            path = os.path.join(store.shared_directory, f"extra{number}")
        Path(path).write_bytes(big("y"))
        try:
            store.put_file((2, number), path)
        except StoreError as error:
            assert f"{4 * BIG:,} bytes allowed" in str(error)  # noqa: PT017
            assert error.errno == errno.ENOSPC  # noqa: PT017
            assert not os.path.exists(path)
            refused += 1
    assert refused >= 1
    assert store.memory_used <= 5 * BIG
    monkeypatch.undo()
    assert store.make_room()
    assert store.memory_used <= 4 * BIG


def test_damaged_files_are_noticed(store: Store) -> None:
    for number, size in enumerate((BIG, 5 * BIG)):
        store.put((1, number), big("x", size))
        path = store.get((1, number))
        assert isinstance(path, Path)
        path.chmod(0o600)
        os.truncate(path, 10)
        with pytest.raises(StoreError, match="damaged"):
            store.read((1, number), 0, 5)
        path.unlink()
        with pytest.raises(StoreError, match="No such file"):
            store.read((1, number), 0, 5)


def test_a_view_outlives_deletion_and_spilling(store: Store) -> None:
    store.put((1, 1), big("v"))
    view = store.read((1, 1), 10, BIG)
    store.put((1, 2), big("w", 4 * BIG))
    assert not in_memory(store, (1, 1))
    store.delete([(1, 1)])
    assert bytes(view) == b"v" * (BIG - 10)


@pytest.mark.parametrize(("amount", "thread"), [(2, "MainThread"), (20, "rain-remove_0")])
def test_much_memory_is_freed_in_a_thread(
    data: Path, monkeypatch: pytest.MonkeyPatch, amount: int, thread: str
) -> None:
    size = 1 << 20
    for budget in (0, amount * size):
        store = Store(str(data), memory_budget=budget)
        keys = [(1, number) for number in range(amount)]
        for key in keys:
            store.put(key, big("v", size))
        paths = [store.get(key) for key in keys]
        assert {Path(str(path)).parent == data for path in paths} == {budget == 0}
        threads: list[str] = []
        unlink = os.unlink

        def noted(path: str, unlink=unlink, threads=threads, **where) -> None:  # type: ignore[no-untyped-def]
            threads.append(threading.current_thread().name)
            unlink(path, **where)

        monkeypatch.setattr(os, "unlink", noted)
        store.delete(keys)
        assert store.memory_used == 0
        assert [store.get(key) for key in keys] == [None] * amount
        store.close()
        monkeypatch.undo()
        assert threads[0] == thread
        assert not any(os.path.exists(str(path)) for path in paths)


def test_what_cannot_be_removed_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EPERM, "not permitted", path)

    store.put((1, 1), big("v", 5 * BIG))  # more than the budget: on disk
    path = store.get((1, 1))
    assert isinstance(path, Path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        store.delete([(1, 1)])
    assert store.get((1, 1)) is None
    assert f"A value without use is left: [Errno 1] not permitted: '{path}'" in caplog.text
    path.unlink()


def test_readers_race_deletion_and_spilling(store: Store) -> None:
    """Every read gives the right bytes or a KeyError, whatever happens meanwhile."""
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            for number in range(8):
                try:
                    got = bytes(store.read((1, number), 1000, 5000))
                except KeyError:
                    continue
                except StoreError as error:
                    wrong.append(error)
                    continue
                if got != bytes([number]) * 5000:
                    wrong.append(got[:10])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(10):
        for number in range(8):
            store.put((1, number), bytes([number]) * BIG)
        store.delete([(1, number) for number in range(8)])
    stop.set()
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive()
    assert wrong == []
    assert store.memory_used == 0
