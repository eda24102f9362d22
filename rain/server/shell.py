"""The server's shell: channels to events, actions to channels. All decisions are the core's.

Everything it depends on is passed in, so that a simulated loop and simulated channels can be put under it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rain.protocol.messages import Accepted, Dump, FetchObjects, Heartbeat, Message, SubmitCommit, Wait
from rain.server.core.actions import (
    Drop,
    DropConstants,
    Exit,
    Log,
    Record,
    Send,
    ServerAction,
    ShareConstant,
    WriteConstant,
)
from rain.server.core.events import ConstantLost, PeerJoined, PeerLeft, PeerSaid, ServerEvent, Tick

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from rain.eventlog.records import Record as EventRecord
    from rain.server.core.core import ServerCore

logger = logging.getLogger("rain.server")

HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 15.0
TICK_SECONDS = 0.5
CALM_SECONDS = 1e-4
"""After so long without a turn, what comes is handled at once; else with what else came in this turn of the loop."""
HOLD_SECONDS = 0.002
"""So long `Accepted` may wait for the answer to a question that came together with a submit."""


class PeerChannel(Protocol):
    """What the shell needs of a connection (`rain.net.channel.Channel`)."""

    peer: str
    local: str

    def send(self, message: Message) -> None:
        """Queue a message."""

    def send_all(self, messages: list[Message]) -> None:
        """Write what is queued and these messages now."""

    def close(self) -> None:
        """Close after writing what is queued."""

    def abort(self) -> None:
        """Close at once."""


class Constants(Protocol):
    """What the shell needs of the constant store."""

    def write(self, session: int, obj: int, offset: int, data: bytes) -> None:
        """Write a piece."""

    def share(self, session: int, obj: int, source: int) -> None:
        """Give an object the value of another one."""

    def drop(self, session: int, objects: list[int] | None) -> None:
        """Remove values; None = all of the session."""


class ServerShell:
    """Runs a ServerCore on an event loop.

    Args:
        core: the state machine.
        loop: gives time and turns.
        constants: where large constants go.
        on_exit: called once with the exit code.
        look: what the core cannot know and a dump tells of the server.
        record: takes what belongs into the event log.

    Attributes:
        turns, turn_seconds: how often the core took events, and the time it needed, scheduling included.
    """

    def __init__(
        self,
        core: ServerCore,
        loop: asyncio.AbstractEventLoop,
        constants: Constants,
        on_exit: Callable[[int], None],
        look: Callable[[], dict[str, Any]] = dict,
        record: Callable[[list[EventRecord]], object] = list,
    ) -> None:
        self.core = core
        self.turns = 0
        self.turn_seconds = 0.0
        self.call_later = loop.call_later
        self._loop = loop
        self._constants = constants
        self._on_exit = on_exit
        self._look = look
        self._record = record
        self._events: list[ServerEvent] = []
        self._turn_planned = False
        self._last_turn = 0.0
        self._outgoing: dict[PeerHandler, list[Message]] = {}
        self._peers: dict[int, PeerHandler] = {}
        self._next_peer = 1
        self._timers: list[asyncio.TimerHandle] = []
        self._ended = False

    def start(self) -> None:
        """Begin ticking and sending heartbeats."""
        self.post(Tick())
        self._repeat(TICK_SECONDS, self._tick)
        self._repeat(HEARTBEAT_SECONDS, self._heartbeat)

    def _repeat(self, seconds: float, action: Callable[[], None]) -> None:
        position = len(self._timers)

        def fire() -> None:
            if not self._ended:
                action()
                self._timers[position] = self._loop.call_later(seconds, fire)

        self._timers.append(self._loop.call_later(seconds, fire))

    def accept(self, channel: PeerChannel, role: Literal["client", "worker", "http"], python: str) -> PeerHandler:
        """A peer finished its handshake; returns the handler of its channel."""
        number = self._next_peer
        self._next_peer += 1
        handler = PeerHandler(self, number, channel)
        self._peers[number] = handler
        if role != "http":
            logger.info("%s %s connected", role, channel.peer)
        self.post(PeerJoined(number, role, channel.peer, channel.local, python))
        return handler

    def post(self, *events: ServerEvent) -> None:
        """Give events to the core in the next turn."""
        self._events.extend(events)
        if not self._turn_planned and not self._ended:
            self._turn_planned = True
            self._loop.call_soon(self._turn)

    def heard(self, events: list[ServerEvent]) -> None:
        """Give what a peer said to the core: at once if nothing else is going on, which saves a turn of the loop."""
        if self._turn_planned or self._loop.time() - self._last_turn < CALM_SECONDS:
            self.post(*events)
        else:
            self._events += events
            self._turn()

    def _turn(self) -> None:
        self._turn_planned = False
        events, self._events = self._events, []
        if self._ended:
            return
        began = self._loop.time()
        try:
            actions = self.core.handle(events, began)
        except Exception:
            kinds = ", ".join(sorted({type(event).__name__ for event in events}))
            logger.exception("internal error while handling %s; the server ends", kinds)
            self._exit(1)
            return
        self.turns += 1
        self.turn_seconds += self._loop.time() - began
        records = []
        for action in actions:
            if type(action) is Record:
                records.append(action.record)
            else:
                self._perform(action)
        self._write()
        self._last_turn = self._loop.time()
        if records:
            self._record(records)

    def _write(self) -> None:
        outgoing, self._outgoing = self._outgoing, {}
        for handler, messages in outgoing.items():
            handler.say(messages)

    def _perform(self, action: ServerAction) -> None:
        kind = type(action)
        if kind is Send:
            assert isinstance(action, Send)
            handler = self._peers.get(action.peer)
            if handler is not None:
                message = action.message
                if type(message) is Dump:
                    message = self._completed(message)
                self._outgoing.setdefault(handler, []).append(message)
        else:
            self._perform_rare(action)

    def _completed(self, message: Dump) -> Dump:
        """The core's answer with what only this process knows."""
        server = {**message.dump["server"], **self._look()}
        return Dump(message.seq, {**message.dump, "server": server})

    def _perform_rare(self, action: ServerAction) -> None:
        match action:
            case Log(level, text):
                logger.log(logging.getLevelName(level.upper()), "%s", text)
            case WriteConstant(session, obj, offset, _, data):
                self._write_constant(session, obj, offset, data)
            case ShareConstant(session, obj, source):
                self._share_constant(session, obj, source)
            case DropConstants(session, objects):
                self._constants.drop(session, objects)
            case Drop(peer, reason):
                handler = self._peers.get(peer)
                if handler is not None:
                    self._write()
                    handler.release()
                    logger.warning("connection of %s closed: %s", handler.channel.peer, reason)
                    handler.channel.close()
            case Exit(code):
                self._write()
                for handler in self._peers.values():
                    handler.release()
                self._exit(code)

    def _share_constant(self, session: int, obj: int, source: int) -> None:
        try:
            self._constants.share(session, obj, source)
        except OSError as error:
            self._constant_lost(session, obj, error)

    def _write_constant(self, session: int, obj: int, offset: int, data: bytes) -> None:
        try:
            self._constants.write(session, obj, offset, data)
        except OSError as error:
            self._constant_lost(session, obj, error)

    def _constant_lost(self, session: int, obj: int, error: OSError) -> None:
        logger.error("constant %d/%d cannot be stored: %s", session, obj, error)
        self.post(ConstantLost(session, obj, str(error)))

    def _heartbeat(self) -> None:
        """Send a sign of life to every peer."""
        for handler in self._peers.values():
            handler.channel.send(Heartbeat())

    def _tick(self) -> None:
        """Time passed; peers that are silent for too long are lost.

        Silence is counted in ticks, not seconds: a server that was paused first reads what is waiting.
        """
        self.post(Tick())
        for handler in list(self._peers.values()):
            handler.silent_ticks += 1
            if handler.silent_ticks > SILENCE_SECONDS / TICK_SECONDS:
                self.lost(handler, f"no sign of life for {SILENCE_SECONDS:g} s")
                handler.channel.abort()

    def lost(self, handler: PeerHandler, reason: str) -> None:
        """The connection of a peer ended."""
        if self._peers.pop(handler.number, None) is not None:
            handler.forget()
            logger.info("%s disconnected: %s", handler.channel.peer, reason)
            self.post(PeerLeft(handler.number, reason))

    def _exit(self, code: int) -> None:
        if not self._ended:
            self._ended = True
            for timer in self._timers:
                timer.cancel()
            self._on_exit(code)


class PeerHandler:
    """Feeds what a channel delivers to the shell, and says what the core answers.

    A client mostly asks for a result together with the submit of the tasks that make it. If these are short, `Accepted`
    and the result leave in one write: the client wakes up once, and nobody waits for a message in between.
    """

    __slots__ = ("_expects_more", "_held", "_timer", "channel", "number", "shell", "silent_ticks")

    def __init__(self, shell: ServerShell, number: int, channel: PeerChannel) -> None:
        self.shell = shell
        self.number = number
        self.channel = channel
        self.silent_ticks = 0
        self._expects_more = False  # it has just asked something together with a submit
        self._held: list[Message] = []
        self._timer: asyncio.TimerHandle | None = None

    def messages_received(self, _channel: Any, messages: list[Message]) -> None:
        """All messages of one read; none while a long one is coming."""
        self.silent_ticks = 0
        if messages:
            number = self.number
            last = messages[-1]
            self._expects_more = (
                isinstance(last, FetchObjects | Wait) and len(messages) > 1 and isinstance(messages[-2], SubmitCommit)
            )
            self.shell.heard([PeerSaid(number, message) for message in messages])

    def say(self, messages: list[Message]) -> None:
        """Send the answers of one turn."""
        if self._held:
            messages = [*self._held, *messages]
            self.forget()
        elif self._expects_more and len(messages) == 1 and isinstance(messages[0], Accepted):
            self._expects_more = False
            self._held = messages
            self._timer = self.shell.call_later(HOLD_SECONDS, self.release)
            return
        self.channel.send_all(messages)

    def release(self) -> None:
        """Send what is held."""
        if self._held:
            self.say([])

    def forget(self) -> None:
        """Hold nothing any more."""
        self._held = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def channel_closed(self, _channel: Any, reason: str) -> None:
        """The connection ended."""
        self.shell.lost(self, reason)
