"""What notebooks show of a client, session, task, array or data object: short, escaped, and made from what this client
knows already. Nobody is asked."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from rain.client.states import count_states
from rain.common.ids import FIRST_ID
from rain.common.lines import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rain.client.array import TaskArray
    from rain.client.base import BaseSession
    from rain.client.client_base import BaseClient
    from rain.client.data import DataObject
    from rain.client.task import Task

    Row = tuple[str, Any]
    """What it is, and its value; None or an empty text: not shown."""

_FEW = 5
"""So many inputs and outputs are named."""
_LONGEST = 200
_UNSUBMITTED = "not submitted"
_COLOURS = {
    "finished": "#2a9d5c",
    "running": "#2f81f7",
    "failed": "#d1343f",
    "cancelled": "#9a6fd0",
    "aborted": "#d9822b",
}
"""Of states, in the order of the bar, to be told apart on light and dark pages. What waits has none."""


class _Html(str):
    """A value that is ready; every other one is escaped."""

    __slots__ = ()


def client_html(client: BaseClient[Any]) -> str:
    """See `Client`."""
    rows: list[Row] = [
        ("State", "closed" if client.closed else "open"),
        ("Sessions", _first([f"{one.session_id} {one.name!r}" for one in client._open_sessions()]) or "none"),
        ("Cluster", "embedded" if client.cluster is not None else None),
        ("Dashboard", _link(client.dashboard_url)),
    ]
    return _table(f"{type(client).__name__} {client.address}", rows)


def session_html(session: BaseSession) -> str:
    """See `Session`."""
    submitted = session._submitted - FIRST_ID
    waiting = f"{session.task_count} tasks, {session.dataobj_count} objects" if session._has_unsubmitted else None
    return _table(
        f"{type(session).__name__} {session.session_id} {session.name!r}",
        [
            ("State", "open" if session.active else "closed"),
            ("Server", session.client.address if session.client is not None else "none"),
            ("On failure", session.spec.on_failure),
            ("Submitted", f"{submitted} tasks and objects" if submitted else None),
            ("Not submitted", waiting),
            ("Tasks when last asked", _with_bar(session._last_counts)),
            ("First failure", session._known_failure),
        ],
    )


def task_html(task: Task) -> str:
    """See `Task`."""
    info, state = task.info, task.state
    rows: list[Row] = [
        ("Type", task.task_type),
        ("State", state.name if state is not None else _UNSUBMITTED),
        ("Inputs", _listed(task._input_objects)),
        ("Outputs", _listed(task._outputs)),
    ]
    if info is not None:
        rows += [
            ("Worker", info.worker),
            ("Duration", f"{info.duration:.3g} s" if info.duration is not None else None),
            ("Runs", info.attempts),
            ("Error", one_line(info.error) if info.error else None),
        ]
    return _table(f"{type(task).__name__} {task.id} {task.name or ''}", rows)


def array_html(array_: TaskArray) -> str:
    """See `TaskArray`."""
    counts = array_._last_counts if array_._states is None else count_states(array_._states)
    state = "submitted" if array_._is_submitted else _UNSUBMITTED
    return _table(
        f"TaskArray of {len(array_)} tasks {array_._shape.options.name or ''}",
        [
            ("First id", f"{array_._session.session_id}/{array_._first}"),
            ("Type", array_._shape.task_type),
            ("State", _with_bar(counts) or state),
            ("Kept", "yes" if array_._keep else "no"),
        ],
    )


def object_html(dataobj: DataObject) -> str:
    """See `DataObject`."""
    state, size = dataobj.state, dataobj.size
    if size is None and dataobj.data is not None:
        size = len(dataobj.data)
    return _table(
        f"{type(dataobj).__name__} {dataobj.id}",
        [
            ("Label", dataobj.label),
            ("Kind", "directory" if dataobj.is_directory() else "blob"),
            ("Content type", dataobj.content_type),
            ("State", state.name if state is not None else _UNSUBMITTED),
            ("Size", f"{size} bytes" if size is not None else None),
            ("Kept", "yes" if dataobj.is_kept() else "no"),
        ],
    )


def _table(title: str, rows: Iterable[Row]) -> str:
    shown = "".join(_row(name, _text(value)) for name, value in rows if value not in (None, ""))
    return f"<div><strong>{_text(title.strip())}</strong><table>{shown}</table></div>"


def _row(name: str, value: str) -> str:
    return f'<tr><th style="text-align: left">{name}</th><td style="text-align: left">{value}</td></tr>'


def _text(value: Any) -> str:
    if isinstance(value, _Html):
        return value
    text = str(value)
    return escape(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def _link(url: str | None) -> _Html | None:
    """Without the secret that may be in it: notebooks are stored and handed on."""
    if url is None or not url.startswith(("http://", "https://")):
        return None
    shown = escape(url.partition("?")[0])
    return _Html(f'<a href="{shown}" target="_blank" rel="noopener">{shown}</a>')


def _with_bar(counts: Mapping[str, int] | None) -> _Html | None:
    """Numbers of tasks by state, as text and as a bar as wide as all of them."""
    total = sum(counts.values()) if counts else 0
    if not counts or not total:
        return None
    text = escape(", ".join(f"{name} {number}" for name, number in counts.items() if number))
    parts = "".join(
        f'<span style="width: {100 * counts.get(name, 0) / total:.4g}%; background: {colour}"></span>'
        for name, colour in _COLOURS.items()
        if counts.get(name)
    )
    frame = "display: flex; height: 0.6em; width: 20em; margin-top: 0.3em; background: rgba(128, 128, 128, 0.35)"
    return _Html(f'{text}<div style="{frame}">{parts}</div>')


def _listed(objects: tuple[DataObject, ...]) -> str:
    return _first([f"{dataobj.id} {dataobj.label or ''}".strip() for dataobj in objects[: _FEW + 1]], len(objects))


def _first(texts: list[str], total: int | None = None) -> str:
    """The first few; total: how many there are, None = as many as texts."""
    more = (len(texts) if total is None else total) - _FEW
    return ", ".join(texts[:_FEW]) + (f" and {more} more" if more > 0 else "")
