"""The examples run as scripts, as users run them, and leave no process behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MARK = "RAIN_EXAMPLE_TEST"


def marked_processes(mark: str) -> list[psutil.Process]:
    """Processes started by a script of ours, wherever they are in the tree by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def run(script: str, *arguments: str, code: int = 0, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run an example in an environment that names no server, and check that nothing of it is left."""
    mark = f"{os.getpid()}-{script}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        env={**environment, "PYTHONPATH": str(ROOT), MARK: mark},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == code, done.stderr
    left = marked_processes(mark)
    psutil.wait_procs(left, timeout=20)
    assert marked_processes(mark) == []
    return done


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A small tree with all kinds of files a census meets."""
    root = tmp_path / "sources"
    (root / "package").mkdir(parents=True)
    for number in range(20):
        body = "\n".join(f"    total += item_{line}" for line in range(number + 1))
        text = f"import os, json\nfrom math import pi\n\n\ndef function_{number}(total):\n{body}\n    return total\n"
        (root / "package" / f"module_{number}.py").write_text(text, "utf-8")
    (root / "package" / "__init__.py").write_text("", "utf-8")
    (root / "classes.py").write_text("class One:\n    async def run(self): ...\n\n\nclass Two: ...\n", "utf-8")
    (root / "broken.py").write_text("def broken(:\n", "utf-8")
    (root / "nulls.py").write_bytes(b"x = 1\0\n")
    return root


def report(folder: Path) -> dict[str, object]:
    """The report as data."""
    content: dict[str, object] = json.loads((folder / "census.json").read_text("utf-8"))
    return content


def test_census_in_one_process(sources: Path, tmp_path: Path):
    """Counts are right, and what does not parse is reported."""
    run("census.py", str(sources), "--local", "--out", str(tmp_path / "local"))
    result = report(tmp_path / "local")
    lines = 20 * 7 + 190 + 5 + 2
    assert result["totals"] == {"files": 24, "lines": lines, "functions": 21, "classes": 2, "unparsable": 2}
    assert dict(result["imports"]) == {"os": 20, "json": 20, "math": 20}
    assert dict(result["identifiers"])["total"] == 210 + 20
    assert result["longest_functions"][0] == [22, "package/module_19.py", "function_19"]
    assert [path for path, _ in result["unparsable_files"]] == ["broken.py", "nulls.py"]
    assert "## Longest functions" in (tmp_path / "local" / "census.md").read_text("utf-8")


def test_census_of_nothing(tmp_path: Path):
    """No file is an error, not an empty report."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "census.py"), str(tmp_path), "--local"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no Python file" in done.stderr


@pytest.mark.cluster
def test_census_on_a_cluster_gives_the_same(sources: Path, tmp_path: Path):
    """A graph of 24 files with two levels of merging gives the result of one process."""
    run("census.py", str(sources), "--local", "--out", str(tmp_path / "local"))
    run("census.py", str(sources), "--out", str(tmp_path / "cluster"))
    assert report(tmp_path / "cluster") == report(tmp_path / "local")


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("concat.py", "Hello world!\n"),
        ("nested_sessions.py", "made in the inner session\nmade in the outer session, and read later\n"),
        ("bind_only.py", "0123456789\n"),
    ],
)
def test_small_examples(script: str, output: str):
    """They print what their text says."""
    assert run(script).stdout == output
