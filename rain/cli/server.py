"""`rain server`: runs a server in the foreground."""

from __future__ import annotations

import argparse
import gc
import os
from typing import TYPE_CHECKING, Any

from rain.cli import values
from rain.cli.log import set_up_logging
from rain.cli.parser import EXIT_ERROR
from rain.cli.signals import end_at_once_by_signals

if TYPE_CHECKING:
    from rain.server.main import ServerOptions

DEFAULT_LISTEN = "127.0.0.1:7210"


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "server",
        help="run a server in the foreground",
        description="Run a server: it holds task graphs and tells workers what to do.",
    )
    parser.add_argument(
        "-l",
        "--listen",
        type=values.address,
        default=DEFAULT_LISTEN,
        metavar="ADDR",
        help=f"default: {DEFAULT_LISTEN}",
    )
    add_http_option(parser)
    parser.add_argument("--logdir", metavar="DIR", help="default: /tmp/rain-logs/server-HOST-PID")
    parser.add_argument("--workdir", metavar="DIR", help="default: /tmp/rain-work/server-HOST-PID")
    parser.add_argument("--ready-file", metavar="FILE", help="gets the line `ready` when connections are accepted")
    add_security_options(parser)
    parser.add_argument(
        "--infeasible-timeout",
        type=values.duration_or_none,
        default=60.0,
        metavar="T",
        help="tasks that no worker could ever run fail after this time, `none`: never; default 60 s",
    )
    parser.add_argument(
        "--crash-limit",
        type=values.not_negative,
        default=3,
        metavar="N",
        help="a task that was running on so many workers when they were lost fails, 0: never; default 3",
    )
    add_cache_options(parser)
    parser.add_argument(
        "--idle-timeout",
        type=values.duration_or_none,
        metavar="T",
        help="end after this time without clients, sessions and tasks; default: never",
    )
    parser.add_argument("--owner-fd", type=values.not_negative, help=argparse.SUPPRESS)
    parser.add_argument("--listen-fd", type=values.not_negative, help=argparse.SUPPRESS)
    parser.add_argument("--access-dir", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--with-worker", nargs=3, metavar=("CPUS", "WORKDIR", "LOGDIR"), help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def add_http_option(parser: argparse.ArgumentParser) -> None:
    """The option that says where the dashboard is; `rain start` hands it on."""
    parser.add_argument(
        "--http-listen",
        type=values.http_address,
        metavar="ADDR",
        help="of the dashboard, `none`: there is none; default: 127.0.0.1:7222, or another free port",
    )


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where results are kept; `rain start` hands them on."""
    parser.add_argument(
        "--cache",
        metavar="URL",
        default="dir",
        help="the result cache: dir[:PATH], memcached://HOST:PORT[,HOST:PORT..][?key_file=FILE] or none; default: dir, "
        "which is in the work directory",
    )
    parser.add_argument(
        "--cache-size",
        type=values.size,
        default=1 << 30,
        metavar="SIZE",
        help="most bytes of a result cache in a directory; default 1 GiB",
    )


def add_security_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what the server's secret is; `rain start` hands them on."""
    parser.add_argument("--token-file", metavar="FILE", help="file with the secret; default: a new one at each start")
    parser.add_argument("--access-file", metavar="FILE", help="write the access file there instead of its usual place")
    parser.add_argument("--insecure", action="store_true", help="let everybody in who can reach the port")
    parser.add_argument(
        "--http-auth", action="store_true", help="the dashboard demands the secret from your local processes too"
    )
    parser.add_argument(
        "--http-allow-origin",
        type=values.origin,
        metavar="O",
        help="pages of this origin (http://HOST[:PORT]; *: any) may ask the dashboard",
    )


def run(options: argparse.Namespace) -> int:
    """Run the server until it is told to stop."""
    end_at_once_by_signals()
    set_up_logging(os.environ)
    gc.disable()  # until it is told to leave alone what is imported now
    if options.with_worker is None:
        from rain.server.main import run_server

        return run_server(server_options(options))
    return _run_with_worker(options)


def _run_with_worker(options: argparse.Namespace) -> int:
    from rain.worker.options import WorkerOptions
    from rain.worker.place import take_place

    cpus, workdir, logdir = options.with_worker
    worker = WorkerOptions(
        server="",
        cpus=int(cpus),
        workdir=workdir,
        logdir=logdir,
        delete_timeout=values.delete_timeout(os.environ),
        owner_fd=options.owner_fd,
    )
    place = take_place(worker)
    if place is None:
        return EXIT_ERROR
    from rain.launch.inner import run_with_worker  # takes its time, in which the first executor starts

    return run_with_worker(server_options(options), worker, place)


def server_options(options: argparse.Namespace) -> ServerOptions:
    """What the command line asks for."""
    from rain.server.main import ServerOptions

    return ServerOptions(
        listen=options.listen,
        logdir=options.logdir,
        workdir=options.workdir,
        ready_file=options.ready_file,
        token_file=options.token_file,
        access_file=options.access_file,
        access_dir=options.access_dir,
        cache=options.cache,
        cache_size=options.cache_size,
        insecure=options.insecure,
        http_listen=options.http_listen,
        http_auth=options.http_auth,
        http_allow_origin=options.http_allow_origin,
        infeasible_timeout=options.infeasible_timeout,
        crash_limit=options.crash_limit,
        idle_timeout=options.idle_timeout,
        owner_fd=options.owner_fd,
        listen_fd=options.listen_fd,
    )
