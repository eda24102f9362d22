"""Which events somebody asks for (spec 10.1)."""

from __future__ import annotations

from typing import Any

from rain.common.structs import dataclass
from rain.eventlog.packing import ENDED, FINISHED, MEMBERS, STARTED, SUBMIT, UNKEPT

LARGEST = (1 << 63) - 1
"""The largest number SQLite holds."""

ALIASES = {
    "GovernorNew": "WorkerNew",
    "GovernorRemoved": "WorkerRemoved",
    "ObjectFinished": "DataObjectFinished",
    "InvalidRequest": "ClientInvalidRequest",
}
FAILED = "TaskFailed"
"""Stands for a TaskFinished with an error."""

EVENT_TYPES = (
    "WorkerNew",
    "WorkerStopping",
    "WorkerRemoved",
    "ClientNew",
    "ClientRemoved",
    "SessionNew",
    "SessionClosed",
    "SessionAttached",
    "SessionDetached",
    "ClientSubmit",
    "ClientUnkeep",
    "TaskStarted",
    "TaskFinished",
    FAILED,
    "TaskRetried",
    "TaskCancelled",
    "TaskAborted",
    "TaskInfeasible",
    "DataObjectFinished",
    "Monitoring",
    "ClientInvalidRequest",
    *ALIASES,
)
"""All names of types."""

TYPES_OF_KIND = {
    SUBMIT: frozenset({"ClientSubmit"}),
    STARTED: frozenset({"TaskStarted"}),
    FINISHED: frozenset({"TaskStarted", "TaskFinished", "DataObjectFinished"}),
    MEMBERS: frozenset({"TaskStarted", "TaskFinished", "DataObjectFinished"}),
    ENDED: frozenset({"TaskCancelled", "TaskAborted"}),
    UNKEPT: frozenset({"ClientUnkeep"}),
}
"""Types of the events which batches hold."""

_KEYS = ("id", "session", "event_types")
_MODES = ("=", "<", ">", "<=", ">=")
_MOST_TYPES = 100
_LONGEST_QUOTE = 200


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers from `low` to `high`."""

    low: int = 0
    high: int = LARGEST


@dataclass(frozen=True, slots=True)
class Criteria:
    """Events that fulfil all of this.

    Attributes:
        ids: their ids are among these.
        sessions: they belong to one of these sessions; None: to any or none.
        types: they have one of these types; None: any.
        failed: TaskFinished events with an error too, whatever `types` says.
    """

    ids: Span = Span()
    sessions: Span | None = None
    types: frozenset[str] | None = None
    failed: bool = False

    def kinds(self) -> frozenset[str]:
        """Kinds of batches that may hold such events."""
        types = self.types
        return frozenset(kind for kind, held in TYPES_OF_KIND.items() if types is None or held & types)

    def has_type(self, event: dict[str, Any]) -> bool:
        """Whether an event is of a wanted type."""
        if self.types is None or event["type"] in self.types:
            return True
        return self.failed and event["type"] == "TaskFinished" and bool(event.get("info", {}).get("error"))


def parse_criteria(given: Any) -> Criteria:
    """Read criteria as they come over HTTP.

    Args:
        given: a JSON object with any of `id`, `session` ({"value": n, "mode": op}, op one of = < > <= >=) and
            `event_types` (a list of {"value": name, "mode": "="}; an empty one means all).

    Raises:
        ValueError: it is anything else; the text says what.
    """
    if not isinstance(given, dict):
        raise ValueError(f"criteria are a JSON object, not {_quoted(given)}")
    for key in given:
        if key not in _KEYS:
            raise ValueError(f"there is no criterion {_quoted(key)}; there are {', '.join(_KEYS)}")
    ids = _span("id", given["id"]) if "id" in given else Span()
    sessions = _span("session", given["session"]) if "session" in given else None
    types, failed = _types(given.get("event_types", []))
    return Criteria(ids, sessions, types, failed)


def criteria_of(session: int | None, names: list[str]) -> Criteria:
    """Events of a session (None: of all) which have one of these types, or aliases of types (none: any)."""
    types, failed = _types([{"value": name, "mode": "="} for name in names])
    return Criteria(sessions=None if session is None else Span(session, session), types=types, failed=failed)


def _span(name: str, given: Any) -> Span:
    value, mode = _value_and_mode(name, given)
    if type(value) is not int or not -LARGEST <= value <= LARGEST:
        raise ValueError(f"the value of the criterion {name!r} is not an integer: {_quoted(value)}")
    if mode not in _MODES:
        raise ValueError(f"the mode of the criterion {name!r} is none of {' '.join(_MODES)}: {_quoted(mode)}")
    low, high = -LARGEST, LARGEST
    if mode in ("=", ">="):
        low = value
    if mode in ("=", "<="):
        high = value
    if mode == ">":
        low = min(value + 1, LARGEST)
    if mode == "<":
        high = max(value - 1, -LARGEST)
    return Span(low, high)


def _types(given: Any) -> tuple[frozenset[str] | None, bool]:
    if not isinstance(given, list) or len(given) > _MOST_TYPES:
        raise ValueError(f"event_types is a list of at most {_MOST_TYPES} entries, not {_quoted(given)}")
    names = set()
    for entry in given:
        value, mode = _value_and_mode("event_types", entry)
        if not isinstance(value, str):
            raise ValueError(f"a value in event_types is not a name: {_quoted(value)}")
        if mode != "=":
            raise ValueError(f"the mode of an entry of event_types is not '=': {_quoted(mode)}")
        names.add(ALIASES.get(value, value))
    if not names:
        return None, False
    return frozenset(names - {FAILED}), FAILED in names


def _value_and_mode(name: str, given: Any) -> tuple[Any, Any]:
    if not isinstance(given, dict) or set(given) != {"value", "mode"}:
        raise ValueError(f'the criterion {name!r} needs {{"value": .., "mode": ".."}}, not {_quoted(given)}')
    return given["value"], given["mode"]


def _quoted(value: Any) -> str:
    """Short, whatever it is."""
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else f"an object with {len(value)} keys"
    if type(value) is int and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return f"{value!r:.{_LONGEST_QUOTE}}"
