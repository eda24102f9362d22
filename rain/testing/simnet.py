"""A simulated network under the shells: nodes, links with latency, cuts, broken connections, crashes.

The channels have the methods of `rain.net` channels, so servers and workers run on it unchanged. Latency and the way
messages are grouped into reads are drawn from the loop's seed; each direction of a connection delivers in order.

A cut holds data back, as TCP does, and delivers it after `heal`. A crash of a process closes its connections at the
other ends, unless they are cut off from it; a crash of a whole host is never heard of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainConnectionError
from rain.testing.simlinks import DELIVERED, IN_FLIGHT, Links, Sabotage, SimHandler, SimHello

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from rain.testing.simloop import SimLoop, SimProcess

CRASHED = "connection reset: the process on the other side ended"
BROKEN = "connection reset"
CLOSED = "closed by the other side"


class SimNode:
    """A process on a host of its own, with an address.

    Attributes:
        name: as given.
        ip: address of the host, unique in the network.
        process: the simulated process whose code uses this node.
    """

    def __init__(self, network: SimNetwork, name: str, ip: str, process: SimProcess) -> None:
        self.name = name
        self.ip = ip
        self.process = process
        self.refuses = False
        self.listeners: dict[int, SimListener] = {}
        self.channels: list[SimChannel] = []
        self._network = network
        self._next_port = 40000

    def free_port(self) -> int:
        """A port of this node that was not used before."""
        self._next_port += 1
        return self._next_port

    def listen(self, port: int, accept: Callable[[SimChannel, SimHello], SimHandler]) -> SimListener:
        """Accept connections on a port; `accept` runs inside the node's process."""
        listener = SimListener(self, port, accept)
        self.listeners[port] = listener
        return listener

    async def connect(self, address: str, role: str, handler: SimHandler, *, timeout: float = 10.0) -> SimChannel:
        """Connect to `IP:PORT`.

        Raises:
            RainConnectionError: nobody listens there, or no answer within `timeout` seconds.
        """
        return await self._network.open(self, address, role, handler, timeout)

    def crash(self, *, silent: bool = False) -> None:
        """The process ends at once. silent: the host dies with it, nobody hears of it."""
        self._network.crash(self, silent=silent)

    def pause(self) -> None:
        """As SIGSTOP: the kernel keeps connections and takes data, the process does nothing."""
        self.process.pause()

    def resume(self) -> None:
        """As SIGCONT."""
        self.process.resume()


class SimListener:
    """A listening port."""

    def __init__(self, node: SimNode, port: int, accept: Callable[[SimChannel, SimHello], SimHandler]) -> None:
        self.node = node
        self.port = port
        self.accept = accept

    @property
    def address(self) -> str:
        """`IP:PORT`."""
        return f"{self.node.ip}:{self.port}"

    def close(self) -> None:
        """Listen no more; connections stay."""
        self.node.listeners.pop(self.port, None)


class SimChannel:
    """One end of a connection.

    Attributes:
        peer, local: `IP:PORT` of the other side and of this one.
        label: `NODE>NODE#N`, for traces.
    """

    def __init__(
        self, network: SimNetwork, node: SimNode, peer_node: SimNode, local: str, peer: str, number: int
    ) -> None:
        self.peer = peer
        self.local = local
        self.label = f"{node.name}>{peer_node.name}#{number}"
        self.node = node
        self.peer_node = peer_node
        self.outgoing = _Direction(network, self, node, peer_node)
        self.handler: SimHandler | None = None
        self.context: Context = node.process.context()
        self._network = network
        self._unsent: list[Any] = []
        self._inbox: deque[list[Any] | str] = deque()
        self._flushing = False
        self._closed = False
        self._reported = False
        node.channels.append(self)

    @property
    def is_closed(self) -> bool:
        """True once this side has closed or knows of the end."""
        return self._closed

    def send_checked(self, *messages: Any) -> None:
        """Send at once."""
        if not self._closed:
            self._unsent.extend(messages)
            self._flush()

    async def drained(self) -> None:
        """The simulated network takes whatever is sent."""
        self._flush()

    def send(self, message: Any) -> None:
        """Queue a message; all of one loop turn travel together. Ignored after the end of the connection."""
        if self._closed:
            return
        self._unsent.append(message)
        if not self._flushing:
            self._flushing = True
            self._network.loop.call_soon(self._flush)

    def send_all(self, messages: list[Any]) -> None:
        """Send what is queued and these messages now."""
        self.send_checked(*messages)

    def close(self) -> None:
        """Close after what is queued."""
        if self._closed:
            return
        self._flush()
        self._end(CLOSED, "closed here")

    def abort(self) -> None:
        """Close at once; what is queued here or on the way back is lost."""
        if self._closed:
            return
        self._unsent.clear()
        self._end(BROKEN, "aborted here")

    def _end(self, reason_there: str, reason_here: str) -> None:
        self._closed = True
        self.outgoing.push(reason_there)
        self._network.loop.call_soon(self._report_closed, reason_here, context=self.context)

    def _flush(self) -> None:
        self._flushing = False
        messages, self._unsent = self._unsent, []
        if not messages:
            return
        network = self._network
        messages = network.through_codec(messages)
        network.trace_messages(self.label, messages)
        struck = network.sabotage.strike(messages)
        if struck is not None:
            self._break_at(*struck, messages)
            return
        rng = network.loop.rng
        if len(messages) > 1 and rng.random() < 0.2:  # one write may arrive in several reads
            cut = rng.randrange(1, len(messages))
            self.outgoing.push(messages[:cut])
            messages = messages[cut:]
        self.outgoing.push(messages)

    def _break_at(self, position: int, kind: str, messages: list[Any]) -> None:
        self._network.loop.note(f"{self.label} breaks at {type(messages[position]).__name__}: {kind}")
        self._network.sabotage.struck(self.node.name, self.peer_node.name)
        answers = self.outgoing.receiver.outgoing if self.outgoing.receiver is not None else None
        if kind == IN_FLIGHT:
            self.outgoing.push(messages)
            self.outgoing.break_off()
        else:
            before = messages[: position + (kind == DELIVERED)]
            if before:
                self.outgoing.push(before)
            self.outgoing.push(BROKEN)
        if answers is not None:
            answers.break_off(lose_all=kind == DELIVERED)

    def arrived(self, item: list[Any] | str) -> None:
        """The network brings messages, or the reason of the end."""
        self._inbox.append(item)
        self._network.loop.call_soon(self._deliver, context=self.context)

    def _deliver(self) -> None:
        item = self._inbox.popleft()
        if self._closed:
            return
        if isinstance(item, str):
            self._closed = True
            self._report_closed(item)
        elif self.handler is not None:
            self.handler.messages_received(self, item)

    def _report_closed(self, reason: str) -> None:
        if self in self.node.channels:
            self.node.channels.remove(self)
        if not self._reported and self.handler is not None:
            self._reported = True
            self.handler.channel_closed(self, reason)


class _Direction:
    """What one end sends to the other: in order, each item some time after it was sent, nothing while cut."""

    def __init__(self, network: SimNetwork, sender: SimChannel, source: SimNode, target: SimNode) -> None:
        self._network = network
        self._sender = sender
        self._source = source
        self._target = target
        self._items: deque[tuple[float, list[Any] | str]] = deque()
        self._last_due = 0.0
        self._stalled = False
        self.receiver: SimChannel | None = None

    def push(self, item: list[Any] | str) -> None:
        loop = self._network.loop
        due = max(self._last_due, loop.time() + self._network.links.draw_latency(self._source.name, self._target.name))
        self._last_due = due
        self._items.append((due, item))
        loop.call_at(due, self.deliver_due, context=loop.outside)

    def deliver_due(self) -> None:
        network = self._network
        if self.receiver is None or self._stalled or network.is_cut(self._source, self._target):
            return
        now = network.loop.time()
        while self._items and self._items[0][0] <= now:
            item = self._items.popleft()[1]
            if isinstance(item, str):
                network.loop.note(f"{self._sender.label} ends: {item}")
            self.receiver.arrived(item)

    def break_off(self, *, lose_all: bool = False) -> None:
        if lose_all or self._network.loop.rng.random() < 0.5:
            self._items.clear()
        self.push(BROKEN)

    def stall(self) -> None:
        self._stalled = True

    def connect_to(self, receiver: SimChannel) -> None:
        self.receiver = receiver


class SimNetwork:
    """All nodes and links.

    Attributes:
        nodes: by name.
        watch: called with the label of the channel and each message that is sent.
        links: delays and cuts.
        sabotage: connections that break at a certain message.

    Args:
        loop: the loop of the simulation.
        codec: encode and decode each message as the real network does.
        latency: smallest and largest one-way delay in seconds.
        full_trace: add the content of each message to the trace, not only its type.
    """

    def __init__(
        self,
        loop: SimLoop,
        *,
        codec: bool = False,
        latency: tuple[float, float] = (0.0001, 0.01),
        full_trace: bool = False,
    ) -> None:
        self.loop = loop
        self.nodes: dict[str, SimNode] = {}
        self._by_ip: dict[str, SimNode] = {}
        self.links = Links(loop, latency)
        self.sabotage = Sabotage()
        self._full_trace = full_trace
        self.watch: Callable[[str, Any], None] | None = None
        self._channels = 0
        self._codec = _load_codec() if codec else None

    def node(self, name: str) -> SimNode:
        """A new node; names may be used again after a crash."""
        ip = f"10.0.{len(self._by_ip) // 250}.{len(self._by_ip) % 250 + 1}"
        node = SimNode(self, name, ip, self.loop.process(name))
        self.nodes[name] = node
        self._by_ip[ip] = node
        return node

    # --- faults ---------------------------------------------------------------------------------

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Hold back what `a` sends to `b`, and the reverse unless `one_way`."""
        self.loop.note(f"cut {a} {b} one_way={one_way}")
        self.links.cut(a, b)
        if not one_way:
            self.links.cut(b, a)

    def slow(self, a: str, b: str, latency: tuple[float, float]) -> None:
        """Each message between two nodes takes between so many seconds, until `heal`."""
        self.loop.note(f"slow {a} {b} {latency}")
        self.links.slow(a, b, latency)

    def heal(self, a: str, b: str) -> None:
        """Undo `cut` and `slow` in both directions; what was held back is delivered."""
        self.loop.note(f"heal {a} {b}")
        self.links.heal(a, b)
        for name in (a, b):
            node = self.nodes.get(name)
            if node is not None:
                self._wake(node)

    def break_connections(self, a: str, b: str) -> int:
        """Reset all connections between two nodes, both ends; what is on the way may be lost. Returns how many."""
        node = self.nodes[a]
        broken = [channel for channel in node.channels if channel.peer_node.name == b]
        for channel in broken:
            self.loop.note(f"break {channel.label}")
            channel.outgoing.break_off()
            if channel.outgoing.receiver is not None:
                channel.outgoing.receiver.outgoing.break_off()
        return len(broken)

    def stall_connections(self, a: str, b: str) -> int:
        """The connections between two nodes carry nothing any more, and neither end hears of it; new ones work.
        Returns how many."""
        stalled = [channel for channel in self.nodes[a].channels if channel.peer_node.name == b]
        for channel in stalled:
            self.loop.note(f"stall {channel.label}")
            channel.outgoing.stall()
            if channel.outgoing.receiver is not None:
                channel.outgoing.receiver.outgoing.stall()
        return len(stalled)

    def crash(self, node: SimNode, *, silent: bool = False) -> None:
        """End a node's process; see `SimNode.crash`."""
        self.loop.note(f"crash {node.name} silent={silent}")
        node.process.kill()
        node.listeners.clear()
        if silent:
            self.links.lose_host(node.ip)
        for channel in node.channels:
            if not silent:
                channel.outgoing.push(CRASHED)
        node.channels.clear()

    def is_cut(self, source: SimNode, target: SimNode) -> bool:
        """True if nothing gets from source to target now."""
        return self.links.is_cut(source.name, source.ip, target.name)

    # --- used by channels -----------------------------------------------------------------------

    def through_codec(self, messages: list[Any]) -> list[Any]:
        """The messages as the other side decodes them."""
        if self._codec is None:
            return messages
        codec = self._codec
        return [codec(message) for message in messages]

    def trace_messages(self, label: str, messages: list[Any]) -> None:
        """Add a line to the trace, show each message to who watches."""
        if self.watch is not None:
            for message in messages:
                self.watch(label, message)
        if self._full_trace:
            self.loop.note(f"{label} {messages!r}")
        else:
            self.loop.note(f"{label} " + " ".join(type(message).__name__ for message in messages))

    async def open(self, node: SimNode, address: str, role: str, handler: SimHandler, timeout: float) -> SimChannel:
        """Connect `node` to `address`; see `SimNode.connect`."""
        ip, _, port = address.rpartition(":")
        target = self._by_ip.get(ip)
        answered: asyncio.Future[SimChannel | None] = self.loop.create_future()
        self.loop.call_outside(self.links.draw_latency(), self._knock, node, target, int(port), role, handler, answered)
        try:
            async with asyncio.timeout(timeout):
                channel = await asyncio.shield(answered)
        except TimeoutError:
            answered.add_done_callback(_abort_late, context=self.loop.outside)
            raise RainConnectionError(f"cannot connect to {address}: no answer within {timeout:g} s") from None
        if channel is None:
            raise RainConnectionError(f"cannot connect to {address}: connection refused")
        return channel

    def _knock(
        self,
        node: SimNode,
        target: SimNode | None,
        port: int,
        role: str,
        handler: SimHandler,
        answered: asyncio.Future[SimChannel | None],
    ) -> None:
        if target is None or self.is_cut(node, target) or self.is_cut(target, node):
            return  # no answer: the caller's time limit decides
        listener = target.listeners.get(port)
        if listener is None or target.refuses or not target.process.alive:
            self.loop.call_outside(self.links.draw_latency(), _resolve, answered, None)
            return
        if not node.process.alive:
            return
        self._channels += 1
        number = self._channels
        self.loop.note(f"connect {node.name} {target.name} {role} #{number}")
        calling, called = f"{node.ip}:{node.free_port()}", f"{target.ip}:{port}"
        here = SimChannel(self, node, target, calling, called, number)
        there = SimChannel(self, target, node, called, calling, number)
        here.handler = handler
        there.outgoing.connect_to(here)
        hello = SimHello(role, "3.11.4", called)

        def accept() -> None:
            there.handler = listener.accept(there, hello)
            here.outgoing.connect_to(there)
            here.outgoing.deliver_due()
            self.loop.call_outside(self.links.draw_latency(), _resolve, answered, here)

        self.loop.call_soon(accept, context=there.context)

    def _wake(self, node: SimNode) -> None:
        for channel in node.channels:
            self.loop.call_outside(self.links.draw_latency(), channel.outgoing.deliver_due)
            other = channel.outgoing.receiver
            if other is not None:
                self.loop.call_outside(self.links.draw_latency(), other.outgoing.deliver_due)


def _abort_late(answered: asyncio.Future[SimChannel | None]) -> None:
    channel = None if answered.cancelled() else answered.result()
    if channel is not None:
        channel.abort()


def _resolve(answered: asyncio.Future[SimChannel | None], channel: SimChannel | None) -> None:
    if not answered.done():
        answered.set_result(channel)


def _load_codec() -> Callable[[Any], Any]:
    from rain.protocol import codec, framing

    classes = set(codec.MESSAGE_CLASSES)

    def through(message: Any) -> Any:
        if type(message) not in classes:
            return message
        (frame,) = framing.FrameReader().feed(codec.encode([message]))
        return codec.decode(frame)

    return through
