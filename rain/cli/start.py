"""`rain start`: starts a server and workers on this machine, and leaves them running."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rain.cli import values
from rain.cli.children import Children
from rain.cli.server import DEFAULT_LISTEN, add_cache_options, add_http_option, add_security_options
from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.net.access import AccessFile, newest_access_file, read_access_file
from rain.net.address import DEFAULT_HOST, Address

if TYPE_CHECKING:
    import argparse

READY_TIMEOUT = 30.0


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "start",
        help="start a server and workers on this machine",
        description="Start a server and workers, wait until all are ready, print the addresses, leave them running.",
    )
    workers = parser.add_mutually_exclusive_group(required=True)
    workers.add_argument("--simple", action="store_true", help="one worker with all cpus")
    workers.add_argument(
        "--local-workers",
        "--local-governors",
        type=values.list_of_cpus,
        metavar="JSON",
        help="cpus of each worker, e.g. [4,4,2]",
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
    parser.add_argument("--logdir", metavar="DIR", help="default: /tmp/rain-logs/rain-HOST-PID")
    parser.add_argument("--workdir", metavar="DIR", help="default: each process its own, in /tmp/rain-work")
    parser.add_argument(
        "--worker-config", "--governor-config", metavar="PATH", help="TOML file with executor types, for all workers"
    )
    parser.add_argument("-S", action="store_true", dest="reserve_cpu", help="with --simple: leave a cpu to the server")
    parser.add_argument("--runprefix", default="", metavar="CMD", help="put before each program, e.g. 'nice -n 5'")
    add_security_options(parser)
    add_cache_options(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start.

    Attributes:
        cpus: per worker; None: all of the machine, negative: all but so many.
    """

    cpus: list[int | None]
    listen: Address
    logdir: Path
    workdir: Path | None
    worker_config: str | None
    prefix: list[str]
    token_file: str | None
    access_file: str | None
    insecure: bool
    http_listen: str | None
    http_auth: bool
    http_allow_origin: str | None
    cache: str
    cache_size: int


def plan_of(options: argparse.Namespace) -> Plan:
    """Read the options."""
    cpus: list[int | None] = list(options.local_workers or [])
    if options.simple:
        cpus = [-1 if options.reserve_cpu else None]
    logdir = options.logdir or f"/tmp/rain-logs/rain-{socket.gethostname()}-{os.getpid()}"
    return Plan(
        cpus=cpus,
        listen=Address.parse(options.listen),
        logdir=Path(logdir).absolute(),
        workdir=Path(options.workdir).absolute() if options.workdir else None,
        worker_config=options.worker_config,
        prefix=shlex.split(options.runprefix),
        token_file=options.token_file,
        access_file=options.access_file,
        insecure=options.insecure,
        http_listen=options.http_listen,
        http_auth=options.http_auth,
        http_allow_origin=options.http_allow_origin,
        cache=options.cache,
        cache_size=options.cache_size,
    )


def run(options: argparse.Namespace) -> int:
    """Start everything; when anything fails kill everything."""
    plan = plan_of(options)
    _make_private(plan.logdir)
    started = time.time()
    with Children(plan.logdir) as children:
        server = children.start("server", _server_command(plan))
        children.wait_ready([server], READY_TIMEOUT)
        access = _access(plan, started)
        address = _reachable_address(plan, access)
        workers = [
            children.start(f"worker-{number}", _worker_command(plan, number, address))
            for number in range(len(plan.cpus))
        ]
        children.wait_ready(workers, READY_TIMEOUT)
    count = "1 worker" if len(workers) == 1 else f"{len(workers)} workers"
    print(f"Rain is running at {address} with {count}")
    if access is not None and access.http_port is not None:
        print(f"Dashboard: {_dashboard_url(plan, access, access.http_port)}")
    print(f"Logs: {plan.logdir}")
    print(f"Stop it with: rain stop --server {address}", flush=True)
    return 0


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise RainException(f"the log directory {directory} belongs to another user; choose another --logdir")


def _program(plan: Plan, verb: str) -> list[str]:
    return [*plan.prefix, sys.executable, "-m", "rain", verb]


def _directories(plan: Plan, name: str) -> list[str]:
    own = ["--logdir", str(plan.logdir / name)]
    return own if plan.workdir is None else [*own, "--workdir", str(plan.workdir / name)]


def _secret(plan: Plan) -> list[str]:
    token = ["--token-file", plan.token_file] if plan.token_file else []
    return token + (["--access-file", plan.access_file] if plan.access_file else [])


def _server_command(plan: Plan) -> list[str]:
    insecure = ["--insecure"] if plan.insecure else []
    options = ["--listen", str(plan.listen), "--cache", plan.cache, "--cache-size", str(plan.cache_size)]
    return [*_program(plan, "server"), *options, *_directories(plan, "server"), *_secret(plan), *insecure, *_http(plan)]


def _http(plan: Plan) -> list[str]:
    options = [] if plan.http_listen is None else ["--http-listen", plan.http_listen]
    if plan.http_auth:
        options.append("--http-auth")
    return options + ([] if plan.http_allow_origin is None else ["--http-allow-origin", plan.http_allow_origin])


def _worker_command(plan: Plan, number: int, address: Address) -> list[str]:
    command = [*_program(plan, "worker"), str(address), *_directories(plan, f"worker-{number}"), *_secret(plan)]
    cpus = plan.cpus[number]
    if cpus is not None:
        command.append(f"--cpus={cpus}")
    if plan.worker_config:
        command += ["--config", plan.worker_config]
    return command


def _access(plan: Plan, started: float) -> AccessFile | None:
    """What the server wrote into its access file; None if it is not found."""
    if plan.access_file:
        return read_access_file(plan.access_file)
    found = newest_access_file(os.environ, Address("127.0.0.1", plan.listen.port) if plan.listen.port else None)
    return found[1] if found is not None and found[1].created >= started else None


def _reachable_address(plan: Plan, access: AccessFile | None) -> Address:
    """Where processes of this machine reach the server.

    The listening address alone does not tell: it may be 0.0.0.0, or leave the port to the system.
    """
    if access is not None:
        return access.address
    if not plan.listen.port:
        raise RainException("the server wrote no access file, so its port is not known; choose one with --listen")
    return plan.listen


def _dashboard_url(plan: Plan, access: AccessFile, port: int) -> str:
    """Where a browser finds the dashboard, with the secret, as the browser may be another user's or elsewhere."""
    host = DEFAULT_HOST if plan.http_listen is None else Address.parse(plan.http_listen).host
    if host in ("0.0.0.0", "::"):
        host = next((address for address in access.addresses if address not in ("0.0.0.0", "::")), access.hostname)
    query = "" if access.token is None else f"?token={quote(access.token, safe='')}"
    return f"http://{Address(host, port)}/{query}"
