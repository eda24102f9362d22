"""The command as a whole: usage, versions, exit codes."""

from __future__ import annotations

import argparse

import pytest

import rain
from rain.cli import status
from rain.cli.main import NOUNS, build_parser, main
from rain.common.errors import AuthenticationError


def test_without_subcommand(capsys):
    """Usage on stderr, exit code 1."""
    assert main([]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("usage: rain")
    assert printed.out == ""


@pytest.mark.parametrize("option", ["--version", "-v"])
def test_version(option, capsys):
    """On stdout, exit code 0."""
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"rain {rain.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["server", "--help"], ["governor", "-h"], ["start", "-h"]])
def test_help(arguments, capsys):
    """On stdout, exit code 0; hidden options stay hidden."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: rain")
    assert "owner-fd" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["server", "--crash-limit=-1"],
        ["worker", "--cpus=0"],
        ["worker", "--resource=x"],
        ["status", "--output=xml"],
        ["status", "--timeout=soon"],
    ],
)
def test_wrong_usage_is_exit_code_1(arguments, capsys):
    """Not 2, as argparse has it."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (AuthenticationError("wrong secret"), 1, "rain: error: wrong secret"),
        (FileNotFoundError(2, "No such file or directory", "x.toml"), 1, "x.toml"),
        (KeyboardInterrupt(), 130, "rain: interrupted"),
    ],
)
def test_errors_become_exit_codes(error, code, text, monkeypatch, capsys):
    """People get a line, not a traceback."""

    def fail(options: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(status, "run", fail)
    assert main(["status"]) == code
    assert text in capsys.readouterr().err


def test_defaults_of_the_server():
    """As the manual says."""
    options = build_parser().parse_args(["server"])
    assert options.listen == "127.0.0.1:7210"
    assert options.infeasible_timeout == 60.0
    assert options.crash_limit == 3
    assert options.idle_timeout is None
    assert options.logdir is None


@pytest.mark.parametrize("name", ["worker", "governor"])
def test_defaults_of_the_worker(name):
    """Both names; everything is detected."""
    options = build_parser().parse_args([name])
    assert options.server is None
    assert (options.cpus, options.gpus, options.memory) == (None, None, None)
    assert options.executor_timeout == 30.0
    assert options.spare_executors == 1
    assert options.reconnect_timeout == 30.0


def test_options_of_the_worker():
    """All kinds of values."""
    options = build_parser().parse_args(
        ["worker", "host:7000", "--cpus=-1", "--gpus=0,2", "--memory=2 GiB", "--resource=a=1", "--resource", "b=0.5"]
    )
    assert options.server == "host:7000"
    assert (options.cpus, options.gpus, options.memory) == (-1, (0, 2), 2 << 30)
    assert options.resource == [("a", 1.0), ("b", 0.5)]


@pytest.mark.parametrize("word", NOUNS)
def test_a_word_makes_its_own_part_of_the_parser(word: str) -> None:
    (own,) = commands(build_parser(word)) - {"governor"}
    assert own == word.replace("_", "-")


@pytest.mark.parametrize("word", [None, "--version", "nonsense"])
def test_other_words_make_the_whole_parser(word: str | None) -> None:
    assert commands(build_parser(word)) == {word.replace("_", "-") for word in NOUNS} | {"governor"}


def commands(parser: argparse.ArgumentParser) -> set[str]:
    """The commands that a parser knows."""
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return set(action.choices)
