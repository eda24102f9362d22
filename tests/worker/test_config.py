"""The worker's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rain.process.workdir import SetupError
from rain.worker.config import read_executor_commands


def read(tmp_path: Path, text: str) -> dict[str, list[str]]:
    path = tmp_path / "worker.toml"
    path.write_text(text)
    return read_executor_commands(path)


def test_commands_are_strings_or_lists(tmp_path: Path) -> None:
    text = """
        [executors.cpp]
        command = "/opt/run 'two words' x"
        [executors.py]
        command = ["python", "-m", "my executor"]
    """
    assert read(tmp_path, text) == {"cpp": ["/opt/run", "two words", "x"], "py": ["python", "-m", "my executor"]}
    assert read(tmp_path, "") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[worker]\nx = 1", "worker"),
        ("executors = 3", "executors"),
        ("[executors.a]", "must have `command`"),
        ("[executors.a]\ncommand = 'x'\nenv = 1", "nothing else"),
        ("[executors.a]\ncommand = ''", "must be a string"),
        ("[executors.a]\ncommand = [1]", "must be a string"),
        ('[executors.a]\ncommand = "\'"', "cannot be split"),
        ("[", "cannot read"),
        ("[executors.'a/b']\ncommand = 'x'", "no task can have this type"),
        ("[executors.buildin]\ncommand = 'x'", "no task can have this type"),
        ("[executors.'']\ncommand = 'x'", "no task can have this type"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SetupError, match=expected):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nowhere\.toml"):
        read_executor_commands(tmp_path / "nowhere.toml")


def test_a_relative_program_counts_from_the_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors run in directories of their own."""
    monkeypatch.chdir(tmp_path)
    assert read(tmp_path, "[executors.a]\ncommand = './run ./x'") == {"a": [f"{tmp_path}/run", "./x"]}
    assert read(tmp_path, "[executors.a]\ncommand = 'run'") == {"a": ["run"]}
