"""`rain task log`: what tasks wrote."""

from __future__ import annotations

import sys
import time
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from rain.cli import connection, rows, values
from rain.cli.output import Report, show
from rain.common.errors import InvalidRequestError, RainException
from rain.common.states import TERMINAL_STATES
from rain.common.structs import dataclass
from rain.protocol.messages import GetTaskLog, TaskLog

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rain.cli.connection import Talk
    from rain.cli.values import Selector

STREAMS = ("stdout", "stderr")
PIECE = 1 << 20
"""Bytes asked for at once."""
POLL_SECONDS = 0.5


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    log = verbs.add_parser(
        "log",
        help="print what tasks wrote",
        description="Print what tasks wrote to their standard output and error, each under a heading; of one task and "
        "one stream exactly what it wrote.",
    )
    log.add_argument("tasks", type=values.selector, metavar="SEL", help=values.SELECTOR_HELP)
    streams = log.add_mutually_exclusive_group()
    for stream in STREAMS:
        streams.add_argument(
            f"--{stream}", action="store_const", const=(stream,), dest="streams", help=f"only its {stream}"
        )
    log.add_argument("--follow", action="store_true", help="go on until the task has ended; of one task only")
    connection.add_management_options(log)
    log.set_defaults(run=run, streams=STREAMS)


@dataclass(slots=True)
class Stream:
    """What was read of a stream so far. hint: why there is nothing, or not all."""

    session: int
    task: int
    name: str
    offset: int = 0
    size: int = 0
    has_ended: bool = False
    hint: str = ""
    pieces: list[bytes] = field(default_factory=list)

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.session}/{self.task} {self.name}"

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.has_ended and self.offset >= self.size

    def read(self, talk: Talk) -> Iterator[bytes]:
        """What is there and was not read yet, piece by piece."""
        complaint = f"{talk.server.address} has more to say than fits into {talk.timeout:g} s; select fewer tasks"
        while True:
            piece = partial(
                GetTaskLog,
                session=self.session,
                task=self.task,
                stream=self.name,
                offset=self.offset,
                limit=PIECE,
            )
            found = talk.ask(piece, TaskLog, complaint)
            self.size, self.has_ended, self.hint = found.size, found.ended, found.hint
            if not found.data:
                return
            self.offset = found.offset + len(found.data)
            yield found.data
            if self.offset >= self.size:
                return


def run(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    wanted: Selector = options.tasks
    if options.follow and (not wanted.is_single or options.output != "table"):
        raise RainException("--follow prints what one task writes: select one, e.g. 1/12, and leave out --output")
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        # of a single one the server has more to say than lists do: also in a session that it failed
        numbers = [wanted.first] if wanted.is_single else [row.number for row in rows.selected_tasks(talk, wanted)]
        streams = [Stream(wanted.session, number, name) for number in numbers for name in options.streams]
        if options.output == "table":
            _print(talk, streams, sys.stdout.buffer, follow=options.follow)
        else:
            for stream in streams:
                stream.pieces += _pieces(talk, stream, alone=wanted.is_single)
            show(report_of(streams), options.output, sys.stdout)
    return 0


def _pieces(talk: Talk, stream: Stream, *, alone: bool, follow: bool = False) -> Iterator[bytes]:
    """What is there; that nothing can be read is an error only for a task `alone`, and to `follow` not before its end.

    Raises:
        InvalidRequestError: nothing can be read.
    """
    try:
        yield from stream.read(talk)
    except InvalidRequestError as error:
        if alone and not (follow and _may_still_run(talk, stream)):
            raise
        stream.hint = str(error)


def _may_still_run(talk: Talk, stream: Stream) -> bool:
    found = rows.tasks_between(talk, stream.session, stream.task, stream.task)
    return any(row.state not in TERMINAL_STATES for row in found)


def _print(talk: Talk, streams: list[Stream], output: BinaryIO, *, follow: bool) -> None:
    """Copy the streams to the output, under headings if there are several; hints go to stderr."""
    last: Stream | None = None
    ends_line = True
    hints: set[str] = set()
    while True:
        for stream in streams:
            for data in _pieces(talk, stream, alone=streams[0].task == streams[-1].task, follow=follow):
                if len(streams) > 1 and stream is not last:
                    output.write(b"" if ends_line else b"\n")
                    output.write(f"==> {stream.title} <==\n".encode())
                last, ends_line = stream, data.endswith(b"\n")
                output.write(data)
            output.flush()
            if stream.hint and stream.hint not in hints:
                hints.add(stream.hint)
                print(f"rain: {stream.title}: {stream.hint}", file=sys.stderr, flush=True)
        if not follow or all(stream.is_done for stream in streams):
            return
        time.sleep(POLL_SECONDS)
        talk.renew()


def report_of(streams: list[Stream]) -> Report:
    """What was read, for JSON, where bytes that are no UTF-8 are written as escapes; `quiet` names the tasks."""
    documents: dict[str, dict[str, Any]] = {}
    for stream in streams:
        name = f"{stream.session}/{stream.task}"
        document = documents.setdefault(name, {"task": name, "session": stream.session, "id": stream.task})
        document[stream.name] = {
            "text": b"".join(stream.pieces).decode("utf-8", "backslashreplace"),
            "bytes": stream.offset,
            "ended": stream.has_ended,
            "hint": stream.hint or None,
        }
    return Report({"tasks": list(documents.values())}, [], list(documents))
