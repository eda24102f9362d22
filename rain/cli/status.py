"""`rain status`: what the server and its workers are doing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rain.cli import connection
from rain.cli.output import Report, Table, format_seconds, show
from rain.common.units import format_size
from rain.protocol.messages import GetServerInfo, ServerInfo

if TYPE_CHECKING:
    import argparse


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("status", help="show address, version, uptime, workers and sessions of a server")
    connection.add_management_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    server = connection.find_server(options)
    answer = connection.ask(server, GetServerInfo(connection.SEQ), ServerInfo, options.timeout)
    show(report_of(answer.info), options.output, sys.stdout)
    return 0


def report_of(info: dict[str, Any]) -> Report:
    """The answer of a server in all forms of output; `quiet` names the workers."""
    server = info["server"]
    workers = sorted((_worker(entry) for entry in info["workers"]), key=lambda worker: str(worker["worker_id"]))
    document = {
        "server": {key: server.get(key) for key in ("address", "version", "uptime", "sessions", "http_url")},
        "workers": workers,
    }
    summary = Table(
        (),
        [
            ("address", str(server["address"])),
            ("version", str(server["version"])),
            ("uptime", format_seconds(server["uptime"])),
            ("sessions", str(server["sessions"])),
            ("workers", str(len(workers))),
        ],
    )
    table = Table(
        ("worker", "host", "pid", "resources", "tasks", "objects"),
        [
            (
                worker["worker_id"],
                worker["hostname"],
                str(worker["pid"]),
                format_resources(worker["resources"]),
                str(worker["tasks"]),
                str(worker["objects"]),
            )
            for worker in workers
        ],
    )
    return Report(document, [summary, table], [worker["worker_id"] for worker in workers])


def _worker(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "worker_id": entry["worker_id"],
        "hostname": entry["hostname"],
        "pid": entry["pid"],
        "resources": entry["resources"],
        "tasks": len(entry["tasks"]),
        "objects": len(entry["objects"]),
    }


def format_resources(resources: dict[str, Any]) -> str:
    """Resources for people: `cpus=4 gpus=0,1 memory=7.6 GiB licences=2`; what there is none of is left out."""
    parts = []
    for name, amount in resources.items():
        if amount in ([], 0):
            continue
        if name == "memory":
            text = format_size(amount)
        elif isinstance(amount, list | tuple):
            text = ",".join(str(index) for index in amount)
        else:
            text = f"{amount:g}"
        parts.append(f"{name}={text}")
    return " ".join(parts)
