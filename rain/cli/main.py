"""The command `rain`: its parser, and how errors become exit codes."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import rain
from rain.cli.parser import EXIT_ERROR, Parser
from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_INTERRUPTED = 130

NOUNS = (
    *("server", "worker", "start", "stop", "status", "session", "task", "events", "dump"),
    *("check_network", "completion"),
)
"""The modules with the verbs, in the order of the help."""


def build_parser(word: str | None = None) -> Parser:
    """The parser of the command line; the chosen verb is `options.run`, absent without one.

    Args:
        word: the first one of the command line, so that only what it needs is imported; None: of the whole one.
    """
    parser = Parser(prog="rain", description="Distributed task graphs for Python.")
    parser.add_argument("-v", "--version", action="version", version=f"rain {rain.__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", title="commands")
    for noun in [word] if word in NOUNS else NOUNS:
        import_module(f"rain.cli.{noun}").add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; default those of this process.

    Returns:
        The exit code: 0 success, 1 any error, 3 a worker gave up on its server, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(given[0] if given else None)
    options = parser.parse_args(given)
    if not hasattr(options, "run"):
        parser.print_usage(sys.stderr)
        return EXIT_ERROR
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("rain: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_ERROR
    except (RainException, OSError) as error:
        print(f"rain: error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return code
