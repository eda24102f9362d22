"""What the shell of the worker core needs: the core itself, its connection, and the parts that perform actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rain.common.structs import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rain.protocol.messages import (
        Message,
        PeersProbed,
        ProbePeers,
        ReadTaskLog,
        TaskLogRead,
        WorkerMonitoring,
        WorkerWelcome,
    )
    from rain.worker.core.actions import FetchObject, Run, WorkerAction
    from rain.worker.core.events import ObjectKey, TaskKey, WorkerEvent


class Core(Protocol):
    """What the shell needs of `WorkerCore`."""

    def handle(self, events: list[WorkerEvent], now: float) -> Sequence[WorkerAction]:
        """Take events, return what to do."""

    def next_deadline(self) -> float | None:
        """When a Tick is needed, unix seconds; None if the usual ones will do."""


class ChannelLike(Protocol):
    """What it needs of a `rain.net` channel."""

    def send(self, message: Message) -> None:
        """Queue a message."""

    def send_all(self, messages: list[Message]) -> None:
        """Write what is queued and these messages now."""

    def abort(self) -> None:
        """Close at once."""


class StoreLike(Protocol):
    """What it needs of the store."""

    def put(self, key: ObjectKey, value: bytes) -> None:
        """Store a value."""

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove values."""


class ExecutorsLike(Protocol):
    """What it needs of the executor pool."""

    def start(self, executor: int, type: str, env: tuple[tuple[str, str | None], ...]) -> None:
        """Start a process."""

    def call(self, executor: int, runs: list[Run]) -> None:
        """Send a batch."""

    def drop_cached(self, executor: int, objects: list[ObjectKey]) -> None:
        """Let it forget objects."""

    def kill(self, executor: int, grace: float) -> None:
        """End its process group; with a grace above 0 ExecutorStopped follows."""

    def forbid(self, executor: int, key: TaskKey) -> None:
        """It shall not begin this run; RunKept follows if it had not."""

    def end_session(self, session: int) -> None:
        """Let all forget what they know of a session."""


class TransfersLike(Protocol):
    """What it needs of the transfers."""

    def fetch(self, action: FetchObject) -> None:
        """Start a transfer."""

    def stop(self, key: ObjectKey) -> None:
        """Stop it."""


class BuiltinsLike(Protocol):
    """What it needs of the built-in tasks."""

    def run(self, run: Run) -> None:
        """Start one."""

    def stop(self, key: TaskKey, grace: float) -> None:
        """Stop it; with a grace above 0 BuiltinStopped follows."""


class ResultsLike(Protocol):
    """What it needs of the result cache."""

    def look_up(self, run: Run) -> None:
        """Look for the result of a run; LookedUp follows."""

    def stop(self, key: TaskKey) -> None:
        """It is not wanted any more, or its run came to nothing; no LookedUp follows."""

    def keep(self, key: TaskKey, outputs: list[tuple[int, bytes | None]]) -> None:
        """A run that was looked up in vain succeeded."""


class InquiriesLike(Protocol):
    """What it needs for questions of the server that the core does not answer."""

    def read_log(self, request: ReadTaskLog) -> TaskLogRead:
        """Read what a task wrote."""

    def probe(self, request: ProbePeers, answer: Callable[[PeersProbed], None]) -> None:
        """Try to reach other workers; answers later, in the loop."""

    def gather(self, answer: Callable[[WorkerMonitoring], None]) -> None:
        """Look at the machine and the worker; answers later, in the loop."""

    def forget(self) -> None:
        """The server is lost: its numbers mean nothing any more."""


class Supervisor(Protocol):
    """Who runs the shell. Called in the loop, never from inside the core or an action."""

    def registered(self, welcome: WorkerWelcome) -> None:
        """The server has taken this worker."""

    def server_lost(self, reason: str) -> None:
        """The connection is lost and everything stopped."""

    def leave(self, code: int) -> None:
        """The process shall end with this code; the shell does nothing any more."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What performs the actions. complete: adds to what the core tells for a dump what it cannot know."""

    store: StoreLike
    executors: ExecutorsLike
    transfers: TransfersLike
    builtins: BuiltinsLike
    results: ResultsLike
    inquiries: InquiriesLike
    complete: Callable[[dict[str, Any]], dict[str, Any]] = lambda info: info
