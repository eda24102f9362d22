"""Directories of programs that have ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from rain.worker import spare_directories
from rain.worker.spare_directories import HeldDirectories, SpareDirectories


class Spares:
    """Spare directories in an empty folder, and who got process ids is told by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: Any = SimpleNamespace(sequence=1)
        self.late: list[Callable[[], None]] = []
        self.tested = SpareDirectories(asyncio.get_running_loop(), self.programs, self.late.append)

    def start(self, name: str) -> tuple[str, int]:
        """A program starts in a directory of this name; returns its inode."""
        path = str(self.folder / name)
        self.tested.make(path)
        for stream in ("+out", "+err"):
            Path(path, stream).touch()
        self.tested.program_started()
        return path, os.stat(path).st_ino

    def names(self) -> list[str]:
        """What is there."""
        return sorted(os.listdir(self.folder))

    async def all_removed(self) -> None:
        """Wait until nothing is left."""
        async with asyncio.timeout(20):
            while self.names():  # noqa: ASYNC110 - there is nothing that tells
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def spares(tmp_path: Path) -> AsyncIterator[Spares]:
    spares = Spares(tmp_path)
    yield spares
    spares.tested.close()
    assert spares.names() == []


async def test_one_is_used_when_another_program_has_started_since(spares: Spares) -> None:
    path, inode = spares.start("a")
    spares.tested.offer(path, 1)
    other, other_inode = spares.start("b")
    assert other_inode != inode
    again, third_inode = spares.start("c")
    assert third_inode == inode
    assert spares.names() == ["b", "c"]
    assert sorted(os.listdir(again)) == ["+err", "+out"]
    for path in (other, again):
        spares.tested.offer(path, 1)


async def test_one_that_may_have_started_others_is_removed(spares: Spares) -> None:
    path, _ = spares.start("a")
    spares.tested.offer(path, 1)
    spares.programs.sequence = 2  # at the start of b
    second, _ = spares.start("b")
    assert spares.names() == ["b"]
    spares.programs.sequence = 3  # at the start of others
    spares.tested.offer(second, 2)
    assert spares.names() == []
    path, _ = spares.start("c")
    spares.tested.offer(path, 0)  # it was not started
    assert spares.names() == []


async def test_one_in_which_nothing_was_written_is_taken_back_without_a_look(spares: Spares) -> None:
    path, _ = spares.start("a")
    assert not spares.tested.take_back(path, 1)  # its files are new
    spares.tested.offer(path, 1)
    spares.start("b")
    again, _ = spares.start("c")
    assert spares.tested.take_back(again, 1)
    spares.start("d")
    again, _ = spares.start("e")
    os.mkdir(os.path.join(again, "left"))
    assert not spares.tested.take_back(again, 1)
    os.rmdir(os.path.join(again, "left"))
    assert not spares.tested.take_back(again, 1)
    assert not spares.tested.take_back(again, 0)
    for name in "bde":
        spares.tested.offer(str(spares.folder / name), 1)


async def test_those_of_a_former_sequence_do_not_count_for_the_next(spares: Spares) -> None:
    path, _ = spares.start("a")
    spares.tested.offer(path, 1)
    spares.programs.sequence = 2
    other = spares.folder / "b"
    other.mkdir(0o700)
    spares.tested.offer(str(other), 2)
    assert spares.names() == ["b"]


@pytest.mark.parametrize("change", [lambda path: os.chmod(path, 0o755), os.rmdir])
async def test_changed_ones_are_not_used(spares: Spares, change: Callable[[str], None]) -> None:
    path = spares.folder / "a"
    path.mkdir(0o700)
    change(str(path))
    spares.tested.offer(str(path), 1)
    assert spares.names() == []


async def test_no_more_are_kept_than_needed(spares: Spares, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_directories, "_MOST", 2)
    paths = [spares.start(name)[0] for name in "abc"]
    for path in paths:
        spares.tested.offer(path, 1)
    assert spares.names() == ["a", "b"]


async def test_unused_ones_are_removed(spares: Spares, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_directories, "_KEPT_SECONDS", 0.05)
    for path in [spares.start(name)[0] for name in "ab"]:
        spares.tested.offer(path, 1)
    spares.tested.offer(spares.start("c")[0], 1)
    await spares.all_removed()
    spares.tested.offer(spares.start("d")[0], 1)  # and again
    await spares.all_removed()


async def test_one_that_is_not_empty_is_removed_in_a_thread(spares: Spares) -> None:
    path, _ = spares.start("a")
    os.mkdir(os.path.join(path, "directory"))
    spares.tested.offer(path, 0)
    (remove,) = spares.late
    assert spares.names() == ["a"]
    remove()


class TestHeldDirectories:
    """Directories whose space on the disk is freed later."""

    def test_the_directory_is_gone_at_once(self, tmp_path: Path) -> None:
        held = HeldDirectories(lambda work: pytest.fail("too early"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            (tmp_path / "sandbox").mkdir()
            held.remove(str(tmp_path / "sandbox"))
            assert os.listdir(tmp_path) == []
        assert len(os.listdir("/proc/self/fd")) == before + 3
        held.close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_many_are_closed_together_and_no_more_held_than_that(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spare_directories, "_MOST_HELD", 40)
        orders: list[Callable[[], None]] = []
        held = HeldDirectories(orders.append)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            (tmp_path / "sandbox").mkdir()
            held.remove(str(tmp_path / "sandbox"))
        assert len(os.listdir("/proc/self/fd")) == before + 40
        (order,) = orders
        order()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_what_cannot_be_removed_stays(self, tmp_path: Path) -> None:
        held = HeldDirectories(lambda work: work())
        before = len(os.listdir("/proc/self/fd"))
        (tmp_path / "sandbox").mkdir()
        (tmp_path / "sandbox" / "file").touch()
        with pytest.raises(OSError, match="not empty"):
            held.remove(str(tmp_path / "sandbox"))
        assert len(os.listdir("/proc/self/fd")) == before
