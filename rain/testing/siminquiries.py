"""What a simulated worker answers to questions that its core does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.protocol.messages import PeersProbed, TaskLogRead, WorkerMonitoring

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.protocol.messages import ProbePeers, ReadTaskLog


class SimInquiries:
    """Its machine is idle, its tasks write nothing, and all others can be reached."""

    def read_log(self, request: ReadTaskLog) -> TaskLogRead:
        """Nothing was written."""
        return TaskLogRead(request.seq, b"", 0, 0, True, "the task wrote nothing")

    def probe(self, request: ProbePeers, answer: Callable[[PeersProbed], None]) -> None:
        """All is well."""
        answer(PeersProbed(request.seq, [""] * len(request.addresses)))

    def gather(self, answer: Callable[[WorkerMonitoring], None]) -> None:
        """Nothing goes on."""
        answer(WorkerMonitoring({"cpu_usage": [0.0], "mem_usage": 0.0, "net_stat": {}}))

    def forget(self) -> None:
        """There is nothing to forget."""
