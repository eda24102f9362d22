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


def client_html(client: BaseClient[Any]) -> str:
    """See `Client`."""
    rows: list[Row] = [
        ("State", "closed" if client.closed else "open"),
        ("Sessions", len(client._sessions)),
        ("Cluster", "embedded" if client.cluster is not None else None),
    ]
    link = ""
    if client.dashboard_url and client.dashboard_url.startswith(("http://", "https://")):
        url = escape(client.dashboard_url)
        link = _row("Dashboard", f'<a href="{url}" target="_blank" rel="noopener">{url}</a>')
    return _table(f"{type(client).__name__} {client.address}", rows, link)


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
            ("Tasks when last asked", _counted(session._last_counts)),
            ("First failure", session._known_failure),
        ],
    )


def task_html(task: Task) -> str:
    """See `Task`."""
    info, state = task.info, task.state
    rows: list[Row] = [
        ("Type", task.task_type),
        ("State", state.name if state is not None else _UNSUBMITTED),
        ("Inputs", _listed(task._inputs)),
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
    states = array_._states
    state = "submitted" if array_._is_submitted else _UNSUBMITTED
    return _table(
        f"TaskArray of {len(array_)} tasks {array_._shape.options.name or ''}",
        [
            ("First id", f"{array_._session.session_id}/{array_._first}"),
            ("Type", array_._shape.task_type),
            ("State", state if states is None else _counted(count_states(states))),
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


def _table(title: str, rows: Iterable[Row], more: str = "") -> str:
    """more: further rows, ready."""
    shown = "".join(_row(name, _text(value)) for name, value in rows if value not in (None, ""))
    return f"<div><strong>{_text(title.strip())}</strong><table>{shown}{more}</table></div>"


def _row(name: str, value: str) -> str:
    return f'<tr><th style="text-align: left">{name}</th><td style="text-align: left">{value}</td></tr>'


def _text(value: Any) -> str:
    text = str(value)
    return escape(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def _counted(counts: Mapping[str, int] | None) -> str | None:
    return ", ".join(f"{name} {number}" for name, number in counts.items() if number) if counts else None


def _listed(objects: tuple[DataObject, ...]) -> str:
    shown = [f"{dataobj.id} {dataobj.label or ''}".strip() for dataobj in objects[:_FEW]]
    return ", ".join(shown) + (f" and {len(objects) - _FEW} more" if len(objects) > _FEW else "")
