"""The blocking channel of the synchronous client."""

from __future__ import annotations

import signal
import socket
import threading
import time

import pytest

from rain.common.errors import AuthenticationError, RainConnectionError, RainException
from rain.net.address import Address
from rain.net.blocking import BlockingChannel
from rain.net.secret import Secret, generate_secret
from rain.net.sockets import bind_listening, server_handshake, shake_hands
from rain.protocol import codec, messages as m
from rain.protocol.framing import FrameReader
from rain.protocol.limits import ProtocolError
from tests.net.hostile import nothing_left

SECRET = generate_secret()


class Peer:
    """The other side: a listening socket and the accepted one, driven by hand."""

    def __init__(self, secret: Secret = SECRET, **options) -> None:
        self.secret = secret
        self.options = options
        self.listening = bind_listening(Address("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self.listening.getsockname()[1])
        self.socket: socket.socket | None = None
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def _accept(self) -> None:
        self.socket, _ = self.listening.accept()
        handshake = server_handshake(self.secret, ("client",))
        for name, value in self.options.items():
            setattr(handshake, name, value)
        try:
            shake_hands(self.socket, handshake, time.monotonic() + 5)
            self.socket.settimeout(5)
        except (RainException, OSError):
            self.socket.close()

    def connected(self) -> socket.socket:
        self.thread.join(5)
        assert self.socket is not None
        return self.socket

    def close(self) -> None:
        self.thread.join(5)
        self.listening.close()
        if self.socket is not None:
            self.socket.close()


@pytest.fixture
def peer():
    with nothing_left():
        other = Peer()
        yield other
        other.close()


@pytest.fixture
def channel(peer):
    connected = BlockingChannel.connect(peer.address, "client", SECRET, timeout=5)
    peer.connected()
    yield connected
    connected.close()


def receive_all(sock: socket.socket, count: int) -> list[m.Message]:
    reader, messages = FrameReader(), []
    while len(messages) < count:
        data = sock.recv(1 << 20)
        assert data, "closed"
        messages += [codec.decode(frame) for frame in reader.feed(data)]
    return messages


def test_both_ways(peer, channel):
    channel.send(m.Accepted(1), m.Accepted(2))
    assert receive_all(peer.socket, 2) == [m.Accepted(1), m.Accepted(2)]
    peer.socket.sendall(codec.encode([m.Accepted(3), m.Accepted(4)]))
    assert channel.receive(5) == [m.Accepted(3), m.Accepted(4)]
    assert channel.local == f"127.0.0.1:{peer.socket.getpeername()[1]}"
    assert channel.fileno() > 0


def test_nothing_comes_in_time(peer, channel):
    assert channel.receive(0) == []
    for timeout in (0.02, 0.02, 0.05, 1e-9):
        started = time.monotonic()
        assert channel.receive(timeout) == []
        assert time.monotonic() - started >= timeout * 0.9


def test_part_of_a_message_is_kept(peer, channel):
    data = codec.encode([m.Accepted(1)])
    peer.socket.sendall(data[:20])
    assert channel.receive(0.05) == []
    peer.socket.sendall(data[20:])
    assert channel.receive(5) == [m.Accepted(1)]


def test_without_a_timeout(peer, channel):
    assert channel.receive(0.01) == []
    timer = threading.Timer(0.05, peer.socket.sendall, [codec.encode([m.Accepted(1)])])
    timer.start()
    assert channel.receive(None) == [m.Accepted(1)]
    timer.join()


def test_large_message(peer, channel):
    piece = m.ConstantPiece(1, 10, 0, 8 << 20, bytes(range(256)) * (8 << 12))
    thread = threading.Thread(target=channel.send, args=(piece, m.Accepted(1)))
    thread.start()
    assert receive_all(peer.socket, 2) == [piece, m.Accepted(1)]
    thread.join()


def test_one_thread_sends_while_another_receives(peer, channel):
    count = 300
    answers = []

    def echo():
        for message in receive_all(peer.socket, count):
            peer.socket.sendall(codec.encode([message]))

    def collect():
        while len(answers) < count:
            answers.extend(channel.receive(5))

    threads = [threading.Thread(target=echo), threading.Thread(target=collect)]
    for thread in threads:
        thread.start()
    sent = [m.Accepted(number) for number in range(count)]
    for message in sent:
        channel.send(message)
    for thread in threads:
        thread.join(10)
    assert answers == sent


def test_lost_connection_names_the_address(peer, channel):
    peer.socket.close()
    with pytest.raises(RainConnectionError, match=f"connection to {peer.address} is lost: the other side closed it"):
        channel.receive(5)

    def send_until_noticed():
        for _ in range(100):
            channel.send(m.Accepted(1))

    with pytest.raises(RainConnectionError, match=str(peer.address)):
        send_until_noticed()


def test_garbage_is_a_lost_connection(peer, channel):
    peer.socket.sendall(b"\xff" * 100)
    with pytest.raises(RainConnectionError, match="segments") as caught:
        channel.receive(5)
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert channel.fileno() == -1


def test_close_wakes_a_receiver(channel):
    threading.Timer(0.05, channel.close).start()
    with pytest.raises(RainConnectionError, match="closed"):
        channel.receive(None)
    channel.close()
    with pytest.raises(RainConnectionError, match="is closed"):
        channel.send(m.Accepted(1))


def test_a_peer_that_reads_nothing(peer, monkeypatch):
    monkeypatch.setattr("rain.net.blocking.SEND_TIMEOUT", 0.1)
    channel = BlockingChannel.connect(peer.address, "client", SECRET, timeout=5)
    with pytest.raises(RainConnectionError, match=r"took nothing for 0\.1 s"):
        channel.send(m.ConstantPiece(1, 10, 0, 1, bytes(32 << 20)))
    channel.close()


def test_interrupted_send_stays_in_step(peer, channel):
    """Ctrl-C within a large message: the rest goes out with the next call."""
    piece = m.ConstantPiece(1, 10, 0, 1, bytes(32 << 20))
    main = threading.main_thread().ident
    assert main is not None

    def interrupt():
        assert peer.socket.recv(
            1, socket.MSG_PEEK
        )  # the first bytes are there, more than fits into the buffers follows
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        channel.send(piece)
    interrupting.join()
    received: list[m.Message] = []
    reading = threading.Thread(target=lambda: received.extend(receive_all(peer.socket, 2)))
    reading.start()
    channel.send(m.Accepted(1))
    reading.join(10)
    assert received == [piece, m.Accepted(1)]


def test_interrupted_receive_stays_in_step(peer, channel):
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        channel.receive(5)
    peer.socket.sendall(codec.encode([m.Accepted(1)]))
    assert channel.receive(5) == [m.Accepted(1)]


def test_message_that_cannot_be_encoded_harms_nothing(peer, channel):
    with pytest.raises(ProtocolError, match="cannot encode"):
        channel.send(m.Accepted(-1))
    channel.send(m.Accepted(1))
    assert receive_all(peer.socket, 1) == [m.Accepted(1)]


def test_refusals():
    with nothing_left():
        for secret, text in ((Secret("wrong", "RAIN_TOKEN"), "RAIN_TOKEN"), (Secret(None, "nowhere"), "nowhere")):
            other = Peer()
            with pytest.raises(AuthenticationError, match=text):
                BlockingChannel.connect(str(other.address), "client", secret, timeout=5)
            other.close()
        other = Peer(_protocol=2, _hello=b"RAIN\x02\x00\x28\x00\x00" + bytes(32) + b"\x030.6\x02py")
        with pytest.raises(RainConnectionError, match=r"speaks protocol 2 \(Rain 0.6\), this side protocol 1"):
            BlockingChannel.connect(other.address, "client", SECRET, timeout=5)
        other.close()


def test_a_port_that_is_silent_or_closed():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = Address("127.0.0.1", sock.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(RainConnectionError, match=rf"cannot connect to {address}: no answer within 0\.2 s"):
            BlockingChannel.connect(address, "client", SECRET, timeout=0.2)
        assert time.monotonic() - started < 5
    with pytest.raises(RainConnectionError, match=rf"cannot connect to {address}: Connection refused"):
        BlockingChannel.connect(address, "client", SECRET, timeout=5)
