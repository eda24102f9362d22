"""The JSON answers of the dashboard: everything below `/api/` but the WebSocket."""

from __future__ import annotations

import codecs
import math
import time
from array import array
from typing import TYPE_CHECKING, Any

from rain.common.structs import dataclass
from rain.dashboard.states import UnknownError
from rain.protocol.messages import Explain, GetTaskLog
from rain.server.http.handler import JSON, BaseHandler, Problem, answer_of, as_json

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_ID = (1 << 32) - 1
LARGEST_EVENT = (1 << 63) - 1
MOST_TASKS = 1000
MOST_EVENTS = 1000
MOST_NODES = 10_000
MOST_PIXELS = 10_000
LOG_PIECE = 64 << 10
LONGEST_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number of the query; what is above `most` counts as that."""

    name: str
    default: int | None
    least: int
    most: int

    def read(self, handler: BaseHandler) -> int | None:
        """Its value."""
        text = handler.get_query_argument(self.name, "")
        if not text:
            return self.default
        if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) < self.least:
            raise Problem(400, f"{self.name}={text[:100]!r} is not a whole number from {self.least} on")
        return min(int(text), self.most)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time of the query, unix seconds."""

    name: str

    def read(self, handler: BaseHandler) -> float | None:
        """Its value."""
        text = handler.get_query_argument(self.name, "")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Problem(400, f"{self.name}={text[:100]!r} is not a time in unix seconds")
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the query."""

    name: str
    default: str | None

    def read(self, handler: BaseHandler) -> str | None:
        """Its value."""
        text = handler.get_query_argument(self.name, "", strip=False)
        if len(text) > LONGEST_TEXT:
            raise Problem(400, f"{self.name} is longer than {LONGEST_TEXT} characters")
        return text or self.default


Parameter = Number | Moment | Text

_SPAN = (Moment("from"), Moment("to"), Number("width", 800, 1, MOST_PIXELS))
_TASKS = (
    Text("group", ""),
    Text("state", ""),
    Number("after", 0, 0, LARGEST_ID),
    Number("limit", 100, 1, MOST_TASKS),
)
_EVENTS = (
    Number("before", None, 0, LARGEST_EVENT),
    Number("session", None, 0, LARGEST_ID),
    Text("type", None),
    Number("limit", 200, 1, MOST_EVENTS),
)
_N = r"([0-9]{1,20})"

OVERVIEWS: list[tuple[str, str, tuple[Parameter, ...]]] = [
    ("sessions", "sessions", ()),
    (f"sessions/{_N}", "session", ()),
    (f"sessions/{_N}/groups", "groups", (Text("prefix", ""),)),
    (f"sessions/{_N}/tasks", "tasks", _TASKS),
    (f"sessions/{_N}/graph", "graph", (Number("limit", 2000, 1, MOST_NODES),)),
    (f"sessions/{_N}/stream", "stream", _SPAN),
    (f"tasks/{_N}/{_N}", "task", ()),
    ("workers", "workers", ()),
    ("events", "events", _EVENTS),
]
"""Path below `/api/` with the ids in it, method of the overview that answers, parameters of the query: they are the
arguments of the method, in this order."""

TASK = f"tasks/{_N}/{_N}"


class OverviewHandler(BaseHandler):
    """Answers by a method of the overview."""

    def initialize(self, method: str, parameters: tuple[Parameter, ...]) -> None:
        """See OVERVIEWS."""
        self._method = method
        self._parameters = parameters

    async def get(self, *ids: str) -> None:
        """The answer."""
        arguments = [*map(int, ids), *(parameter.read(self) for parameter in self._parameters)]
        await self.say_overview(self._method, *arguments)

    async def say_overview(self, method: str, *arguments: Any, also: Callable[[], dict[str, Any]] = dict) -> None:
        """Answer with what a method of the overview returns, and what `also` does."""

        def answer(overview: Any) -> str:
            return as_json({**getattr(overview, method)(*arguments), **also()})  # long ones take their time

        try:
            self.say_text(await answer_of(self.site.log.answer(answer)), JSON)
        except UnknownError as error:
            raise Problem(404, str(error)) from error

    head = get


class StatusHandler(OverviewHandler):
    """What the overview knows, and what the server itself does."""

    async def get(self, *_: str) -> None:
        """The answer."""
        await self.say_overview("status", also=self._own)

    def _own(self) -> dict[str, Any]:
        facts = self.site.facts
        about = {"version": facts.version, "address": facts.address, "started": facts.started}
        return {**about, "now": time.time(), "live": True}

    head = get


class StreamHandler(OverviewHandler):
    """The task stream of all sessions."""

    async def get(self, *_: str) -> None:
        """The answer."""
        await self.say_overview("stream", None, *(part.read(self) for part in _SPAN))

    head = get


class ExplainHandler(BaseHandler):
    """Why a task is in its state."""

    async def get(self, session: str, task: str) -> None:
        """The answer."""
        ids = array("I", [_id(task)])
        number = _id(session)
        answer = await answer_of(self.site.asker.ask(lambda seq: Explain(seq, number, ids)))
        self.say_json({"text": "\n".join(answer.texts)})

    head = get


class TaskLogHandler(BaseHandler):
    """What a task wrote."""

    async def get(self, session: str, task: str) -> None:
        """The answer."""
        stream = self.get_query_argument("stream", "stdout")
        if stream not in ("stdout", "stderr"):
            raise Problem(400, "stream is neither stdout nor stderr")
        offset = Number("offset", 0, 0, LARGEST_EVENT).read(self) or 0
        key = _id(session), _id(task)
        log = await answer_of(self.site.asker.ask(lambda seq: GetTaskLog(seq, *key, stream, offset, LOG_PIECE)))
        is_last = log.ended and log.offset + len(log.data) >= log.size
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(log.data, is_last)
        # A character that is cut in two comes whole with the next piece.
        following = log.offset + len(log.data) - len(decoder.getstate()[0])
        about = {"offset": log.offset, "next": following, "size": log.size, "ended": log.ended, "hint": log.hint}
        self.say_json({"text": text, **about})

    head = get


class NoSuchAnswerHandler(BaseHandler):
    """Everything else."""

    def get(self) -> None:
        """There is nothing."""
        raise Problem(404, f"There is no answer at {self.request.path[:200]}")

    head = get


def _id(text: str) -> int:
    number = int(text)
    if number > LARGEST_ID:
        raise Problem(404, f"There is no id {text}; the largest is {LARGEST_ID}")
    return number
