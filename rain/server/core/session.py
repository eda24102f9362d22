"""What the server knows of a session, a template and a duration group."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.failure import Failure
from rain.common.structs import dataclass
from rain.common.task_template import read_template_map
from rain.protocol.fields import Ids
from rain.protocol.messages import WAIT_ALL
from rain.server.core.graph import Graph
from rain.server.core.staging import StagedSubmit
from rain.server.core.story import Story
from rain.server.scheduler.resources import Request, parse_request

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN_DURATION = 0.01
"""Seconds assumed for work never measured, so that unmeasured tasks spread over workers."""
SHORTEST_DURATION = 20e-6
"""Overhead per task; bounds the number of tasks sent ahead."""


class DurationGroup:
    """Moving average of the measured durations of alike tasks. seconds: None until measured. one_by_one: members of
    task arrays do not run in blocks (any more)."""

    __slots__ = ("one_by_one", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.one_by_one = False

    def add(self, seconds: float) -> None:
        """Take a measurement."""
        known = self.seconds
        self.seconds = seconds if known is None else known + 0.25 * (seconds - known)

    @property
    def expected(self) -> float:
        """Seconds to reckon with for one task."""
        known = self.seconds
        if known is None:
            return UNKNOWN_DURATION
        return known if known > SHORTEST_DURATION else SHORTEST_DURATION


class Template:
    """What many tasks have in common."""

    __slots__ = ("in_blocks", "is_python", "name", "output_specs", "packed", "priority", "request", "retries", "type")

    def __init__(self, packed: bytes) -> None:
        """Read a packed template.

        Raises:
            ValueError: not well formed.
        """
        data = read_template_map(packed)
        self.packed = packed
        self.type: str = data["task_type"]
        self.name: str | None = data.get("name")
        self.retries: int = data.get("retries") or 0
        self.priority: int = data.get("priority") or 0
        self.request: Request = parse_request(data.get("resources") or {})
        outputs: list[dict[str, Any]] = data.get("outputs") or []
        self.output_specs: tuple[bytes, ...] = tuple(msgpack.packb(spec) for spec in outputs)
        self.is_python = self.type == "py" or self.type.startswith("py/")
        #: nothing in it must be watched for a single run
        self.in_blocks = (
            self.is_python
            and len(outputs) == 1
            and data.get("timeout") is None
            and not data.get("cache")
            and self.request.cpus == 1
            and not self.request.other
        )


@dataclass(slots=True, eq=False)
class Waiter:
    """A Wait or FetchObjects that is not answered yet.

    ids: what it waits for; spans: the same in stretches, once needed. rows: where it is registered. remaining: how
    many of these are not done. fetch: addresses the client could not reach, None for a Wait. answer: how a fetch is
    answered. since: when it came.
    """

    peer: int
    seq: int
    session: int
    since: float
    mode: int = WAIT_ALL
    ids: Ids = field(default_factory=lambda: array("I"))
    rows: list[int] = field(default_factory=list)
    remaining: int = 0
    fetch: frozenset[str] | None = None
    answer: Callable[..., None] | None = None
    spans: list[tuple[int, int]] | None = None


@dataclass(slots=True, eq=False)
class CancelRequest:
    """A Cancel that is answered when nothing runs any more. running: rows not stopped yet; stopped: the answer."""

    peer: int
    seq: int
    running: set[int]
    stopped: array[int]


@dataclass(slots=True)
class Session:
    """One task graph and its fate.

    peer: the client's connection. failure: set when it failed. unfinished: tasks that are not terminal.
    watch: waiters by the row they wait for. whole: waiters for the whole session. workers: incarnations that
    know the session. attempts_lost: per task, workers lost while it was running. lost_unstarted: tasks
    given back because their worker was lost. returned: runs given back before they started. failures: failed runs.
    moves: withdrawals. on_failure: policy. first_failure: of a session that goes on. failed_task: name and story of
    the task that failed the session.
    failed_at: incarnation of the worker where it ran last, 0 if it never ran. blame: why things are
    failed, cancelled or aborted. stopping: incarnation by task, for runs
    being stopped. cancels: requests not answered yet. failed_on: where a task that is tried again failed. weights:
    sizes pretended in test mode. recomputed: tasks that ran
    again for lost results. unreadable: failed reads by object. uploads: (received, total) of constants sent in
    pieces. staged: the submit under way. warned: texts already sent. stories: what happened to single
    tasks. began: when runs that a worker told of began. suspicions, watched: of the watchdog. created: when.
    """

    number: int
    peer: int
    name: str
    graph: Graph = field(default_factory=Graph)
    failure: Failure | None = None
    unfinished: int = 0
    ready: int = 0
    templates: list[Template] = field(default_factory=list)
    groups: list[DurationGroup] = field(default_factory=list)
    group_keys: dict[Any, int] = field(default_factory=dict)
    watch: dict[int, list[Waiter]] = field(default_factory=dict)
    whole: list[Waiter] = field(default_factory=list)
    workers: set[int] = field(default_factory=set)
    attempts_lost: dict[int, list[str]] = field(default_factory=dict)
    lost_unstarted: set[int] = field(default_factory=set)
    returned: dict[int, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    moves: dict[int, int] = field(default_factory=dict)
    on_failure: str = "fail"
    first_failure: Failure | None = None
    failed_task: tuple[str, Story] | None = None
    failed_at: int = 0
    blame: dict[int, Failure] = field(default_factory=dict)
    stopping: dict[int, int] = field(default_factory=dict)
    cancels: list[CancelRequest] = field(default_factory=list)
    failed_on: dict[int, int] = field(default_factory=dict)
    weights: dict[int, int] = field(default_factory=dict)
    recomputed: set[int] = field(default_factory=set)
    unreadable: dict[int, int] = field(default_factory=dict)
    uploads: dict[int, tuple[int, int]] = field(default_factory=dict)
    staged: StagedSubmit | None = None
    warned: set[str] = field(default_factory=set)
    stories: dict[int, Story] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)
    suspicions: int = 0
    watched: int = 0
    created: float = 0.0

    def waiters(self) -> Iterator[Waiter]:
        """All waiters, each once."""
        seen: set[int] = set()
        for waiters in [*self.watch.values(), self.whole]:
            for waiter in waiters:
                if id(waiter) not in seen:
                    seen.add(id(waiter))
                    yield waiter

    def id_of(self, row: int) -> str:
        """`1/12` for messages."""
        return f"{self.number}/{self.graph.numbering.id(row)}"

    def task_name(self, task: int) -> str:
        """`'name' (1/12)` for messages."""
        name = self.templates[self.graph.template[task]].name
        return f"{name!r} ({self.id_of(task)})" if name else self.id_of(task)
