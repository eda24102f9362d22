"""Readers of option values: what they do not accept becomes a usage error that says what was expected."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING

from rain.common.states import TaskState
from rain.common.structs import dataclass
from rain.common.units import parse_duration, parse_size
from rain.net.address import DEFAULT_HTTP_PORT, Address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

DEFAULT_DELETE_TIMEOUT = 1.0
LARGEST_ID = (1 << 32) - 1
SELECTOR_HELP = "1/12 (one task), 1/10-20, or 1 (all of session 1)"

_SELECTOR = re.compile(r"([0-9]{1,20})(?:[/:]([0-9]{1,20})(?:-([0-9]{1,20}))?)?")


def _usage(reader: Callable[[str], T], text: str) -> T:
    try:
        return reader(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Selector:
    """Tasks of a session: those with ids from `first` to `last`.

    Attributes:
        text: as given.
    """

    text: str
    session: int
    first: int
    last: int

    @property
    def is_single(self) -> bool:
        """True if one id is meant."""
        return self.first == self.last


def selector(text: str) -> Selector:
    """`1/12` or `1:12` (one task), `1/10-20` (those with these ids), `1` (all of session 1)."""
    match = _SELECTOR.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} selects no tasks; write 1/12 (one), 1/10-20 (several) or 1 (all)")
    first = int(match[2] or 0)
    last = int(match[3]) if match[3] else first if match[2] else LARGEST_ID
    session = int(match[1])
    if max(session, first, last) > LARGEST_ID:
        raise argparse.ArgumentTypeError(f"{text!r}: the largest id is {LARGEST_ID}")
    if first > last:
        raise argparse.ArgumentTypeError(f"{text!r}: the range ends before it begins")
    return Selector(text.strip(), session, first, last)


def session_id(text: str) -> int:
    """The number of a session."""
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= LARGEST_ID):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a session; write e.g. 1")
    return int(text)


def task_state(text: str) -> TaskState:
    """A TaskState by its name."""
    try:
        return TaskState[text]
    except KeyError:
        names = ", ".join(state.name for state in TaskState)
        raise argparse.ArgumentTypeError(f"{text!r} is no state of a task; choose from {names}") from None


def duration(text: str) -> float:
    """Seconds; `5 s`, `2 min` and plain numbers."""
    return _usage(parse_duration, text)


def duration_or_none(text: str) -> float | None:
    """Seconds, or None for the word `none`."""
    return None if text.lower() == "none" else duration(text)


def address(text: str) -> str:
    """An address to listen at; any form that `Address.parse` reads."""
    return str(_usage(Address.parse, text))


def data_address(text: str) -> str:
    """An address for a data port, which is any free one if the text names none."""
    return str(_usage(lambda given: Address.parse(given, default_port=0), text))


def http_address(text: str) -> str:
    """An address for the dashboard, or the word `none`."""
    if text == "none":
        return text
    return str(_usage(lambda given: Address.parse(given, default_port=DEFAULT_HTTP_PORT), text))


def origin(text: str) -> str:
    """The origin of a page as browsers write it, or `*`."""
    from rain.server.http.gate import check_allowed_origin

    return _usage(check_allowed_origin, text)


def size_or_detect(text: str) -> int | None:
    """Bytes, or None for the word `detect`."""
    return None if text == "detect" else _usage(parse_size, text)


def size(text: str) -> int:
    """A size: `512MB`, `1 GiB`, bytes."""
    return _usage(parse_size, text)


def not_negative(text: str) -> int:
    """An int >= 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer >= 0")
    return int(text)


def cpus_or_detect(text: str) -> int | None:
    """A number of cpus, negative for "all but", or None for the word `detect`."""
    if text == "detect":
        return None
    try:
        cpus = int(text)
    except ValueError:
        cpus = 0
    if cpus == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of cpus; expected e.g. 4, -1 (all but one) or detect")
    return cpus


def gpus_or_detect(text: str) -> int | tuple[int, ...] | None:
    """A number of gpus, a tuple of indices when there is a comma, or None for the word `detect`."""
    if text == "detect":
        return None
    if "," in text:
        return tuple(not_negative(part.strip()) for part in text.split(",") if part.strip())
    return not_negative(text)


def named_amount(text: str) -> tuple[str, float]:
    """`NAME=AMOUNT`."""
    name, equals, amount = text.partition("=")
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if not equals or not name.isidentifier() or not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=AMOUNT with an amount >= 0, e.g. licences=2")
    return name, value


def list_of_cpus(text: str) -> list[int]:
    """A JSON list of cpus per worker, e.g. `[4,4,2]`."""
    try:
        cpus = json.loads(text)
    except json.JSONDecodeError:
        cpus = None
    whole = isinstance(cpus, list) and all(type(number) is int and number > 0 for number in cpus)
    if not whole or not cpus:
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON list of cpus per worker, e.g. [4,4,2]")
    return list(cpus)


def delete_timeout(environment: Mapping[str, str]) -> float:
    """Seconds for which a worker keeps values that are not needed."""
    text = environment.get("RAIN_DELETE_LIST_TIMEOUT")
    return parse_duration(text) if text else DEFAULT_DELETE_TIMEOUT
