"""`rain session`: which sessions there are, all about one, closing one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rain.cli import connection, rows, values
from rain.cli.output import Report, Table, show
from rain.common.lines import one_line
from rain.common.units import format_size
from rain.protocol.messages import Accepted, CloseSession

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def add_parser(verbs: Any) -> None:
    """Add the noun with its verbs."""
    parser = verbs.add_parser("session", help="list, show and close sessions")
    session_verbs = parser.add_subparsers(metavar="VERB", title="verbs", required=True)
    every = session_verbs.add_parser("list", help="list the sessions of a server")
    connection.add_management_options(every)
    every.set_defaults(run=run_list)
    info = session_verbs.add_parser("info", help="show all about a session: its error, its kept objects")
    close = session_verbs.add_parser(
        "close",
        help="close a session",
        description="Close a session, whoever opened it: what runs is killed, its objects are removed.",
    )
    for verb, run in ((info, run_info), (close, run_close)):
        verb.add_argument("session", type=values.session_id, metavar="ID", help="number of the session")
        connection.add_management_options(verb)
        verb.set_defaults(run=run)


def run_list(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        entries = rows.session_entries(talk)
    show(list_report(entries), options.output, sys.stdout)
    return 0


def run_info(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        entry = rows.session_entry(talk, options.session)
    show(info_report(entry), options.output, sys.stdout)
    return 0


def run_close(options: argparse.Namespace) -> int:
    """Close it; one that is not there is an error."""
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        rows.session_entry(talk, options.session)
        talk.ask(lambda seq: CloseSession(seq, options.session), Accepted)
    number = options.session
    show(Report({"closed": number}, [Table((), [("closed", str(number))])], [str(number)]), options.output, sys.stdout)
    return 0


def list_report(entries: Sequence[dict[str, Any]]) -> Report:
    """Sessions in all forms of output."""
    lines = [
        (
            str(entry["session"]),
            one_line(entry["name"], 40),
            entry["state"],
            entry["client"] or "-",
            rows.format_counts(entry["tasks"]),
            rows.format_created(entry),
        )
        for entry in entries
    ]
    return Report(
        {"sessions": [_document(entry) for entry in entries]},
        [Table(("id", "name", "state", "client", "tasks", "created"), lines)],
        [str(entry["session"]) for entry in entries],
    )


def info_report(entry: dict[str, Any]) -> Report:
    """A session in all forms of output."""
    kept, total = entry["kept"], entry["kept_total"]
    document = _document(entry) | {"error": entry["error"], "kept": kept, "kept_total": total}
    lines = [
        ("session", str(entry["session"])),
        ("name", one_line(entry["name"])),
        ("state", entry["state"]),
        ("client", entry["client"] or "-"),
        ("on failure", entry["on_failure"]),
        ("created", rows.format_created(entry)),
        ("tasks", rows.format_counts(entry["tasks"])),
        ("objects", rows.format_counts(entry["objects"])),
        ("kept objects", str(total)),
    ]
    tables = [Table((), lines)]
    if entry["error"]:
        tables.append(Table(("error",), [(line,) for line in entry["error"].splitlines()]))
    tables.append(
        Table(
            ("kept object", "label", "state", "size"),
            [
                (f"{entry['session']}/{one['id']}", one["label"] or "-", one["state"], format_size(one["size"]))
                for one in kept
            ],
        )
    )
    if len(kept) < total:
        tables.append(Table((), [(f"and {total - len(kept)} more kept objects",)]))
    return Report(document, tables, [str(entry["session"])])


def _document(entry: dict[str, Any]) -> dict[str, Any]:
    names = ("session", "name", "state", "client", "on_failure", "age", "tasks", "objects")
    return {name: entry[name] for name in names} | {"created": rows.timestamp(rows.created(entry))}
