"""`rain task list`, `rain task info`, `rain task cancel`."""

from __future__ import annotations

import json
import sys
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack

from rain.cli import connection, rows, values
from rain.cli.output import Report, Table, format_short, plain, show
from rain.common.errors import InvalidRequestError
from rain.common.lines import one_line
from rain.common.states import TERMINAL_STATES, TaskState
from rain.protocol.messages import Cancel, Cancelled, GetInfos, GetSpecs, Infos, Specs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from rain.cli.connection import Talk
    from rain.cli.rows import TaskRow
    from rain.cli.values import Selector

SPECS, INFOS = 5000, 20
"""Specs and infos asked for at once; each info may have a debug stream and an error text of a megabyte."""


def add_parsers(verbs: Any) -> None:
    """Add the verbs."""
    every = verbs.add_parser("list", help="list tasks")
    every.add_argument("--session", type=values.session_id, metavar="ID", help="only tasks of this session")
    every.add_argument(
        "--state",
        type=values.task_state,
        action="append",
        default=[],
        metavar="S",
        help="only tasks in this state; repeatable",
    )
    connection.add_management_options(every)
    every.set_defaults(run=run_list)
    info = verbs.add_parser("info", help="show what was asked of tasks, and what happened")
    cancel = verbs.add_parser(
        "cancel",
        help="cancel tasks",
        description="Stop tasks before their end; what depends on them will never run. Their sessions go on.",
    )
    for verb, run in ((info, run_info), (cancel, run_cancel)):
        verb.add_argument("tasks", type=values.selector, metavar="SEL", help=values.SELECTOR_HELP)
        connection.add_management_options(verb)
        verb.set_defaults(run=run)


# --- list ---


def run_list(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    found: list[TaskRow] = []
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        if options.session is not None:
            with rows.told_why(talk, options.session):
                found += rows.tasks_between(talk, options.session, states=options.state)
        else:
            for entry in rows.session_entries(talk):
                found += _tasks_of(talk, entry, options.state)
    show(list_report(found), options.output, sys.stdout)
    return 0


def _tasks_of(talk: Talk, entry: dict[str, Any], states: list[TaskState]) -> list[TaskRow]:
    """Tasks of one of several sessions; a session that has none any more is no error then."""
    number = entry["session"]
    try:
        return [] if entry["state"] == "failed" else list(rows.tasks_between(talk, number, states=states))
    except InvalidRequestError as error:
        print(f"rain: session {number} is left out: {one_line(str(error))}", file=sys.stderr)
        return []


def list_report(tasks: Sequence[TaskRow]) -> Report:
    """Tasks in all forms of output."""
    lines = [
        (row.id, one_line(row.name, 40) or "-", row.type, row.state.name, row.worker or "-", _duration(row))
        for row in tasks
    ]
    return Report(
        {"tasks": [row.document() for row in tasks]},
        [Table(("id", "name", "type", "state", "worker", "duration"), lines)],
        [row.id for row in tasks],
    )


def _duration(row: TaskRow) -> str:
    return format_short(row.duration) if row.start or row.duration else "-"


# --- info ---


def run_info(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    wanted: Selector = options.tasks
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        tasks = rows.selected_tasks(talk, wanted)
        specs = list(_specs(talk, wanted.session, [row.number for row in tasks]))
        infos = list(_infos(talk, wanted.session, [row.number for row in tasks]))
    show(info_report(tasks, specs, infos), options.output, sys.stdout)
    return 0


def _specs(talk: Talk, session: int, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Specs of tasks; the server says as many at once as it likes."""
    complaint = f"{talk.server.address} has more to say than fits into {talk.timeout:g} s; select fewer tasks"
    at = 0
    while at < len(ids):
        portion = partial(GetSpecs, session=session, ids=array("I", ids[at : at + SPECS]))
        found = talk.ask(portion, Specs, complaint).specs
        if not found:
            raise InvalidRequestError(f"{talk.server.address} tells no spec of task {session}/{ids[at]}")
        at += len(found)
        yield from (plain(msgpack.unpackb(packed, strict_map_key=False)) for packed in found if packed is not None)


def _infos(talk: Talk, session: int, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    complaint = f"{talk.server.address} has more to say than fits into {talk.timeout:g} s; select fewer tasks"
    for at in range(0, len(ids), INFOS):
        portion = partial(GetInfos, session=session, ids=array("I", ids[at : at + INFOS]))
        found = talk.ask(portion, Infos, complaint)
        for state, packed in zip(found.states, found.infos, strict=True):
            info = {} if packed is None else plain(msgpack.unpackb(packed, strict_map_key=False))
            yield {"state": TaskState(state).name, **info}


def info_report(tasks: Sequence[TaskRow], specs: Sequence[dict[str, Any]], infos: Sequence[dict[str, Any]]) -> Report:
    """Specs and infos in all forms of output."""
    documents = []
    tables = []
    for row, spec, info in zip(tasks, specs, infos, strict=True):
        documents.append(_info_document(row, spec, info))
        tables.append(Table((), _info_lines(documents[-1])))
    return Report({"tasks": documents}, tables, [row.id for row in tasks])


def _info_document(row: TaskRow, spec: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    start = info.get("start_time")
    happened = {
        "worker": info.get("governor") or None,
        "attempts": info.get("attempts", 0),
        "start": rows.timestamp(start) if isinstance(start, int | float) and start else None,
        "duration": info.get("duration"),
        "error": info.get("error") or None,
        "debug": info.get("debug", ""),
        "user": info.get("user", {}),
    }
    named = {name: [f"{row.session}/{number}" for number in spec[name]] for name in ("inputs", "outputs")}
    asked = {name: value for name, value in spec.items() if name not in ("id", "released")} | named
    return {
        "task": row.id,
        "session": row.session,
        "id": row.number,
        "state": info["state"],
        "released": bool(spec.get("released")),
        "spec": asked,
        "info": happened,
    }


def _info_lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values; what is not there is left out."""
    spec, info = document["spec"], document["info"]
    lines = [("task", document["task"]), ("state", document["state"])]
    for name in ("name", "task_type", "resources", "retries", "timeout", "priority", "user", "config"):
        if spec.get(name) is not None:
            lines.append((name.replace("task_", ""), _text(spec[name])))
    gone = "(dropped: the task cannot run again)" if document["released"] else "-"
    labels = [*spec.get("input_labels", ()), *[None] * len(spec["inputs"])]
    inputs = [f"{label}={one}" if label else one for label, one in zip(labels, spec["inputs"], strict=False)]
    lines += [("inputs", " ".join(inputs) or gone), ("outputs", " ".join(spec["outputs"]) or "-")]
    if info["worker"]:
        lines += [("worker", info["worker"]), ("attempts", str(info["attempts"]))]
    if info["start"]:
        lines.append(("start", info["start"]))
    if info["duration"] is not None:
        lines.append(("duration", format_short(info["duration"])))
    if info["user"]:
        lines.append(("told by the task", _text(info["user"])))
    for name in ("error", "debug"):
        texts = (info[name] or "").splitlines()
        lines += [(name if number == 0 else "", text) for number, text in enumerate(texts)]
    return lines


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


# --- cancel ---


def run_cancel(options: argparse.Namespace) -> int:
    """Cancel, wait until nothing of the tasks runs any more, and print which were stopped."""
    wanted: Selector = options.tasks
    with connection.Talk(connection.find_server(options), options.timeout) as talk:
        if wanted.last == values.LARGEST_ID and wanted.first == 0:
            with rows.told_why(talk, wanted.session):
                ids = _cancel(talk, wanted.session, [])
        else:
            tasks = rows.selected_tasks(talk, wanted, set(TaskState) - TERMINAL_STATES)
            ids = _cancel(talk, wanted.session, [row.number for row in tasks]) if tasks else []
    show(cancel_report(wanted, ids), options.output, sys.stdout)
    return 0


def _cancel(talk: Talk, session: int, ids: Sequence[int]) -> list[str]:
    """Cancel these tasks, all of the session if there are none; returns which were stopped."""
    complaint = (
        f"the tasks are cancelled, but {talk.server.address} has not said in time that nothing of them runs any more"
    )
    asked = array("I", ids)
    stopped = talk.ask(lambda seq: Cancel(seq, session, asked), Cancelled, complaint).ids
    return [f"{session}/{number}" for number in sorted(stopped)]


def cancel_report(wanted: Selector, ids: list[str]) -> Report:
    """What was stopped, in all forms of output."""
    text = f"{len(ids)} tasks" if ids else f"nothing: no task of {wanted.text} was unfinished"
    if len(ids) == 1:
        text = ids[0]
    return Report({"cancelled": ids, "count": len(ids)}, [Table((), [("cancelled", text)])], ids)
