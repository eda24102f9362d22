"""What a process tells of itself in a dump."""

from __future__ import annotations

import json
import logging
import os

import pytest

from rain.process import inspection
from rain.process.inspection import LONGEST_LINE, LogTail, process_facts

log = logging.getLogger("rain.test")


@pytest.fixture
def tail():
    with LogTail(5) as tail:
        yield tail


def test_the_last_lines(tail):
    for number in range(9):
        log.warning("line %d", number)
    lines = tail.lines(None)
    assert [line.rpartition(" ")[2] for line in lines] == list("45678")
    assert lines[0].endswith("WARNING rain.test: line 4")


def test_records_of_many_lines(tail):
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("it failed")
    lines = tail.lines(None)
    assert len(lines) <= 5
    assert lines[-1] == "ValueError: boom"


def test_long_lines_are_cut(tail):
    log.warning("x" * 10_000)
    assert [len(line) for line in tail.lines(None)] == [LONGEST_LINE]


def test_the_secret_is_blotted_out(tail):
    log.warning("token=%s", "abcdef")
    assert "abcdef" not in tail.lines("abcdef")[0]
    assert tail.lines("abcdef")[0].endswith("token=(secret)")


def test_what_utf8_cannot_hold(tail):
    log.warning("path %s", os.fsdecode(b"\xff"))
    assert tail.lines(None)[0].endswith("path ?")


def test_arguments_that_do_not_fit(tail, monkeypatch, capsys):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    tail.emit(logging.LogRecord("rain", logging.INFO, "file", 1, "%d", ("x",), None))
    assert tail.lines(None) == []
    assert "test_arguments_that_do_not_fit" in capsys.readouterr().err


def test_nothing_is_remembered_afterwards():
    with LogTail() as tail:
        pass
    log.warning("later")
    assert tail.lines(None) == []


def test_facts():
    facts = process_facts()
    assert facts["pid"] == os.getpid()
    assert facts["resident_bytes"] > 1 << 20
    assert facts["open_files"] > 2
    assert json.loads(json.dumps(facts)) == facts


def test_facts_when_no_file_can_be_opened(monkeypatch):
    def refuse(_path):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inspection.os, "listdir", refuse)
    facts = process_facts()
    assert "Too many open files" in facts["usage_error"]
    assert facts["pid"] == os.getpid()
