"""`rain check-network`: who cannot reach whom."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from typing import TYPE_CHECKING, Any

import rain
from rain.cli import connection
from rain.cli.output import Report, Table, show
from rain.cli.parser import EXIT_ERROR
from rain.common.errors import AuthenticationError, RainConnectionError, RainException, RainTimeoutError
from rain.common.structs import dataclass
from rain.net.address import Address
from rain.protocol.messages import CheckNetwork, GetServerInfo, NetworkChecked, ServerInfo

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rain.cli.connection import KnownServer

TIMEOUT = 30.0
"""Default: workers take some time to find out that nobody answers."""
PORT_SECONDS = 5.0
"""How long a data port may take to shake hands."""
AT_ONCE = 16
"""Data ports that are tried at the same time."""
NO_ANSWER = "it has not answered the server's question which other workers it reaches"


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "check-network",
        help="find out who cannot reach whom",
        description="Check the way from here to the server (connection, handshake, secret, version), from here to the "
        "data port of every worker, and from every worker to every other one. Exit code 1 if anything fails.",
    )
    parser.add_argument("address", nargs="?", metavar="ADDR", help="of the server; the same as --server")
    connection.add_management_options(parser, TIMEOUT)
    parser.set_defaults(run=run)


@dataclass(slots=True)
class WorkerCheck:
    """What was found out about a worker.

    Attributes:
        worker_id: its id.
        error: why its data port cannot be reached from here, or None.
        has_answered: whether it said which others it reaches.
        failures: errors by the workers it cannot reach.
    """

    worker_id: str
    error: str | None
    has_answered: bool = False
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def is_fine(self) -> bool:
        """Nothing failed."""
        return self.error is None and self.has_answered and not self.failures


@dataclass(slots=True)
class ServerCheck:
    """What was found out about the server. error: why it cannot be talked to, or None."""

    address: str
    error: str | None = None
    version: str | None = None


def run(options: argparse.Namespace) -> int:
    """Check everything and print."""
    if options.address and options.server:
        raise RainException("the server is named twice; give its address either as argument or by --server")
    options.server = options.address or options.server
    server = connection.find_server(options)
    checked, workers = ServerCheck(str(server.address)), list[WorkerCheck]()
    try:
        with connection.Talk(server, options.timeout) as talk:
            info = talk.ask(GetServerInfo, ServerInfo).info
            checked.version = info["server"]["version"]
            workers = _check_workers(server, [worker["worker_id"] for worker in info["workers"]], options.timeout)
            talk.renew()
            with contextlib.suppress(RainTimeoutError):  # then none of them counts as having answered
                add_answers(workers, talk.ask(CheckNetwork, NetworkChecked).result)
    except (RainConnectionError, RainTimeoutError, AuthenticationError) as error:
        checked.error = str(error)
    show(report_of(checked, workers), options.output, sys.stdout)
    return 0 if checked.error is None and all(worker.is_fine for worker in workers) else EXIT_ERROR


def _check_workers(server: KnownServer, workers: Sequence[str], timeout: float) -> list[WorkerCheck]:
    """Shake hands with the data port of every worker."""

    def check(worker: str) -> WorkerCheck:
        return WorkerCheck(worker, _port_error(worker, server, min(timeout, PORT_SECONDS)))

    if not workers:
        return []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(check, sorted(workers)))


def _port_error(worker: str, server: KnownServer, timeout: float) -> str | None:
    """Why a data port cannot be reached, None if it can."""
    from rain.net.sockets import open_connection

    try:
        sock, _ = open_connection(Address.parse(worker), "data", server.secret, timeout)
    except (RainException, ValueError) as error:
        return str(error)
    sock.close()
    return None


def add_answers(workers: Sequence[WorkerCheck], result: dict[str, Any]) -> None:
    """Note what the workers told the server of one another."""
    told = {entry["worker_id"]: entry for entry in result.get("workers", ())}
    for worker in workers:
        entry = told.get(worker.worker_id)
        if entry is not None and entry["answered"]:
            worker.has_answered = True
            worker.failures = {failure["to"]: failure["error"] for failure in entry["failures"]}


def report_of(server: ServerCheck, workers: Sequence[WorkerCheck]) -> Report:
    """What was found out, in all forms of output; `quiet` names who could not be reached."""
    failed: dict[str, None] = {} if server.error is None else {server.address: None}
    lines = [("here", f"server {server.address}", _result(server))]
    lines += [("here", f"worker {worker.worker_id}", worker.error or "ok") for worker in workers]
    for worker in workers:
        others = len(workers) - 1 - len(worker.failures)
        if not worker.has_answered:
            lines.append((f"worker {worker.worker_id}", "other workers", NO_ANSWER))
        elif others > 0:
            lines.append((f"worker {worker.worker_id}", f"{others} other workers", "ok"))
        lines += [(f"worker {worker.worker_id}", f"worker {to}", error) for to, error in worker.failures.items()]
        if worker.error is not None or not worker.has_answered:
            failed[worker.worker_id] = None
        failed |= dict.fromkeys(worker.failures)
    document = {
        "ok": not failed,
        "server": {
            "address": server.address,
            "ok": server.error is None,
            "error": server.error,
            "version": server.version,
        },
        "workers": [
            {
                "worker_id": worker.worker_id,
                "ok": worker.is_fine,
                "error": worker.error,
                "answered": worker.has_answered,
                "failures": [{"to": to, "error": error} for to, error in worker.failures.items()],
            }
            for worker in workers
        ],
    }
    return Report(document, [Table(("from", "to", "result"), lines)], list(failed))


def _result(server: ServerCheck) -> str:
    if server.error is not None:
        return server.error
    differs = server.version != rain.__version__
    return f"ok, Rain {server.version}" + (f" (here: {rain.__version__})" if differs else "")
