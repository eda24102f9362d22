"""The end of the event log, for a dump: what happened to whom, without data, arguments and environments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.common.errors import RainException
from rain.common.lines import one_line
from rain.eventlog.criteria import parse_criteria
from rain.eventlog.reader import EventReader

if TYPE_CHECKING:
    from pathlib import Path

LAST = 200
_TOLD = ("type", "session", "task", "dataobject", "worker", "client", "run", "size")
_TEXTS = ("reason", "message", "error_msg")


def last_events(path: Path) -> list[dict[str, Any]]:
    """The last events of a log, the newest at the end; one entry that says why if it cannot be read."""
    try:
        reader = EventReader(path)
    except RainException as error:
        return [{"error": one_line(str(error))}]
    try:
        first = reader.last_id() - LAST
        found = list(reader.events(parse_criteria({}), after=max(first, 0), limit=LAST))
    except RainException as error:
        return [{"error": one_line(str(error))}]
    finally:
        reader.close()
    return [{"id": entry.id, "time": entry.time_text, **_told(entry.event)} for entry in found]


def _told(event: dict[str, Any]) -> dict[str, Any]:
    told = {name: event[name] for name in _TOLD if name in event}
    told |= {name: one_line(str(event[name])) for name in _TEXTS if event.get(name)}
    info = event.get("info")
    if isinstance(info, dict) and info.get("error"):
        told["error"] = one_line(str(info["error"]))
    return told
