"""`rain dump`: the document, the file, the errors."""

from __future__ import annotations

import json
import stat

import pytest

import rain
from rain.cli import connection, dump
from rain.cli.main import main
from rain.common.errors import AuthenticationError, RainException
from rain.protocol.messages import Dump, GetDump

CONTENT = {
    "server": {"log": ["a line with \u00fc and \u2028"], "process": {"pid": 5}},
    "sessions": [{"session": 1}],
    "workers": [{"worker_id": "10.0.0.1:7000", "answered": True}, {"worker_id": "10.0.0.2:7000", "answered": False}],
}


@pytest.fixture
def answer(monkeypatch):
    """Let the server answer; an exception is raised."""

    def install(content):
        def ask(_server, question, kind, _timeout):
            assert (question, kind) == (GetDump(connection.SEQ), Dump)
            if isinstance(content, Exception):
                raise content
            return Dump(connection.SEQ, content)

        monkeypatch.setattr(connection, "find_server", lambda _options: None)
        monkeypatch.setattr(connection, "ask", ask)

    install(CONTENT)
    return install


@pytest.mark.parametrize("form", ["table", "json", "quiet"])
def test_to_standard_output(answer, capsys, form):
    """The document is all there is to say."""
    assert main(["dump", "--output", form]) == 0
    text = capsys.readouterr().out
    document = json.loads(text)
    assert text.isascii()
    assert document.pop("made_by") == f"rain {rain.__version__}"
    assert document.pop("made").endswith("+00:00")
    assert document == CONTENT


def test_to_a_file(answer, capsys, tmp_path):
    """Of mode 0600, whatever was there before; nothing else is left in the folder."""
    path = tmp_path / "dump.json"
    path.write_text("old", "ascii")
    path.chmod(0o644)
    assert main(["dump", "--out", str(path)]) == 0
    assert json.loads(path.read_text("ascii"))["sessions"] == [{"session": 1}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert "workers without answer  10.0.0.2:7000" in printed


def test_what_is_said_of_the_file(answer, capsys, tmp_path):
    path = tmp_path / "dump.json"
    assert main(["dump", "--out", str(path), "--output", "quiet"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["dump", "--out", str(path), "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sessions": 1,
        "workers": 2,
        "workers_without_answer": ["10.0.0.2:7000"],
    }


def test_no_folder(answer, capsys, tmp_path):
    path = tmp_path / "missing" / "dump.json"
    assert main(["dump", "--out", str(path)]) == 1
    assert capsys.readouterr().err == f"rain: error: cannot write {path}: No such file or directory\n"


def test_a_folder_of_that_name(answer, capsys, tmp_path):
    assert main(["dump", "--out", str(tmp_path)]) == 1
    assert "Is a directory" in capsys.readouterr().err
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "dump.json"
    path.write_text("old", "ascii")

    def interrupt(*_paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(dump.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dump.write_private(path, "new")
    assert path.read_text("ascii") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [AuthenticationError("a wrong secret"), RainException("no server is known")])
def test_errors_are_exit_code_1(answer, capsys, tmp_path, error):
    answer(error)
    path = tmp_path / "dump.json"
    assert main(["dump", "--out", str(path)]) == 1
    assert capsys.readouterr().err == f"rain: error: {error}\n"
    assert not path.exists()
