"""`rain worker` (`rain governor`): runs a worker in the foreground, unless `list` or `stop` is the next word."""

from __future__ import annotations

import argparse
import gc
import os
from typing import TYPE_CHECKING, Any

from rain.cli import connection, values, worker_verbs
from rain.cli.log import set_up_logging
from rain.cli.signals import end_at_once_by_signals

if TYPE_CHECKING:
    from rain.worker.options import WorkerOptions


def add_parser(verbs: Any) -> None:
    """Add the verb and its alias."""
    parser = verbs.add_parser(
        "worker",
        aliases=["governor"],
        help="run a worker in the foreground; list and stop workers",
        description="Run a worker: it offers this machine's resources to a server and runs tasks.",
        epilog="`rain worker list` lists the workers of a server, `rain worker stop ID ..` stops some; a server on a "
        "host of that name is written with its port.",
    )
    worker_verbs.add_verbs(parser)
    parser.add_argument("server", nargs="?", metavar="SERVER[:PORT]", help="default: as for `rain status`")
    parser.add_argument(
        "-l",
        "--listen",
        type=values.data_address,
        metavar="ADDR",
        help="data port; default: a free one, where the connection to the server comes from",
    )
    parser.add_argument("--cpus", type=values.cpus_or_detect, metavar="N|detect", help="negative: all but so many")
    parser.add_argument("--gpus", type=values.gpus_or_detect, metavar="N|LIST|detect", help="number, or indices 0,2")
    parser.add_argument("--memory", type=values.size_or_detect, metavar="SIZE|detect", help="memory offered to tasks")
    parser.add_argument(
        "--resource",
        type=values.named_amount,
        action="append",
        default=[],
        metavar="NAME=AMOUNT",
        help="custom resource; repeatable",
    )
    parser.add_argument("--config", metavar="PATH", help="TOML file with executor types")
    parser.add_argument("--workdir", metavar="DIR", help="default: /tmp/rain-work/worker-HOST-PID")
    parser.add_argument("--logdir", metavar="DIR", help="default: /tmp/rain-logs/worker-HOST-PID")
    parser.add_argument("--ready-file", metavar="FILE", help="gets the line `ready` when the worker is registered")
    parser.add_argument(
        "--executor-timeout",
        type=values.duration,
        default=30.0,
        metavar="T",
        help="how long an executor may take to start; default: 30 s",
    )
    parser.add_argument(
        "--spare-executors",
        type=values.not_negative,
        default=1,
        metavar="N",
        help="Python executors started before they are needed; default: 1",
    )
    parser.add_argument(
        "--reconnect-timeout",
        type=values.duration,
        default=30.0,
        metavar="T",
        help="how long to try again after the server is lost, 0: not at all; default: 30 s",
    )
    connection.add_secret_options(parser)
    parser.add_argument("--owner-fd", type=values.not_negative, help=argparse.SUPPRESS)
    parser.add_argument("--connect-timeout", type=values.duration, default=10.0, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the worker until it is told to stop, or gives up on its server (exit code 3)."""
    gc.disable()  # until it is told to leave alone what is imported now
    from rain.worker.main import run_worker

    end_at_once_by_signals()
    set_up_logging(os.environ)
    return run_worker(worker_options(options))


def worker_options(options: argparse.Namespace) -> WorkerOptions:
    """What the command line asks for, with the address and the secret of the server."""
    from rain.worker.options import WorkerOptions

    server = connection.find_server(options)
    return WorkerOptions(
        server=str(server.address),
        secret=server.secret,
        listen=options.listen,
        cpus=options.cpus,
        gpus=options.gpus,
        memory=options.memory,
        resources=dict(options.resource),
        config=options.config,
        workdir=options.workdir,
        logdir=options.logdir,
        ready_file=options.ready_file,
        executor_timeout=options.executor_timeout,
        spare_executors=options.spare_executors,
        connect_timeout=options.connect_timeout,
        reconnect_timeout=options.reconnect_timeout,
        delete_timeout=values.delete_timeout(os.environ),
        owner_fd=options.owner_fd,
    )
