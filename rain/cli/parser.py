"""The parser of the command line: argparse with the exit codes of `rain`, and verbs that follow a command's name."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_ERROR = 1


class Parser(argparse.ArgumentParser):
    """Wrong usage ends with exit code 1, as all errors of `rain` do.

    Attributes:
        verbs: parsers by the word that must come directly after the name of this command, for commands that also take
            other arguments there (`rain worker list` beside `rain worker HOST`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line and end."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_ERROR, f"{self.prog}: error: {message}\n")

    def add_verb(self, word: str, **options: Any) -> Parser:
        """Add a verb; options as of a parser."""
        verb = self.verbs[word] = Parser(prog=f"{self.prog} {word}", **options)
        return verb

    def parse_known_args(  # type: ignore[override]  # the overloads of the base, which differ in their results
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As of the base, but a verb has its own arguments."""
        if args and args[0] in self.verbs:
            return self.verbs[args[0]].parse_known_args(args[1:], namespace)
        return super().parse_known_args(args, namespace)
