"""docs/cli.md tells of every command and option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rain.cli.completion import Command, commands_of
from rain.cli.main import build_parser

PAGE = (Path(__file__).resolve().parents[2] / "docs/cli.md").read_text("utf-8")
COMMANDS = [one for one in commands_of(build_parser()) if "governor" not in one.path.split()]
NOUNS = {"rain", "rain session", "rain task"}
IN_COMMON = {"-h", "--help", "-v", "--version", "--server", "--token-file", "--access-file", "--timeout", "--output"}


def sections() -> dict[str, str]:
    """Text by command."""
    parts = re.split(r"^## `(rain[^`]*)`\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_a_section_and_the_other_way_round() -> None:
    assert set(sections()) == {one.path for one in COMMANDS} - NOUNS


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.path)
def test_options(command: Command) -> None:
    text = PAGE if command.path in NOUNS else sections()[command.path]
    common = PAGE.split("\n# ")[0]
    for option in command.options:
        where = common if option in IN_COMMON else text
        assert re.search(rf"`{option}[`= |]", where), f"{option} of `{command.path}` is not in docs/cli.md"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.path)
def test_options_that_are_named_exist(command: Command) -> None:
    if command.path in NOUNS:
        return
    named = set(re.findall(r"^\| .*?`(--[\w-]+)", sections()[command.path], flags=re.MULTILINE))
    assert named <= set(command.options)


def test_links_lead_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", title).strip().replace(" ", "-") for title in re.findall(r"^#+ (.*)", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
