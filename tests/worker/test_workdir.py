"""Work and log directories, the ready file, and what the machine offers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rain.worker.detect import detect_cpus, detect_gpus, detect_memory, offered_resources
from rain.worker.options import WorkerOptions, WorkerSetupError
from rain.worker.workdir import MARKER, claim_workdir, make_log_directory, remove_tree, write_ready_file


def dead_pid() -> int:
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(process.stdout)


def test_an_absent_directory_is_created_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    taken = claim_workdir(path)
    assert (path / MARKER).read_text() == f"{os.getpid()}\n"
    for name in ("data", "tmp", "executors/work"):
        assert (path / name).is_dir()
    for directory in (path, path.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (taken.data / "x").write_bytes(b"x")
    taken.remove()
    assert not path.exists()
    assert path.parent.exists()


def test_an_empty_directory_is_taken_and_stays(tmp_path: Path) -> None:
    taken = claim_workdir(tmp_path)
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
    taken = claim_workdir(tmp_path)
    assert list(taken.data.iterdir()) == []
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
    with pytest.raises(WorkerSetupError, match=expected):
        claim_workdir(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_directories_of_another_user_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(WorkerSetupError, match="another user"):
        claim_workdir(tmp_path)
    with pytest.raises(WorkerSetupError, match="another user"):
        make_log_directory(tmp_path)


def test_the_log_directory_may_exist(tmp_path: Path) -> None:
    path = make_log_directory(tmp_path / "logs")
    assert make_log_directory(path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert (path / "executors").is_dir()


def test_remove_tree_of_nothing(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_the_ready_file_appears_complete(tmp_path: Path) -> None:
    write_ready_file(tmp_path / "ready")
    assert (tmp_path / "ready").read_text() == "ready\n"
    assert os.listdir(tmp_path) == ["ready"]


def test_detected_resources() -> None:
    resources = offered_resources(WorkerOptions(server="x", gpus=()))
    assert resources == {"cpus": detect_cpus(), "gpus": [], "memory": detect_memory()}
    assert detect_memory() > 1 << 20


def test_given_resources() -> None:
    options = WorkerOptions(server="x", cpus=7, gpus=2, memory=5, resources={"license": 1.5})
    assert offered_resources(options) == {"cpus": 7, "gpus": [0, 1], "memory": 5, "license": 1.5}
    assert offered_resources(WorkerOptions(server="x", gpus=(3, 1)))["gpus"] == [1, 3]


def test_negative_cpus_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert offered_resources(WorkerOptions(server="x", cpus=-1, gpus=()))["cpus"] == 2
    for cpus in (-3, -4, 0):
        with pytest.raises(WorkerSetupError, match="leaves no cpu"):
            offered_resources(WorkerOptions(server="x", cpus=cpus, gpus=()))


@pytest.mark.parametrize(("name", "amount"), [("cpus", 1.0), ("license", -1.0)])
def test_impossible_resources(name: str, amount: float) -> None:
    with pytest.raises(WorkerSetupError, match=name):
        offered_resources(WorkerOptions(server="x", gpus=(), resources={name: amount}))


def test_gpus_by_their_driver(tmp_path: Path) -> None:
    for address, minor in (("0000:01:00.0", 1), ("0000:02:00.0", 0)):
        device = tmp_path / address
        device.mkdir()
        (device / "information").write_text(f"Model: \t X\nDevice Minor: \t {minor}\n")
    assert detect_gpus(str(tmp_path)) == [0, 1]
    assert detect_gpus(str(tmp_path / "none")) == []
