"""`rain task explain`: what is asked, what is printed."""

from __future__ import annotations

import argparse
import json
from array import array

import pytest

from rain.cli import connection, task, values
from rain.cli.connection import KnownServer
from rain.cli.main import main
from rain.common.errors import InvalidRequestError, RainException, RainTimeoutError
from rain.net.address import Address
from rain.net.secret import Secret
from rain.protocol.messages import Explain, Explained, ExplainTasks, TasksExplained

SERVER = KnownServer(Address("127.0.0.1", 7210), Secret("secret", "test"))


class Server:
    """Answers questions with what was prepared, and keeps the questions."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def ask(self, server, question, answer, timeout):
        assert server is SERVER
        assert 0 < timeout <= 10.0
        self.asked.append(question)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, answer)
        return found


@pytest.fixture
def serve(monkeypatch):
    """Install a server with answers."""

    def install(*answers):
        server = Server(*answers)
        monkeypatch.setattr(connection, "find_server", lambda _options: SERVER)
        monkeypatch.setattr(connection, "ask", server.ask)
        return server

    return install


def explained(entries, following=0):
    """An answer about (id, count, text)."""
    ids, counts, texts = zip(*entries, strict=True) if entries else ((), (), ())
    return TasksExplained(1, array("I", ids), array("I", counts), list(texts), following)


def run(capsys, selector, output="table"):
    """The printed output and errors of a successful call."""
    assert task.run_explain(argparse.Namespace(tasks=values.selector(selector), output=output, timeout=10.0)) == 0
    return capsys.readouterr()


@pytest.mark.parametrize("selector", ["1/12", "1:12", "1/12-12"])
def test_one(serve, capsys, selector):
    server = serve(Explained(1, ["Task 1/12 is ready:\n  10.0.0.1:7000: no"]))
    assert run(capsys, selector).out == "Task 1/12 is ready:\n  10.0.0.1:7000: no\n"
    assert server.asked == [Explain(connection.SEQ, 1, array("I", [12]))]


def test_one_in_other_forms(serve, capsys):
    serve(Explained(1, ["text"]), Explained(1, ["text"]))
    document = json.loads(run(capsys, "1/12", "json").out)
    assert document == {"tasks": [{"tasks": "1/12", "session": 1, "first": 12, "count": 1, "text": "text"}]}
    assert run(capsys, "1/12", "quiet").out == "1/12\n"


def test_several(serve, capsys):
    answers = [(11, 1, "one"), (13, 7, "seven\n  of them")]
    server = serve(explained(answers), explained(answers))
    assert run(capsys, "1/10-20").out == "one\n\nseven\n  of them\n"
    assert server.asked == [ExplainTasks(connection.SEQ, 1, 10, 20)]
    assert run(capsys, "1/10-20", "quiet").out == "1/11\n1/13-19\n"


def test_all_in_portions(serve, capsys):
    server = serve(explained([(11, 1, "one")], 12), explained([], 50), explained([(60, 1, "two")]))
    assert run(capsys, "3").out == "one\n\ntwo\n"
    assert [(one.session, one.first, one.last) for one in server.asked] == [
        (3, 0, values.LARGEST_ID),
        (3, 12, values.LARGEST_ID),
        (3, 50, values.LARGEST_ID),
    ]


def test_a_server_that_does_not_get_on(serve, capsys):
    """It would be asked the same for ever."""
    server = serve(explained([(11, 1, "one")], 12), explained([(12, 1, "two")], 12))
    assert run(capsys, "1").out == "one\n\ntwo\n"
    assert len(server.asked) == 2


def test_more_than_fits_into_the_time(serve, monkeypatch):
    serve(explained([(11, 1, "one")], 12))
    now = iter([0.0, 1.0, 11.0])
    monkeypatch.setattr(task.time, "monotonic", lambda: next(now))
    with pytest.raises(RainTimeoutError, match="select fewer"):
        task.run_explain(argparse.Namespace(tasks=values.selector("1"), output="table", timeout=10.0))


def test_no_tasks(serve, capsys):
    serve(explained([]), explained([]), explained([]))
    printed = run(capsys, "1")
    assert (printed.out, printed.err) == ("", "session 1 has no tasks\n")
    assert json.loads(run(capsys, "1", "json").out) == {"tasks": []}
    with pytest.raises(InvalidRequestError, match="no tasks with these ids"):
        run(capsys, "1/10-20")


@pytest.mark.parametrize("error", [InvalidRequestError("id 1/99 does not exist"), RainException("no server is known")])
def test_errors_are_exit_code_1(serve, capsys, error):
    serve(error)
    assert main(["task", "explain", "1/99"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"rain: error: {error}\n")


@pytest.mark.parametrize("arguments", [[], ["explain"], ["explain", "x"], ["frobnicate", "1/2"], ["explain", "1", "2"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["task", *arguments])
    assert caught.value.code == 1
    assert "error:" in capsys.readouterr().err
