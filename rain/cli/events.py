"""`rain events`: what happened in a cluster, from its server or from a file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from rain.cli import connection, values
from rain.cli.output import format_short
from rain.common.lines import one_line
from rain.common.units import format_size
from rain.eventlog.criteria import EVENT_TYPES
from rain.protocol.messages import GetServerInfo, ServerInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.cli.event_sources import Entry, Source

POLL_SECONDS = 1.0
LONGEST_DETAILS = 120

_MICROSECONDS = "YYYY-MM-DD HH:MM:SS.ffffff"
_LINE = "{:>8}  {:<23}  {:<20}  {:>7}  {}"


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "events",
        help="show what happened: the event log",
        description="Show the event log of a running server, or of a file. With --output json each line is an event, "
        "as POST /events gives it.",
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="an events.db or a log directory; its server need not run"
    )
    parser.add_argument("--follow", action="store_true", help="go on with what happens, until interrupted")
    parser.add_argument("--session", type=values.not_negative, metavar="ID", help="only events of this session")
    parser.add_argument("--type", type=event_type, metavar="T", help="only events of this type, e.g. TaskFailed")
    connection.add_management_options(parser)
    parser.set_defaults(run=run)


def event_type(text: str) -> str:
    """The name of a type of events."""
    if text not in EVENT_TYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is no type of events; there are {', '.join(EVENT_TYPES)}")
    return text


def run(options: argparse.Namespace) -> int:
    """Read and print."""
    source = _source(options)
    printer = Printer(options.output, sys.stdout)
    while True:
        for entry in source.entries(printer.last):
            printer.show(entry)
        sys.stdout.flush()
        if not options.follow:
            return 0
        time.sleep(POLL_SECONDS)


def _source(options: argparse.Namespace) -> Source:
    from rain.cli.event_sources import FileSource, ServerSource

    types = [] if options.type is None else [options.type]
    if options.file is not None:
        return FileSource(options.file, options.session, types)
    server = connection.find_server(options)
    answer = connection.ask(server, GetServerInfo(connection.SEQ), ServerInfo, options.timeout)
    url = answer.info["server"].get("http_url")
    return ServerSource(server.address, url, server.secret, options.timeout, options.session, types)


class Printer:
    """Prints events as they come. last: id of the last one."""

    def __init__(self, form: str, stream: TextIO) -> None:
        self._form = form
        self._stream = stream
        self.last = 0

    def show(self, entry: Entry) -> None:
        """Print one."""
        if self._form == "json":
            print(json.dumps(entry, sort_keys=True), file=self._stream)
        elif self._form == "quiet":
            print(entry["id"], file=self._stream)
        else:
            if not self.last:
                print(_LINE.format("ID", "TIME", "TYPE", "SESSION", "DETAILS"), file=self._stream)
            print(line_of(entry), file=self._stream)
        self.last = entry["id"]


def line_of(entry: Entry) -> str:
    """An event for people."""
    event = entry["event"]
    name = str(event.get("type"))
    session = session_of(event)
    describe = _DETAILS.get(name, _other)
    try:
        details = describe(event)
    except (KeyError, TypeError, ValueError, AttributeError):  # an event of another version of Rain
        details = _other(event)
    details = "".join(char if char.isprintable() else "?" for char in one_line(details, LONGEST_DETAILS))
    return _LINE.format(
        entry["id"], local_time(entry["time"]), name, "" if session is None else session, details
    ).rstrip()


def local_time(text: str) -> str:
    """The time of an event for people: local, with milliseconds."""
    try:
        moment = datetime.strptime(text[: len(_MICROSECONDS)], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:  # of a log that somebody else made
        return text
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def session_of(event: dict[str, Any]) -> int | None:
    """Number of the session to which an event belongs, None if to none."""
    if "session" in event:
        number: int | None = event["session"]
        return number
    ids = [event[key] for key in ("task", "dataobject") if key in event] + event.get("dataobjs", [])
    return next((one[0] for one in ids if isinstance(one, list) and one), None)


# --- details ---


def _id(pair: list[int]) -> str:
    return f"{pair[0]}/{pair[1]}"


def _with_reason(what: str, reason: Any) -> str:
    return f"{what}: {one_line(str(reason), LONGEST_DETAILS)}" if reason else what


def _worker(event: dict[str, Any]) -> str:
    return _with_reason(event["worker"], event.get("error_msg"))


def _client(event: dict[str, Any]) -> str:
    return _with_reason(str(event.get("client") or "-"), event.get("error_msg"))


def _session_new(event: dict[str, Any]) -> str:
    name = event.get("spec", {}).get("name")
    return " ".join(filter(None, (name, f"by {event['client']}" if event.get("client") else "")))


def _session_closed(event: dict[str, Any]) -> str:
    return _with_reason(event["reason"], event.get("message"))


def _submit(event: dict[str, Any]) -> str:
    tasks, objects = (sum(one.get("count", 1) for one in event[key]) for key in ("tasks", "dataobjs"))
    return f"{tasks} tasks, {objects} objects"


def _unkeep(event: dict[str, Any]) -> str:
    ids = event["dataobjs"]
    return _id(ids[0]) if len(ids) == 1 else f"{len(ids)} objects"


def _task_started(event: dict[str, Any]) -> str:
    return f"{_id(event['task'])} on {event['worker']}"


def _task_finished(event: dict[str, Any]) -> str:
    info, name = event["info"], _id(event["task"])
    if info.get("error"):
        return _with_reason(f"{name} failed", info["error"])
    return name if info.get("duration") is None else f"{name} in {format_short(info['duration'])}"


def _task(event: dict[str, Any]) -> str:
    run = f" run {event['run']}" if "run" in event else ""
    return _with_reason(f"{_id(event['task'])}{run}", event.get("reason"))


def _object_finished(event: dict[str, Any]) -> str:
    return f"{_id(event['dataobject'])} {format_size(event['size'])} on {event['worker']}"


def _monitoring(event: dict[str, Any]) -> str:
    usage = event["cpu_usage"]
    mean = sum(usage) / len(usage) if usage else 0.0
    return f"{event['worker']} cpu {mean:.0f} %, memory {event['mem_usage']:.0f} %"


def _other(event: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in event.items() if key != "type"}, sort_keys=True)


_DETAILS: dict[str, Callable[[dict[str, Any]], str]] = {
    "WorkerNew": _worker,
    "WorkerStopping": _worker,
    "WorkerRemoved": _worker,
    "ClientNew": _client,
    "ClientRemoved": _client,
    "ClientInvalidRequest": _client,
    "SessionNew": _session_new,
    "SessionClosed": _session_closed,
    "SessionAttached": _client,
    "SessionDetached": _client,
    "ClientSubmit": _submit,
    "ClientUnkeep": _unkeep,
    "TaskStarted": _task_started,
    "TaskFinished": _task_finished,
    "TaskRetried": _task,
    "TaskCancelled": _task,
    "TaskAborted": _task,
    "TaskInfeasible": _task,
    "DataObjectFinished": _object_finished,
    "Monitoring": _monitoring,
}
