"""Completion scripts: what they offer, asked of a real bash."""

from __future__ import annotations

import argparse
import shlex
import subprocess

import pytest

from rain.cli import completion
from rain.cli.completion import Command, commands_of
from rain.cli.main import build_parser, main


@pytest.fixture(scope="module")
def script() -> str:
    return completion.bash_script(list(commands_of(build_parser())))


def completed(script: str, *words: str) -> set[str]:
    """What bash offers for the last of these words. File names are shown as what `compopt` is told."""
    program = f"""
{script}
compopt() {{ echo "compopt $*"; }}
COMP_WORDS=({" ".join(map(shlex.quote, words))})
COMP_CWORD={len(words) - 1}
[[ $(complete -p rain) == "complete -F _rain rain" ]] || exit 9
_rain || exit 8
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    command = ["bash", "--norc", "--noprofile", "-u", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.splitlines()) - {""}


def parser_at(*path: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    commands = {"rain": build_parser()}
    for word in path:
        parser = commands["rain"]
        subparsers = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        below = {
            **getattr(parser, "verbs", {}),
            **{name: one for sub in subparsers for name, one in sub.choices.items()},
        }
        commands["rain"] = below[word]
    return commands["rain"]


def test_commands(script: str) -> None:
    """All of them, at each level."""
    assert {"server", "worker", "governor", "session", "task", "status", "check-network"} <= completed(
        script, "rain", ""
    )
    assert completed(script, "rain", "sess") == {"session"}
    assert completed(script, "rain", "session", "") == {"list", "info", "close"}
    assert {"list", "info", "log", "explain", "cancel"} <= completed(script, "rain", "task", "")
    assert completed(script, "rain", "task", "l") == {"list", "log"}
    assert completed(script, "rain", "worker", "") == completed(script, "rain", "governor", "") == {"list", "stop"}
    assert completed(script, "rain", "completion", "") == {"bash", "zsh", "fish"}


@pytest.mark.parametrize(
    "path", [(), ("server",), ("worker",), ("worker", "list"), ("governor", "stop"), ("task", "log"), ("dump",)]
)
def test_options(script: str, path: tuple[str, ...]) -> None:
    """Those of the command, no others, none that are hidden."""
    shown = [action for action in parser_at(*path)._actions if action.help != argparse.SUPPRESS]
    expected = {option for action in shown for option in action.option_strings}
    assert "--help" in expected
    assert completed(script, "rain", *path, "-") == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status", "--output", ""], {"table", "json", "quiet"}),
        (["status", "--output", "=", "j"], {"json"}),
        (["status", "--output", "="], {"table", "json", "quiet"}),
        (["task", "list", "--state", "r"], {"ready", "running"}),
        (["task", "list", "--session", ""], set()),
        (["events", "--type", "TaskFi"], {"TaskFinished"}),
        (["status", "--token-file", ""], {"compopt -o default"}),
        (["worker", "--workdir", ""], {"compopt -o dirnames"}),
        (["worker", "stop", "--no"], {"--now"}),
        (["session", "info", ""], set()),
        (["nothing", ""], None),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_values(script: str, words: list[str], expected: set[str] | None) -> None:
    if expected is None:
        expected = completed(script, "rain", "")
    assert completed(script, "rain", *words) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--server", "session", "--o"],
        ["status", "--timeout", "=", "session", "--o"],
    ],
)
def test_the_value_of_an_option_is_no_command(script: str, words: list[str]) -> None:
    assert completed(script, "rain", *words) == {"--output"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert f"for {shell}" in printed.out
    assert "notAssigned" in printed.out
    assert "owner-fd" not in printed.out


def test_words_that_a_shell_could_take_for_something_else() -> None:
    """They are quoted."""
    hostile = Command("rain", ["$(touch x)"], {"-x": "it's; `y`"}, ["-x"], {"-x": ["a b'c"]})
    script = completion.bash_script([hostile])
    assert """words='$(touch x)'""" in script
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"""-d 'it\'s'""" in completion.fish_script([hostile])
