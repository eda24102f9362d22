"""`rain worker list` and `rain worker stop`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rain.cli import connection, status
from rain.cli.output import Report, Table, show
from rain.common.errors import RainTimeoutError
from rain.protocol.messages import Accepted, GetServerInfo, ServerInfo, StopWorkers

if TYPE_CHECKING:
    import argparse

    from rain.cli.parser import Parser


def add_verbs(worker: Parser) -> None:
    """Add the verbs, which come directly after `worker`."""
    every = worker.add_verb("list", description="List the workers of a server.")
    connection.add_management_options(every)
    every.set_defaults(run=run_list)
    stop = worker.add_verb(
        "stop",
        description="Stop workers: they finish what runs, objects that only they hold are copied to others, then they "
        "end. Returns when they are gone.",
    )
    stop.add_argument("workers", nargs="+", metavar="ID", help="IP:PORT, as `rain worker list` names them")
    stop.add_argument("--now", action="store_true", help="at once: what ran there runs again elsewhere")
    connection.add_management_options(stop)
    stop.set_defaults(run=run_stop)


def run_list(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        info = talk.ask(GetServerInfo, ServerInfo).info
    workers = status.worker_documents(info["workers"])
    report = Report({"workers": workers}, [status.worker_table(workers)], [worker["worker_id"] for worker in workers])
    show(report, options.output, sys.stdout)
    return 0


def run_stop(options: argparse.Namespace) -> int:
    """Tell the server, wait until they are gone."""
    workers = list(dict.fromkeys(options.workers))
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        try:
            talk.ask(lambda seq: StopWorkers(seq, workers, options.now), Accepted)
        except RainTimeoutError:
            raise RainTimeoutError(
                f"not all of these workers are gone after {options.timeout:g} s: {', '.join(workers)}; they take no "
                "new tasks and end by themselves when theirs are finished (see `rain worker list`); give a larger "
                "--timeout to wait for it, or --now to end them at once"
            ) from None
    report = Report({"stopped": workers}, [Table((), [("stopped", name) for name in workers])], workers)
    show(report, options.output, sys.stdout)
    return 0
