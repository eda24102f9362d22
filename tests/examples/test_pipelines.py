"""The pipelines among the examples: a compiler, an archive, large arrays."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples.test_examples import EXAMPLES, run

pytestmark = pytest.mark.cluster

STATISTICS = """\
count     100
mean      3383.500
median    2550.500
deviation 3009.196
    2000.800 *****************
    4000.600 *******
    6000.400 *****
    8000.200 ****
   10000.000 ****
"""


def test_a_c_project_is_compiled_linked_and_run(tmp_path: Path) -> None:
    done = run("compile.py", "--out", str(tmp_path / "bin"))
    assert done.stdout == STATISTICS + "6 sources compiled\n"
    program = tmp_path / "bin" / "stats"
    fetched = subprocess.run([program], input="3\n1\n2\n", capture_output=True, text=True, check=True)
    assert fetched.stdout.splitlines()[:3] == ["count     3", "mean      2.000", "median    2.000"]


def test_an_error_of_the_compiler_is_shown(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "compile", project)
    (project / "src" / "mean.c").write_text("double mean(void) { return nonsense; }\n", "utf-8")
    done = run("compile.py", str(project), code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("Program exit with exit code 1\n")
    assert "mean.c:1" in done.stderr
    assert "nonsense" in done.stderr


def test_an_archive_of_a_hundred_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(99):
        path = tree / f"part {number % 7}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"line of file {number}\n".encode() * (number * 50))
    (tree / "large").write_bytes(os.urandom(11 << 20))

    done = run("archive.py", str(tree), str(tmp_path / "archive"))
    total = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    assert done.stdout.startswith(f"100 files, {total} bytes compressed to ")

    archive = tmp_path / "archive"
    sums = dict(reversed(line.split("  ")) for line in (archive / "SHA256SUMS").read_text("utf-8").splitlines())
    files = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert sorted(sums) == files
    assert len(list(archive.rglob("*.gz"))) == 100
    for name in files:
        content = gzip.decompress((archive / f"{name}.gz").read_bytes())
        assert content == (tree / name).read_bytes()
        assert sums[name] == hashlib.sha256(content).hexdigest()


def test_nothing_to_archive(tmp_path: Path) -> None:
    assert "there is no file" in run("archive.py", str(tmp_path), str(tmp_path / "archive"), code=1).stderr


def test_large_arrays_are_not_copied_on_one_machine() -> None:
    """24 tasks read 3 arrays of 64 MiB: all see read-only mappings of 3 files in shared memory."""
    lines = run("montecarlo.py").stdout.splitlines()
    found = re.fullmatch(r"pi is about (\d\.\d+) \(off by (\d\.\d+)\), from 24 tasks", lines[0])
    assert found is not None
    assert float(found[2]) < 0.002
    assert lines[1] == "24 of them read a mapping; 3 files are mapped"
    assert all(line.startswith("  /dev/shm/") for line in lines[2:])
    assert len(set(lines[2:])) == 3
