"""The handshake at the beginning of every connection, pure.

    connecting side                                  listening side
    hello: role, versions, nonce            ->
                                            <-       hello: flags, versions, nonce
    proof: HMAC-SHA256                      ->
                                            <-       verdict and proof: HMAC-SHA256

Both proofs are over both hellos as they were sent, with a label per direction. The secret itself is never sent. A
listener that runs insecurely says so in its hello and skips the proofs. Nothing else is parsed before the end.

Neither class raises on what the network sends: `error` is set instead, and what `feed` returned is still to be
written before the connection is closed.
"""

from __future__ import annotations

import hmac
import struct
import sys
from abc import ABC, abstractmethod
from dataclasses import field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from rain import __version__
from rain.common.errors import AuthenticationError, RainConnectionError, RainException
from rain.common.structs import dataclass
from rain.protocol.limits import MAX_HANDSHAKE, PROTOCOL, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Collection

Role: TypeAlias = Literal["client", "worker", "data"]
"""What the connecting side is."""

MAGIC = b"RAIN"
NONCE_SIZE = 32
PROOF_SIZE = 32

_HEAD = struct.Struct("<4sHH")  # magic, protocol number, length of the rest
_ROLES: tuple[Role, ...] = get_args(Role)
_ROLE_CODES: dict[Role, int] = {role: code for code, role in enumerate(_ROLES, start=1)}
_INSECURE = 1
_ACCEPTED, _WRONG_PROOF, _ROLE_NOT_SERVED = 0, 1, 2
_CLIENT_LABEL = b"rain 1 proof of the connecting side"
_SERVER_LABEL = b"rain 1 proof of the listening side"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Secret:
    """What both sides must know.

    Attributes:
        token: the secret, or None if there is none.
        source: where it comes from or where it was looked for, for error texts.
    """

    token: str | None = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class PeerHello:
    """What a side learns of the other one.

    Attributes:
        role: `client`, `worker` or `data`; `server` for whoever listens.
        rain: version of Rain.
        python: version of Python, `major.minor`.
        protocol: protocol number.
        local: address under which the peer reached this side, `""` where that is not known.
    """

    role: str
    rain: str
    python: str
    protocol: int
    local: str = ""


def _pack_hello(code: int, nonce: bytes, protocol: int) -> bytes:
    versions = b"".join(bytes([len(text)]) + text.encode() for text in (__version__, _PYTHON))
    body = bytes([code]) + nonce + versions
    return _HEAD.pack(MAGIC, protocol, len(body)) + body


def _unpack_hello(body: bytes) -> tuple[int, str, str]:
    """The first byte (role or flags) and both versions; whatever follows is of later versions."""
    position = 1 + NONCE_SIZE
    versions = []
    for _ in range(2):
        if position >= len(body):
            raise ProtocolError("a hello that is too short")
        end = position + 1 + body[position]
        text = body[position + 1 : end]
        if len(text) != end - position - 1 or not text.isascii() or not text.decode().isprintable():
            raise ProtocolError("a hello with a malformed version")
        versions.append(text.decode())
        position = end
    return body[0], versions[0], versions[1]


def _proof(token: str, label: bytes, client_hello: bytes, server_hello: bytes) -> bytes:
    return hmac.digest(token.encode(), label + b"\0" + client_hello + server_hello, "sha256")


class _Handshake(ABC):
    """The parts both sides share: buffering and the reading of a hello."""

    def __init__(self) -> None:
        self.done = False
        self.error: RainException | None = None
        self.peer: PeerHello | None = None
        self._buffer = b""
        self._proving = False

    @property
    def leftover(self) -> bytes:
        """Bytes after the handshake, for the next stage; empty while it is not done."""
        return self._buffer if self.done else b""

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take what came from the other side; return what to send to it.

        Look at `error` and `done` afterwards.
        """
        if self.error is not None:
            return b""
        self._buffer += bytes(data)
        output = b""
        try:
            while not self.done and self.error is None:
                buffered = len(self._buffer)
                output += self._advance()
                if len(self._buffer) == buffered:
                    break
        except RainException as error:
            self.error = error
        return output

    @abstractmethod
    def _advance(self) -> bytes:
        """Take one message off the buffer if it is whole; return what to send."""

    def _take_hello(self, stranger: str) -> tuple[int, bytes] | None:
        """Take a whole hello off the buffer: its protocol number and its bytes; None if it is not whole."""
        start = self._buffer[: len(MAGIC)]
        if not MAGIC.startswith(start):
            raise ProtocolError(f"{stranger} (it sent {bytes(self._buffer[:16])!r})")
        if len(self._buffer) < _HEAD.size:
            return None
        _, protocol, length = _HEAD.unpack_from(self._buffer)
        size = _HEAD.size + length
        if size > MAX_HANDSHAKE:
            raise ProtocolError(f"a hello of {size} bytes, at most {MAX_HANDSHAKE} are allowed")
        if len(self._buffer) < size:
            return None
        return protocol, self._take(size)

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


class ClientHandshake(_Handshake):
    """The connecting side.

    Args:
        role: what this side is.
        secret: what it knows.
        nonce: NONCE_SIZE fresh random bytes.
        address: of the listening side, for error texts.
        protocol: its protocol number.

    Attributes:
        done: both sides are proven; `leftover` belongs to the next stage.
        error: why the connection is to be closed, or None.
        peer: the listening side's hello, None before it came.
    """

    def __init__(
        self, role: Role, secret: Secret, *, nonce: bytes, address: str = "the server", protocol: int = PROTOCOL
    ) -> None:
        super().__init__()
        self._secret = secret
        self._address = address
        self._protocol = protocol
        self._hello = _pack_hello(_ROLE_CODES[role], nonce, protocol)
        self._server_hello = b""

    def start(self) -> bytes:
        """The first bytes to send."""
        return self._hello

    def _advance(self) -> bytes:
        if not self._proving:
            hello = self._take_hello(f"{self._address} is not a Rain server")
            return b"" if hello is None else self._greeted(*hello)
        if len(self._buffer) >= 1 and self._buffer[0] != _ACCEPTED:
            raise self._refusal(self._buffer[0])
        if len(self._buffer) > PROOF_SIZE:
            self._check_proof(self._take(1 + PROOF_SIZE)[1:])
        return b""

    def _greeted(self, protocol: int, hello: bytes) -> bytes:
        flags, rain, python = _unpack_hello(hello[_HEAD.size :])
        self.peer = PeerHello("server", rain, python, protocol)
        if protocol != self._protocol:
            raise RainConnectionError(
                f"{self._address} speaks protocol {protocol} (Rain {rain}), this side protocol {self._protocol} "
                f"(Rain {__version__}); use the same version of Rain on both sides"
            )
        token = self._secret.token
        if flags & _INSECURE:
            if token is not None:
                raise AuthenticationError(
                    f"{self._address} runs with --insecure, but this side has a secret ({self._secret.source}) and "
                    "does not talk to servers that cannot prove that they know it"
                )
            self.done = True
            return b""
        if token is None:
            raise AuthenticationError(f"{self._address} demands a secret and there is none: {self._secret.source}")
        self._server_hello = hello
        self._proving = True
        return _proof(token, _CLIENT_LABEL, self._hello, hello)

    def _refusal(self, verdict: int) -> RainException:
        if verdict == _WRONG_PROOF:
            return AuthenticationError(
                f"{self._address} refused the secret from {self._secret.source}: it is not the server's secret"
            )
        if verdict == _ROLE_NOT_SERVED:
            return RainConnectionError(f"{self._address} does not serve this kind of connection; is the port right?")
        return ProtocolError(f"{self._address} answered the handshake with the unknown verdict {verdict}")

    def _check_proof(self, proof: bytes) -> None:
        token = self._secret.token or ""
        if not hmac.compare_digest(proof, _proof(token, _SERVER_LABEL, self._hello, self._server_hello)):
            raise AuthenticationError(
                f"{self._address} could not prove that it knows the secret from {self._secret.source}"
            )
        self.done = True


class ServerHandshake(_Handshake):
    """The listening side.

    Args:
        secret: what the other side must know; a secret without token makes the listener insecure.
        roles: the roles that are served.
        nonce: NONCE_SIZE fresh random bytes.
        protocol: its protocol number.

    Attributes:
        done, error, peer: as of ClientHandshake.
    """

    def __init__(self, secret: Secret, roles: Collection[Role], *, nonce: bytes, protocol: int = PROTOCOL) -> None:
        super().__init__()
        self._token = secret.token
        self._roles = roles
        self._protocol = protocol
        self._hello = _pack_hello(_INSECURE if secret.token is None else 0, nonce, protocol)
        self._client_hello = b""

    def _advance(self) -> bytes:
        if not self._proving:
            hello = self._take_hello("not a Rain peer")
            return b"" if hello is None else self._greeted(*hello)
        if len(self._buffer) < PROOF_SIZE:
            return b""
        assert self._token is not None
        assert self.peer is not None
        hellos = self._client_hello, self._hello
        if not hmac.compare_digest(self._take(PROOF_SIZE), _proof(self._token, _CLIENT_LABEL, *hellos)):
            self.error = AuthenticationError(f"wrong secret (role {self.peer.role}, Rain {self.peer.rain})")
            return bytes([_WRONG_PROOF])
        if self.peer.role not in self._roles:
            self.error = RainConnectionError(f"role {self.peer.role} is not served on this port")
            return bytes([_ROLE_NOT_SERVED])
        self.done = True
        return bytes([_ACCEPTED]) + _proof(self._token, _SERVER_LABEL, *hellos)

    def _greeted(self, protocol: int, hello: bytes) -> bytes:
        if protocol != self._protocol:
            self.error = RainConnectionError(f"it speaks protocol {protocol}, this side protocol {self._protocol}")
            return self._hello
        code, rain, python = _unpack_hello(hello[_HEAD.size :])
        role = next((role for role, number in _ROLE_CODES.items() if number == code), None)
        if role is None:
            raise ProtocolError(f"a hello with the unknown role {code}")
        self.peer = PeerHello(role, rain, python, protocol)
        if self._token is None:
            if role not in self._roles:
                raise RainConnectionError(f"role {role} is not served on this port")
            self.done = True
            return self._hello
        self._client_hello = hello
        self._proving = True
        return self._hello
