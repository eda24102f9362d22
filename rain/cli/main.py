"""The command `rain`: its parser, and how errors become exit codes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import rain
from rain.cli import check_network, completion, dump, events, server, session, start, status, stop, task, worker
from rain.cli.parser import EXIT_ERROR, Parser
from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_INTERRUPTED = 130


def build_parser() -> Parser:
    """The parser of the whole command line; the chosen verb is `options.run`, absent without one."""
    parser = Parser(prog="rain", description="Distributed task graphs for Python.")
    parser.add_argument("-v", "--version", action="version", version=f"rain {rain.__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", title="commands")
    for noun in (server, worker, start, stop, status, session, task, events, dump, check_network, completion):
        noun.add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; default those of this process.

    Returns:
        The exit code: 0 success, 1 any error, 3 a worker gave up on its server, 130 interrupted.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
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
