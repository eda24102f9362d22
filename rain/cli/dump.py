"""`rain dump`: the state of a server and its workers, for whoever looks for a fault."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rain
from rain.cli import connection
from rain.cli.output import Report, Table, show
from rain.common.errors import RainException
from rain.protocol.messages import Dump, GetDump

if TYPE_CHECKING:
    import argparse


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "dump",
        help="write the state of a server and its workers as JSON",
        description="Write what a server and its workers know of themselves, with the ends of their logs, as JSON. "
        "It holds no secret, no values of data objects, no arguments and no environments.",
    )
    parser.add_argument("--out", metavar="FILE", help="write there, readable for you alone; default: standard output")
    connection.add_management_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the server and write; without --out the document is all that is printed."""
    server = connection.find_server(options)
    answer = connection.ask(server, GetDump(connection.SEQ), Dump, options.timeout)
    text = text_of(answer.dump, datetime.now(UTC))
    if options.out is None:
        print(text, flush=True)
        return 0
    write_private(Path(options.out), text + "\n")
    show(report_of(options.out, len(text) + 1, answer.dump), options.output, sys.stdout)
    return 0


def text_of(dump: dict[str, Any], now: datetime) -> str:
    """The document: the server's answer, and when and by which version it was asked for; ASCII only."""
    document = {"made": now.isoformat(timespec="seconds"), "made_by": f"rain {rain.__version__}", **dump}
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 all at once, in place of an older one.

    Raises:
        RainException: it cannot be written; nothing is left of it then.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise RainException(f"cannot write {path}: {error.strerror}") from error


def report_of(path: str, size: int, dump: dict[str, Any]) -> Report:
    """What was written, in all forms of output; `quiet` names the file."""
    silent = [worker["worker_id"] for worker in dump["workers"] if not worker["answered"]]
    document = {
        "file": path,
        "bytes": size,
        "sessions": len(dump["sessions"]),
        "workers": len(dump["workers"]),
        "workers_without_answer": silent,
    }
    rows = [(name.replace("_", " "), str(value)) for name, value in document.items() if not isinstance(value, list)]
    if silent:
        rows.append(("workers without answer", ", ".join(silent)))
    return Report(document, [Table((), rows)], [path])
