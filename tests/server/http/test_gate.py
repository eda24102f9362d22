"""Who may ask: names, origins, secrets, cookies."""

from __future__ import annotations

import pytest

from rain.server.http.gate import Gate, check_allowed_origin

HERE = "127.0.0.1"


def gate(token="secret", *, demanded=False, names=("Node1", "10.0.0.5", "fe80::1%eth0"), allow_origin=None) -> Gate:
    return Gate(token, demanded=demanded, names=names, allow_origin=allow_origin)


def refused(host, origins=(), *, local_ip=HERE, **options) -> int | None:
    refusal = gate(**options).refuse_names([host] if isinstance(host, str) else host, list(origins), local_ip)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:7222", "127.0.0.2", "[::1]:7222", "[::1]",
        "node1:7222", "NODE1.", "127.0.0.1.", "10.0.0.5:1", "[fe80::1]:7222", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    ],
)  # fmt: skip
def test_own_names(host):
    assert refused(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "", [], ["localhost", "localhost"], "evil.example", "localhost.evil.example", "node1.evil.example", "10.0.0.6",
        "localhost:port", "localhost:123456", "localhost/", "user@localhost", "[localhost]", "localhost localhost",
        "::1", "[::1", "127.0.0.1.evil.example", "0.0.0.0", "2130706433",
    ],
)  # fmt: skip
def test_other_names(host):
    assert refused(host) == 403


def test_the_address_of_the_connection_itself():
    assert refused("192.0.2.7:7222", local_ip="192.0.2.7") is None
    assert refused("192.0.2.7:7222", local_ip="::ffff:192.0.2.7") is None
    assert refused("192.0.2.8:7222", local_ip="192.0.2.7") == 403


@pytest.mark.parametrize(
    ("origins", "status"),
    [
        ([], None),
        (["http://localhost:8000"], None),
        (["https://LocalHost:8000"], None),
        (["http://localhost"], 403),
        (["http://localhost:3000"], 403),
        (["http://127.0.0.1:8000"], 403),
        (["http://evil.example"], 403),
        (["null"], 403),
        (["ftp://localhost:8000"], 403),
        (["http://localhost:8000", "http://localhost:8000"], 403),
        ([""], 403),
    ],
)
def test_origins(origins, status):
    assert refused("localhost:8000", origins) == status


def test_allowed_origin():
    hub = {"allow_origin": "https://Hub.example:8443"}
    assert refused("localhost", ["https://hub.example:8443"], **hub) is None
    assert refused("localhost", ["https://hub.example"], **hub) == 403
    assert refused("hub.example", **hub) is None  # a proxy may leave the name as it is
    assert refused("hub.example:8443", ["https://hub.example:8443"], **hub) is None
    assert refused("evil.example", **hub) == 403
    assert gate(**hub).allowed_origin(["https://hub.example:8443"]) == "https://hub.example:8443"
    assert gate(**hub).allowed_origin(["https://other.example"]) is None
    assert gate().allowed_origin(["https://other.example"]) is None


def test_any_origin():
    assert refused("whatever", ["https://whatever.example"], allow_origin="*") is None
    assert refused([], allow_origin="*") == 403
    assert gate(allow_origin="*").allowed_origin(["null"]) == "*"


@pytest.mark.parametrize("text", ["", "hub.example", "http://", "http://h/path", "http://a b", "http://u@h", "null"])
def test_what_is_no_origin(text):
    with pytest.raises(ValueError, match="is not an origin"):
        check_allowed_origin(text)


def test_secrets_and_cookies():
    one = gate("s3cret")
    assert one.is_secret("s3cret")
    assert not any(map(one.is_secret, ("", "s3cre", "s3cret ", "S3CRET", "s3cr\udce9t", "\xe9" * 100)))
    assert one.is_cookie(one.cookie_value)
    assert not any(map(one.is_cookie, ("", "s3cret", one.cookie_value[:-1], one.cookie_value.upper(), "\udce9")))
    assert "s3cret" not in one.cookie_name + one.cookie_value
    again, other = gate("s3cret"), gate("another")
    assert (again.cookie_name, again.cookie_value) == (one.cookie_name, one.cookie_value)
    assert other.cookie_name != one.cookie_name
    assert not other.is_cookie(one.cookie_value)


def test_nobody_needs_a_secret():
    """With --insecure; and nothing that could be guessed is taken for one."""
    free = gate(None)
    assert free.is_open
    assert not free.is_secret("")
    assert not free.is_cookie(free.cookie_value)
    assert not gate().is_open


def test_who_is_trusted():
    assert gate().trusts_local_user
    assert not gate(demanded=True).trusts_local_user
