"""What the handlers of requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.server.http.asking import Asker
from rain.server.http.connections import Connections
from rain.server.http.lag import LoopLag
from rain.server.http.live import LiveSockets
from rain.server.http.logview import LogView

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.server.http.asking import Shell
    from rain.server.http.facts import Facts
    from rain.server.http.gate import Gate
    from rain.server.http.logview import Overview, Reader


class Site:
    """Everything requests are answered from; made inside the running loop.

    Args:
        facts: of the server.
        gate: who may ask.
        shell: whom to ask.
        open_log: as in `LogView`.
    """

    def __init__(self, facts: Facts, gate: Gate, shell: Shell, open_log: Callable[[], tuple[Reader, Overview]]) -> None:
        self.facts = facts
        self.gate = gate
        self.connections = Connections()
        self.live = LiveSockets()
        self.log = LogView(open_log, self.live.tell)
        self.asker = Asker(shell, facts.address)
        self.lag = LoopLag()

    def close(self) -> None:
        """End everything."""
        self.lag.close()
        self.log.close()
        self.live.close()
        self.connections.close_all()
        self.asker.close()
