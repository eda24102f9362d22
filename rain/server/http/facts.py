"""What the HTTP port is told of the server at its start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rain.common.structs import dataclass
from rain.server.core.monitoring import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the server from its start on.

    Attributes:
        version, address: as in ServerInfo.
        started: unix seconds.
        log: the event log.
        static: folder of the page.
        metrics: gives the core's figures.
        turns: how often the core took events so far, and the seconds it needed.
        is_ending: whether the server is about to end.
    """

    version: str
    address: str
    started: float
    log: Path
    static: Path
    metrics: Callable[[], Metrics]
    turns: Callable[[], tuple[int, float]]
    is_ending: Callable[[], bool]
