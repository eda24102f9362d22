"""The store: directories as tars in memory and as trees."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain.common import fs
from rain.worker.store import INLINE_LIMIT, Staged, Store, StoreError

BIG = b"b" * 100_000
KEY, OTHER = (1, 10), (1, 11)


@pytest.fixture(params=["disk", "shared memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    data = tmp_path / "data"
    data.mkdir()
    store = Store(str(data), memory_budget=0 if request.param == "disk" else 1 << 20)
    yield store
    store.close()
    assert list(data.iterdir()) == []
    assert store.memory_used == 0


def made(path: Path, content: bytes = BIG) -> Path:
    (path / "sub" / "empty").mkdir(parents=True)
    (path / "sub" / "f").write_bytes(content)
    (path / "link").symlink_to("sub/f")
    return path


def test_a_large_directory_is_a_read_only_tree(store: Store, tmp_path: Path) -> None:
    packed = fs.pack_directory(made(tmp_path / "tree"))
    assert store.put_tree(KEY, str(tmp_path / "tree")) == len(BIG)
    assert not (tmp_path / "tree").exists()
    path = store.get(KEY)
    assert isinstance(path, Path)
    assert path.parent == Path(store.data_directory)
    modes = [oct((path / name).lstat().st_mode & 0o777) for name in (".", "sub", "sub/empty", "sub/f")]
    assert modes == ["0o500", "0o500", "0o500", "0o400"]
    assert (store.size(KEY), store.is_tree(KEY), KEY in store, len(store)) == (len(BIG), True, True, 1)
    assert store.read_size(KEY) == len(packed)
    assert bytes(store.read(KEY, 0, 1 << 20)) == packed
    assert bytes(store.read(KEY, 1000, 500)) == packed[1000:1500]
    assert store.read(KEY, len(packed), 1) == b""
    store.drop_tar(KEY)
    assert store.read_size(KEY) == len(packed)


def test_a_small_directory_is_its_tar(store: Store, tmp_path: Path) -> None:
    packed = fs.pack_directory(made(tmp_path / "tree", b"small"))
    assert store.put_tree(KEY, str(tmp_path / "tree")) == 5
    assert store.get(KEY) == packed
    assert not store.is_tree(KEY)
    assert not (tmp_path / "tree").exists()


def test_equal_trees_have_equal_bytes(store: Store, tmp_path: Path) -> None:
    for key, name in ((KEY, "a"), (OTHER, "b")):
        made(tmp_path / name)
        os.utime(tmp_path / name / "sub" / "f", (key[1], key[1]))
        store.put_tree(key, str(tmp_path / name))
    assert bytes(store.read(KEY, 0, 1 << 20)) == bytes(store.read(OTHER, 0, 1 << 20))


def test_links_that_lead_outside_become_copies(store: Store, tmp_path: Path) -> None:
    made(tmp_path / "other", b"other")
    tree = made(tmp_path / "tree")
    (tree / "file").symlink_to(tmp_path / "other" / "sub" / "f")
    (tree / "dir").symlink_to("../other")
    (tree / "dangling").symlink_to("/nothing")
    (tree / "inner-dangling").symlink_to("nothing")
    (tree / "absolute").symlink_to(tree / "sub" / "f")
    os.link(tmp_path / "other" / "sub" / "f", tree / "hard")
    assert store.put_tree(KEY, str(tree)) == 2 * len(BIG) + 3 * len(b"other")
    path = store.get(KEY)
    assert isinstance(path, Path)
    assert sorted(os.listdir(path)) == ["absolute", "dir", "file", "hard", "link", "sub"]
    assert [name for name in sorted(os.listdir(path)) if (path / name).is_symlink()] == ["link"]
    assert sorted(os.listdir(path / "dir")) == ["link", "sub"]
    (tmp_path / "other" / "sub" / "f").write_bytes(b"changed")
    assert (path / "hard").read_bytes() == b"other"


def test_a_tree_is_shared_until_its_last_object_is_deleted(store: Store, tmp_path: Path) -> None:
    store.put_tree(KEY, str(made(tmp_path / "tree")))
    assert store.share(KEY, OTHER) == len(BIG)
    path = store.get(KEY)
    assert path == store.get(OTHER)
    store.read(OTHER, 0, 10)
    store.delete([KEY, (5, 5)])
    assert isinstance(path, Path)
    assert path.exists()
    assert KEY not in store
    store.delete([OTHER])
    assert len(store) == 0


def test_an_existing_value_wins(store: Store, tmp_path: Path) -> None:
    store.put_tree(KEY, str(made(tmp_path / "tree")))
    before = store.get(KEY)
    store.put_tree(KEY, str(made(tmp_path / "tree", BIG * 2)))
    store.put(KEY, b"bytes")
    assert store.get(KEY) == before
    assert store.size(KEY) == len(BIG)


@pytest.mark.parametrize("size", [10, 200_000])
def test_tars_are_unpacked(store: Store, tmp_path: Path, size: int) -> None:
    packed = fs.pack_directory(made(tmp_path / "tree", b"x" * size))
    (tmp_path / "tar").write_bytes(packed)
    for archive in (packed, str(tmp_path / "tar")):
        staged = store.stage_tar(archive)
        assert staged.size == size
        assert (staged.path is None) == (len(packed) < INLINE_LIMIT)
        store.put_staged(KEY, staged)
        assert bytes(store.read(KEY, 0, 1 << 20)) == packed
        store.delete([KEY])
    assert (tmp_path / "tar").read_bytes() == packed


def test_damaged_tars_leave_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="unpack"):
        store.stage_tar(b"x" * 100_000)
    store.discard_staged(Staged(1, data=b"x"))


def test_copies_leave_their_source(store: Store, tmp_path: Path) -> None:
    made(tmp_path / "tree")
    for source, size in ((tmp_path / "tree", len(BIG)), (tmp_path / "tree" / "sub" / "f", len(BIG))):
        staged = store.stage_copy(str(source))
        assert staged.size == size
        store.discard_staged(staged)
    assert (tmp_path / "tree" / "sub" / "f").read_bytes() == BIG
    os.mkfifo(tmp_path / "tree" / "pipe")
    for source in ("tree", "tree/pipe", "missing"):
        with pytest.raises(StoreError):
            store.stage_copy(str(tmp_path / source))


def test_a_tree_is_packed_once_for_many_readers(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = fs.pack_directory(made(tmp_path / "tree", b"x" * 3_000_000))
    store.put_tree(KEY, str(tmp_path / "tree"))
    calls = []
    original = fs.pack_directory_to
    monkeypatch.setattr(fs, "pack_directory_to", lambda *args: (calls.append(1), original(*args)))
    pieces: dict[int, bytes] = {}

    def read(offset: int) -> None:
        pieces[offset] = bytes(store.read(KEY, offset, 1_000_000))

    threads = [threading.Thread(target=read, args=(offset,)) for offset in range(0, len(packed), 1_000_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(pieces[offset] for offset in sorted(pieces)) == packed
    assert calls == [1]
