"""Work and log directories, and the ready file."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rain.process.workdir import (
    MARKER,
    SetupError,
    claim_workdir,
    make_log_directory,
    remove_tree,
    write_ready_file,
)

SUBDIRECTORIES = ("data", "tmp", "executors/work")


def dead_pid() -> int:
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(process.stdout)


def test_an_absent_directory_is_created_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    taken = claim_workdir(path, SUBDIRECTORIES)
    assert (path / MARKER).read_text() == f"{os.getpid()}\n"
    for name in SUBDIRECTORIES:
        assert (path / name).is_dir()
    for directory in (path, path.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (taken.path / "data" / "x").write_bytes(b"x")
    taken.remove()
    assert not path.exists()
    assert path.parent.exists()


def test_an_empty_directory_is_taken_and_stays(tmp_path: Path) -> None:
    taken = claim_workdir(tmp_path, SUBDIRECTORIES)
    assert not taken.created
    taken.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_worker_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(f"{dead_pid()}\n")
    tree = tmp_path / "data" / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_text("x")
    (tmp_path / "data" / "dangling").symlink_to("nowhere")
    (tree / "sub").chmod(0o500)
    tree.chmod(0o500)
    taken = claim_workdir(tmp_path, SUBDIRECTORIES)
    assert list((taken.path / "data").iterdir()) == []
    taken.remove()


@pytest.mark.parametrize("kind", ["foreign", "alive", "file"])
def test_other_directories_are_refused_and_unharmed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "work"
    if kind == "file":
        path.write_text("x")
        expected = "not a directory"
    else:
        path.mkdir()
        (path / "precious").write_text("x")
        expected = "not empty"
        if kind == "alive":
            (path / MARKER).write_text(f"{os.getppid()}\n")
            expected = f"process {os.getppid()} uses it"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SetupError, match=expected):
        claim_workdir(path, SUBDIRECTORIES)
    assert sorted(tmp_path.rglob("*")) == before


def test_directories_of_another_user_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SetupError, match="another user"):
        claim_workdir(tmp_path, SUBDIRECTORIES)
    with pytest.raises(SetupError, match="another user"):
        make_log_directory(tmp_path)


def test_the_log_directory_may_exist(tmp_path: Path) -> None:
    path = make_log_directory(tmp_path / "logs", ("executors",))
    assert make_log_directory(path, ("executors",)) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert (path / "executors").is_dir()


def test_remove_tree_of_nothing(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_the_ready_file_appears_complete(tmp_path: Path) -> None:
    write_ready_file(tmp_path / "ready")
    assert (tmp_path / "ready").read_text() == "ready\n"
    assert os.listdir(tmp_path) == ["ready"]


def test_two_who_remove_the_same_tree(tmp_path):
    for _ in range(20):
        for k in range(200):
            (tmp_path / "tree" / f"{k % 10}" / f"{k}").mkdir(parents=True)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(remove_tree, tmp_path / "tree") for _ in range(2)]:
                done.result(20)
        assert not list(tmp_path.iterdir())
