"""Handshake: who may pass, what is said otherwise, and that nothing can be replayed or reflected."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from rain import __version__
from rain.common.errors import AuthenticationError, RainConnectionError
from rain.protocol.handshake import ClientHandshake, PeerHello, Secret, ServerHandshake
from rain.protocol.limits import MAX_HANDSHAKE, ProtocolError

SECRET = Secret("a" * 64, "RAIN_TOKEN")
OTHER = Secret("b" * 64, "token file /home/me/token")
NONE = Secret(None, "nothing was found")
ROLES = ("client", "worker")


def client(role="client", secret=SECRET, nonce=b"c" * 32, **options) -> ClientHandshake:
    return ClientHandshake(role, secret, nonce=nonce, address="host:7210", **options)


def server(secret=SECRET, roles=ROLES, nonce=b"s" * 32, **options) -> ServerHandshake:
    return ServerHandshake(secret, roles, nonce=nonce, **options)


def run(one: ClientHandshake, other: ServerHandshake) -> tuple[bytes, bytes]:
    """Carry bytes between both until nobody speaks; return what each side said."""
    said, answered = one.start(), b""
    to_server = said
    while to_server:
        to_client = other.feed(to_server)
        answered += to_client
        to_server = one.feed(to_client)
        said += to_server
    return said, answered


@pytest.mark.parametrize("role", ROLES)
def test_same_secret(role):
    one, other = client(role), server()
    run(one, other)
    assert one.done
    assert other.done
    assert one.error is None
    assert other.error is None
    assert other.peer is not None
    assert (other.peer.role, other.peer.rain, other.peer.protocol) == (role, __version__, 1)
    assert one.peer == PeerHello("server", __version__, other.peer.python, 1)


def test_secret_is_never_sent():
    said, answered = run(client(), server())
    assert SECRET.token is not None
    assert SECRET.token.encode() not in said + answered


def test_secret_is_not_in_its_repr():
    assert SECRET.token is not None
    assert SECRET.token not in repr(SECRET)


def test_wrong_secret():
    one, other = client(secret=OTHER), server()
    run(one, other)
    assert isinstance(one.error, AuthenticationError)
    assert "host:7210 refused the secret from token file /home/me/token" in str(one.error)
    assert isinstance(other.error, AuthenticationError)
    assert "wrong secret" in str(other.error)


def test_server_that_does_not_know_the_secret():
    one = client()
    proof = one.feed(server().feed(one.start()))
    assert len(proof) == 32
    assert one.feed(bytes([0]) + bytes(32)) == b""
    assert isinstance(one.error, AuthenticationError)
    assert "could not prove" in str(one.error)
    assert not one.done


def test_proof_of_the_client_cannot_be_reflected():
    one = client()
    proof = one.feed(server().feed(one.start()))
    one.feed(bytes([0]) + proof)
    assert isinstance(one.error, AuthenticationError)


def test_client_without_a_secret():
    one = client(secret=NONE)
    run(one, server())
    assert isinstance(one.error, AuthenticationError)
    assert "demands a secret and there is none: nothing was found" in str(one.error)


def test_insecure_server():
    one, other = client(secret=NONE), server(NONE)
    run(one, other)
    assert one.done
    assert other.done


def test_insecure_server_is_refused_by_who_has_a_secret():
    one = client()
    run(one, server(NONE))
    assert isinstance(one.error, AuthenticationError)
    assert "--insecure" in str(one.error)
    assert "RAIN_TOKEN" in str(one.error)


def test_insecure_flag_cannot_be_forged_away():
    """A secure server's hello with the flag set makes nobody skip the proof."""
    one, other = client(secret=NONE), server()
    hello = bytearray(other.feed(one.start()))
    hello[8] |= 1
    one.feed(bytes(hello))
    assert one.done  # an attacker in the middle can fool only who has no secret
    assert not other.done
    assert other.feed(b"x" * 32) == b"\x01"


@pytest.mark.parametrize(("ours", "theirs"), [(1, 2), (2, 1), (1, 65535), (1, 0)])
def test_protocol_versions_differ(ours, theirs):
    one, other = client(protocol=ours), server(protocol=theirs)
    run(one, other)
    assert isinstance(one.error, RainConnectionError)
    text = f"host:7210 speaks protocol {theirs} (Rain {__version__}), this side protocol {ours} (Rain {__version__})"
    assert text in str(one.error)
    assert isinstance(other.error, RainConnectionError)
    assert f"speaks protocol {ours}, this side protocol {theirs}" in str(other.error)


@pytest.mark.parametrize("secret", [SECRET, NONE])
def test_role_that_is_not_served(secret):
    one, other = client("data", secret), server(secret)
    run(one, other)
    assert not other.done
    assert isinstance(other.error, RainConnectionError)
    assert "role data is not served" in str(other.error)


def test_client_learns_that_its_role_is_not_served():
    one = client("data")
    run(one, server())
    assert isinstance(one.error, RainConnectionError)
    assert "is the port right?" in str(one.error)


def test_replayed_conversation():
    said, _ = run(client(), server())
    again = server(nonce=b"t" * 32)
    again.feed(said)
    assert isinstance(again.error, AuthenticationError)
    assert not again.done


def test_leftover_belongs_to_the_next_stage():
    one, other = client(), server()
    proof = one.feed(other.feed(one.start()))
    one.feed(other.feed(proof) + b"frames")
    assert one.done
    assert one.leftover == b"frames"
    assert other.leftover == b""


@given(st.integers(1, 7))
def test_any_cutting(step):
    one, other = client(), server()
    to_server = one.start()
    while to_server:
        to_client = b"".join(other.feed(to_server[at : at + step]) for at in range(0, len(to_server), step))
        to_server = b"".join(one.feed(to_client[at : at + step]) for at in range(0, len(to_client), step))
    assert one.done
    assert other.done


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", b"X", b"RAIM"])
def test_strangers_are_refused_at_their_first_bytes(start):
    other = server()
    assert other.feed(start) == b""
    assert isinstance(other.error, ProtocolError)
    assert "not a Rain peer" in str(other.error)
    one = client()
    one.feed(start)
    assert "host:7210 is not a Rain server" in str(one.error)


def test_huge_hello_is_refused_when_its_length_is_there():
    other = server()
    other.feed(b"RAIN\x01\x00" + (MAX_HANDSHAKE - 7).to_bytes(2, "little"))
    assert "at most 4096" in str(other.error)


@pytest.mark.parametrize("side", ["client", "server"])
def test_fuzz(side):
    source = random.Random(3)
    fresh = client().start()
    hello = server().feed(fresh) if side == "client" else fresh
    for _ in range(3_000):
        machine = client() if side == "client" else server()
        data = bytearray(hello + source.randbytes(source.randrange(40)))
        for _ in range(source.randrange(4)):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        if source.random() < 0.2:
            data = bytearray(source.randbytes(source.randrange(60)))
        machine.feed(data[: source.randrange(len(data) + 1)])
        machine.feed(b"more")
        assert not machine.done or machine.leftover is not None
        assert not (machine.done and machine.error)


def test_later_versions_may_add_to_the_hello():
    start = client().start()
    longer = start[:6] + (len(start) - 8 + 5).to_bytes(2, "little") + start[8:] + b"extra"
    other = server()
    assert other.feed(longer)
    assert other.error is None
    assert other.peer is not None
