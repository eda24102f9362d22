"""A simulated server: the real core and shell, its constants in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from rain.common.errors import RainConnectionError
from rain.server.core.core import ServerCore
from rain.server.core.events import CopyUnreadable, PeerSaid
from rain.server.shell import ServerShell
from rain.testing.simdata import DataServer, read_from

if TYPE_CHECKING:
    from rain.protocol.messages import Message
    from rain.server.core.actions import ServerAction
    from rain.server.core.events import ServerEvent
    from rain.server.core.state import CoreOptions
    from rain.testing.simlinks import SimHandler, SimHello
    from rain.testing.simloop import SimLoop
    from rain.testing.simnet import SimChannel, SimNode

PORT = 7210


class SimConstants:
    """Large constants of sessions, in a dict."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, int], bytearray] = {}

    def write(self, session: int, obj: int, offset: int, data: bytes) -> None:
        """Write a piece; offset 0 begins the value anew."""
        if offset == 0:
            self.values[session, obj] = bytearray()
        value = self.values[session, obj]
        assert len(value) == offset
        value += data

    def share(self, session: int, obj: int, source: int) -> None:
        """Give an object the value of another one."""
        self.values[session, obj] = self.values[session, source]

    def drop(self, session: int, objects: list[int] | None) -> None:
        """Remove values; None = all of the session."""
        for key in list(self.values):
            if key[0] == session and (objects is None or key[1] in objects):
                del self.values[key]


class CheckedServerCore(ServerCore):
    """A server core whose invariants are walked after every `every`-th batch of events."""

    def __init__(self, options: CoreOptions, every: int) -> None:
        super().__init__(options)
        self._every = every
        self._batches = 0

    def handle(self, events: list[ServerEvent], now: float) -> list[ServerAction]:
        """Hand on, then check."""
        actions = super().handle(events, now)
        state = self.state
        assert not state.errors, "the watchdog found an internal error"
        for worker in state.workers.values():
            assert not worker.disagreements, f"the digest of {worker.worker_id} is not the server's"
        self._batches += 1
        if self._batches % self._every == 0:
            self.sanity_check()
        return actions


class _NoChannel:
    """Answers are not read."""

    peer = local = "10.0.0.1:0"

    def send(self, message: Message) -> None:
        """Forget it."""

    def send_all(self, messages: list[Message]) -> None:
        """Forget them."""

    def close(self) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        """Nothing to close."""


class SimServer:
    """A server on a node of the simulated network.

    Attributes:
        exit_code: set when the server has ended by itself.
    """

    def __init__(self, loop: SimLoop, node: SimNode, options: CoreOptions, *, check_every: int = 1) -> None:
        self.node = node
        self.core = CheckedServerCore(options, check_every)
        self.constants = SimConstants()
        self.exit_code: int | None = None
        self.shell = ServerShell(self.core, loop, self.constants, self._exit)
        self._data = DataServer(self._read)

    @property
    def address(self) -> str:
        """Where clients and workers connect."""
        return f"{self.node.ip}:{PORT}"

    def start(self) -> None:
        """Listen and tick, inside its process."""
        self.node.process.run(self.node.listen, PORT, self._accept)
        self.node.process.run(self.shell.start)

    def holds_nothing(self) -> bool:
        """No session, constant or assigned task is left."""
        state = self.core.state
        assigned = any(worker.assigned for worker in state.workers.values())
        queued = sum(len(queue) for queue in state.queue.classes())
        return not state.sessions and not self.constants.values and not assigned and not queued

    def ask(self, message: Message) -> None:
        """A question of somebody who does not wait for the answer."""
        handler = self.shell.accept(_NoChannel(), "http", "3.11.4")
        self.shell.post(PeerSaid(handler.number, message))

    def _accept(self, channel: SimChannel, hello: SimHello) -> SimHandler:
        if hello.role == "data":
            return self._data
        return self.shell.accept(channel, cast(Any, hello.role), hello.python)

    async def _read(self, key: tuple[int, int]) -> bytes | None:
        """A constant, or a value relayed from a worker that has it."""
        value = self.core.value(*key)
        if value is None and key in self.constants.values:
            value = bytes(self.constants.values[key])
        if value is not None:
            return value
        for incarnation, address in self.core.holders(*key):
            try:
                value = await read_from(self.node, address, key)
            except RainConnectionError:
                value = None
            if value is not None:
                return value
            self.shell.post(CopyUnreadable(*key, incarnation))
        return None

    def _exit(self, code: int) -> None:
        self.exit_code = code
        self.node.crash()
