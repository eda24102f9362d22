"""`rain status`: what the server and its workers are doing, once or again each second."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from rain.cli import connection, rows
from rain.cli.live import Screen
from rain.cli.output import Report, Table, format_seconds, format_time, show
from rain.common.errors import RainException
from rain.common.states import TaskState
from rain.common.units import format_size
from rain.protocol.messages import GetServerInfo, ServerInfo

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from rain.cli.connection import Talk

WATCH_SECONDS = 1.0


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("status", help="show address, version, uptime, workers, sessions, tasks of a server")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show it again each second, until Ctrl-C; on a terminal in place, else a line each",
    )
    connection.add_management_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    if options.watch and options.output == "quiet":
        raise RainException("--watch shows a table or --output json, but not --output quiet; leave one of them out")
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        if options.watch:
            return _watch(talk, options.output)
        show(report_of(_ask(talk)), options.output, sys.stdout)
    return 0


def _ask(talk: Talk) -> dict[str, Any]:
    return talk.ask(GetServerInfo, ServerInfo).info


def _watch(talk: Talk, form: str) -> int:
    """Show it until Ctrl-C, which is how one ends this: exit code 0."""
    try:
        with Screen(sys.stdout) as screen:
            while True:
                report = report_of(_ask(talk))
                if form == "json":
                    print(json.dumps(report.document, sort_keys=True), flush=True)
                elif screen.is_terminal:
                    screen.draw([format_time(time.time()), "", *report.text("table").splitlines()])
                else:
                    print(line_of(report.document, time.time()), flush=True)
                time.sleep(WATCH_SECONDS)
                talk.renew()
    except KeyboardInterrupt:
        return 0


def report_of(info: dict[str, Any]) -> Report:
    """The answer of a server in all forms of output; `quiet` names the workers."""
    server = info["server"]
    workers = worker_documents(info["workers"])
    told = server.get("tasks", {})
    tasks = {state.name: told.get(state.name, 0) for state in TaskState}
    totals = {name: _total(worker[name] for worker in workers) for name in ("free", "resources")}
    resources = {"free": totals["free"], "total": totals["resources"]}
    document = {
        "server": {key: server.get(key) for key in ("address", "version", "uptime", "sessions", "http_url")},
        "tasks": tasks,
        "resources": resources,
        "workers": workers,
    }
    summary = Table(
        (),
        [
            ("address", str(server["address"])),
            ("version", str(server["version"])),
            ("uptime", format_seconds(server["uptime"])),
            *([("dashboard", str(server["http_url"]))] if server.get("http_url") else []),
            ("sessions", str(server["sessions"])),
            ("tasks", rows.format_counts(tasks)),
            ("workers", str(len(workers))),
            ("free/total", format_shares(resources["free"], resources["total"]) or "-"),
        ],
    )
    return Report(document, [summary, worker_table(workers)], [worker["worker_id"] for worker in workers])


def line_of(document: dict[str, Any], now: float) -> str:
    """A status as one line."""
    resources = document["resources"]
    parts = [
        f"{document['server']['sessions']} sessions",
        f"tasks: {rows.format_counts(document['tasks'])}",
        f"{len(document['workers'])} workers",
        f"free: {format_shares(resources['free'], resources['total']) or '-'}",
    ]
    return f"{format_time(now)}  {'; '.join(parts)}"


# --- workers ---


def worker_documents(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Workers as the server tells them, for JSON, by rising id."""
    return sorted(map(_worker, entries), key=lambda worker: str(worker["worker_id"]))


def _worker(entry: dict[str, Any]) -> dict[str, Any]:
    store = entry.get("store") or {}
    return {
        "worker_id": entry["worker_id"],
        "hostname": entry["hostname"],
        "pid": entry["pid"],
        "state": entry.get("state", "connected"),
        "resources": entry["resources"],
        "free": entry.get("free", {}),
        "tasks": len(entry["tasks"]),
        "objects": len(entry["objects"]),
        "bytes": sum(store.values()) if store else None,
    }


def worker_table(workers: Sequence[dict[str, Any]]) -> Table:
    """Workers for people."""
    return Table(
        ("worker", "host", "pid", "state", "free/total", "tasks", "objects", "bytes"),
        [
            (
                worker["worker_id"],
                worker["hostname"],
                str(worker["pid"]),
                worker["state"],
                format_shares(worker["free"], worker["resources"]),
                str(worker["tasks"]),
                str(worker["objects"]),
                "-" if worker["bytes"] is None else format_size(worker["bytes"]),
            )
            for worker in workers
        ],
    )


def _total(parts: Any) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + _number(amount)
    return total


def _number(amount: Any) -> Any:
    """An amount; of a list of gpus, how many there are."""
    return len(amount) if isinstance(amount, list | tuple) else amount


def format_shares(free: Mapping[str, Any], total: Mapping[str, Any]) -> str:
    """`cpus=3/4 gpus=2/2 memory=7.6 GiB/7.6 GiB licences=0.5/2`; what there is none of is left out."""
    parts = []
    for name, amount in total.items():
        offered, left = _number(amount), _number(free.get(name, 0))
        if not offered:
            continue
        text = f"{format_size(left)}/{format_size(offered)}" if name == "memory" else f"{left:g}/{offered:g}"
        parts.append(f"{name}={text}")
    return " ".join(parts)
