"""Questions to a worker that its core does not answer: what tasks wrote, who can be reached, how the machine does."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from rain.protocol.messages import PeersProbed, TaskLogRead, WorkerMonitoring
from rain.worker.probing import Probing
from rain.worker.task_logs import STREAMS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from rain.protocol.handshake import Secret
    from rain.protocol.messages import ProbePeers, ReadTaskLog
    from rain.worker.gathering import Gatherer
    from rain.worker.task_logs import TaskLogs, UnderWay


log = logging.getLogger(__name__)


class Inquiries:
    """Answers them, what takes long in threads.

    Args:
        loop: the worker's loop; everything is called, and answered, in it.
        task_logs: what tasks wrote.
        under_way: gives the run of a task which an executor has begun.
        gatherer: of the figures of the machine.
        secret: of the cluster.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        task_logs: TaskLogs,
        under_way: Callable[[int, int], UnderWay | None],
        gatherer: Gatherer,
        secret: Secret,
    ) -> None:
        self._loop = loop
        self._task_logs = task_logs
        self._under_way = under_way
        self._gatherer = gatherer
        self._secret = secret
        self._gathering = False

    def read_log(self, request: ReadTaskLog) -> TaskLogRead:
        """Read what a task wrote."""
        if request.stream not in STREAMS:
            hint = f"a task has no stream {request.stream!r}, but {' and '.join(STREAMS)}"
            return TaskLogRead(request.seq, b"", 0, 0, True, hint)
        return self._task_logs.read(request, self._under_way(request.session, request.task))

    def probe(self, request: ProbePeers, answer: Callable[[PeersProbed], None]) -> None:
        """Try to reach other workers."""

        def done(errors: list[str]) -> None:
            self._call(answer, PeersProbed(request.seq, errors))

        Probing(request.addresses, self._secret, done).start()

    def gather(self, answer: Callable[[WorkerMonitoring], None]) -> None:
        """Look at the machine; nothing is answered if the look before is not over yet."""
        if self._gathering:
            return
        self._gathering = True
        parts = self._gatherer.parts()

        def done(future: asyncio.Future[dict[str, Any]]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is not None:  # it will not get better: so no other look
                log.warning("Figures of this machine cannot be had: %r", error)
                return
            self._gathering = False
            answer(WorkerMonitoring({**future.result(), **parts}))

        self._loop.run_in_executor(None, self._gatherer.machine).add_done_callback(done)

    def forget(self) -> None:
        """The server is lost."""
        self._task_logs.forget()

    def _call(self, answer: Callable[[PeersProbed], None], message: PeersProbed) -> None:
        with contextlib.suppress(RuntimeError):  # the worker has ended
            self._loop.call_soon_threadsafe(answer, message)
