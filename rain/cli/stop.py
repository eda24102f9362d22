"""`rain stop`: ends workers and server in order."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil

from rain.cli import connection
from rain.cli.killing import kill_cluster
from rain.cli.output import Report, Table, show
from rain.common.errors import RainTimeoutError
from rain.net.access import is_own_hostname, newest_access_file
from rain.protocol.messages import Accepted, GetServerInfo, ServerInfo, StopServer

if TYPE_CHECKING:
    import argparse

POLL_SECONDS = 0.02


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("stop", help="end workers and server in order; return when they are gone")
    parser.add_argument(
        "--force", action="store_true", help="kill server and workers on this machine, for a server that hangs"
    )
    connection.add_management_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the server to end, wait until it and the workers on this machine have."""
    if options.force:
        return _kill(options)
    deadline = time.monotonic() + options.timeout
    server = connection.find_server(options)
    info = connection.ask(server, GetServerInfo(connection.SEQ), ServerInfo, options.timeout).info
    processes = _processes_here(server, info)
    left = max(deadline - time.monotonic(), 0.0)
    connection.ask(server, StopServer(connection.SEQ), Accepted, left, until_closed=True)
    while alive := [process.pid for process in processes if _is_alive(process)]:
        if time.monotonic() > deadline:
            raise RainTimeoutError(
                f"the server {server.address} has closed its connections, but these of its processes are still there: "
                f"{', '.join(map(str, alive))}; look into their logs"
            )
        time.sleep(POLL_SECONDS)
    address = str(server.address)
    show(Report({"stopped": address}, [Table((), [("stopped", address)])], [address]), options.output, sys.stdout)
    return 0


def _kill(options: argparse.Namespace) -> int:
    killed = kill_cluster(options)
    numbers = [str(pid) for pid in killed]
    text = ", ".join(numbers) or "nothing: it was not running"
    show(Report({"killed": killed}, [Table((), [("killed", text)])], numbers), options.output, sys.stdout)
    return 0


def _processes_here(server: connection.KnownServer, info: dict[str, Any]) -> list[psutil.Process]:
    """The processes of the cluster on this machine: its workers, and the server if an access file tells its pid."""
    pids = [worker["pid"] for worker in info["workers"] if is_own_hostname(worker["hostname"])]
    found = newest_access_file(os.environ, server.address)
    if found is not None and is_own_hostname(found[1].hostname):
        pids.append(found[1].pid)
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    return processes


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
