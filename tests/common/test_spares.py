"""Spare files: which one is taken, and by whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rain.common import spares

SIZE = 5 << 20


def test_two_claims_get_two_files(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{SIZE}.{number}").write_bytes(b"x" * SIZE)
    (tmp_path / f".{SIZE}.3").write_bytes(b"x" * SIZE)  # somebody has it open
    (tmp_path / "out").mkdir()
    assert [spares.claim(str(tmp_path), SIZE, str(tmp_path / "out" / name)) for name in "abc"] == [True, True, False]


def test_without_the_directory_there_is_nothing_to_claim(tmp_path: Path) -> None:
    assert not spares.claim(str(tmp_path / "none"), SIZE, str(tmp_path / "target"))


def test_the_fitting_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "spare").mkdir()
    for size in (SIZE // 2, SIZE, 2 * SIZE):
        (tmp_path / "spare" / f"{size}.1").write_bytes(b"x" * size)
    for size, expected in ((SIZE - 9, SIZE), (SIZE, 2 * SIZE), (SIZE, SIZE // 2)):
        target = tmp_path / "target"
        assert spares.claim(str(tmp_path / "spare"), size, str(target))
        assert target.stat().st_size == expected
        os.close(spares.open_claimed(str(target), size))
        assert target.stat().st_size == size


def test_what_others_put_among_the_files_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "spare").mkdir()
    (tmp_path / "victim").write_bytes(b"x" * SIZE)
    (tmp_path / "spare" / "nonsense").mkdir()
    (tmp_path / "spare" / f"{SIZE}.1").symlink_to(tmp_path / "victim")
    target = str(tmp_path / "target")
    assert spares.claim(str(tmp_path / "spare"), SIZE, target)
    with pytest.raises(OSError, match="symbolic links"):
        spares.open_claimed(target, 1)
    assert (tmp_path / "victim").stat().st_size == SIZE
