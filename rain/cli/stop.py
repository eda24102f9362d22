"""`rain stop`: ends workers and server in order."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rain.cli import connection
from rain.cli.output import Report, Table, show
from rain.protocol.messages import Accepted, StopServer

if TYPE_CHECKING:
    import argparse


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("stop", help="end workers and server in order; return when they are gone")
    connection.add_management_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the server to end and wait until it has."""
    server = connection.find_server(options)
    connection.ask(server, StopServer(connection.SEQ), Accepted, options.timeout, until_closed=True)
    address = str(server.address)
    show(Report({"stopped": address}, [Table((), [("stopped", address)])], [address]), options.output, sys.stdout)
    return 0
