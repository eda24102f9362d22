"""Verbs that follow a command's name directly."""

from __future__ import annotations

import pytest

from rain.cli import worker, worker_verbs
from rain.cli.main import build_parser


@pytest.mark.parametrize("name", ["worker", "governor"])
def test_a_verb_comes_next(name):
    options = build_parser().parse_args([name, "list", "--output", "json"])
    assert (options.run, options.output) == (worker_verbs.run_list, "json")
    options = build_parser().parse_args([name, "stop", "1.2.3.4:5", "[::1]:6", "--now"])
    assert (options.run, options.workers, options.now) == (worker_verbs.run_stop, ["1.2.3.4:5", "[::1]:6"], True)


@pytest.mark.parametrize(
    ("arguments", "server"),
    [
        ([], None),
        (["host:7000"], "host:7000"),
        (["list:7210"], "list:7210"),
        (["--cpus", "2", "list"], "list"),
        (["--", "stop"], "stop"),
    ],
)
def test_everything_else_runs_a_worker(arguments, server):
    options = build_parser().parse_args(["worker", *arguments])
    assert (options.run, options.server) == (worker.run, server)


def test_help_tells_of_the_verbs(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["worker", "--help"])
    assert "rain worker list" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        build_parser().parse_args(["worker", "stop", "--help"])
    assert capsys.readouterr().out.startswith("usage: rain worker stop")
