"""Addresses, their texts, and URLs."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from rain.memcache.addresses import (
    Address,
    MemcachedHostAddress as Host,
    MemcachedUnixSocketPath as Path,
    node_id,
    node_text,
    parse_address,
    parse_url,
)


def test_addresses_are_values():
    """Compared and hashed by value, frozen, copied and pickled."""
    assert Host("a", 1) == Host(address="a", port=1) != Host("a", 2)
    assert Path("/a") == Path(path="/a") != Path("/b")
    assert len({Host("a", 1), Host("a", 1), Path("a"), Path("a")}) == 2
    for address in (Host("a", 1), Path("/a")):
        assert pickle.loads(pickle.dumps(address)) == copy.copy(address) == address
        with pytest.raises(dataclasses.FrozenInstanceError):
            address.port = 2  # type: ignore[misc, union-attr]


def test_texts():
    assert repr(Host("h", 1)) == "MemcachedHostAddress(address='h', port=1)"
    assert [str(address) for address in (Host("h", 1), Host("::1", 2), Path("a/b"))] == ["h:1", "[::1]:2", "a/b"]
    assert node_text(Host("h", 1), closed=False) == "<Node host=h port=1 closed=False>"
    assert node_text(Path("/p"), closed=True) == "<Node path=/p closed=True>"


def test_node_ids():
    """Exactly as given, nothing resolved, nothing between host and port."""
    assert node_id(Host("localhost", 11211)) == b"localhost11211"
    assert node_id(Host("häuser", 1)) == "häuser1".encode()
    assert node_id(Path("run/mc.sock")) == b"run/mc.sock"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("cache", Host("cache", 11211)),
        ("cache-1.example.org:1", Host("cache-1.example.org", 1)),
        ("127.0.0.1:65535", Host("127.0.0.1", 65535)),
        ("[::1]", Host("::1", 11211)),
        ("[fe80::1%eth0]:11212", Host("fe80::1%eth0", 11212)),
        ("/run/mc.sock", Path("/run/mc.sock")),
        ("/run/a@b:c", Path("/run/a@b:c")),
    ],
)
def test_parse_address(text: str, address: Address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":11211", "::1", "a:b:c", "[::1", "[]", "a b", "a/b", "run/mc.sock", "a,b", "[::1]x"]
)
def test_what_is_no_address(text: str):
    with pytest.raises(ValueError, match="is no node address; write host, host:port"):
        parse_address(text)


@pytest.mark.parametrize("port", ["", "0", "65536", "-1", "+1", "x", "1.0", "²", " 1"])
def test_bad_ports(port: str):
    for host in ("cache", "[::1]"):
        with pytest.raises(ValueError, match=r"the port of '(cache|::1)' is not a number from 1 to 65535"):
            parse_address(f"{host}:{port}")


def test_a_url_in_place_of_an_address():
    with pytest.raises(ValueError, match="a URL stands alone") as caught:
        parse_address("memcached://user:secret@host")
    assert "secret" not in str(caught.value)


def test_credentials_in_an_address_are_not_repeated():
    with pytest.raises(ValueError, match="must not contain '@'") as caught:
        parse_address("user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "addresses", "options"),
    [
        ("memcached://cache", [Host("cache", 11211)], {}),
        ("memcached://cache/", [Host("cache", 11211)], {}),
        ("memcached://cache?timeout=2", [Host("cache", 11211)], {"timeout": "2"}),
        ("memcached://cache/?timeout=2&ssl=1", [Host("cache", 11211)], {"timeout": "2", "ssl": "1"}),
        ("memcached://cache/?", [Host("cache", 11211)], {}),
        ("memcached://a:1,b,[::1]:2,[::2]", [Host("a", 1), Host("b", 11211), Host("::1", 2), Host("::2", 11211)], {}),
        ("memcached://[fe80::1%25eth0]", [Host("fe80::1%eth0", 11211)], {}),
        ("memcacheds://cache", [Host("cache", 11211)], {"ssl": "true"}),
        ("memcached://u:p@cache", [Host("cache", 11211)], {"username": "u", "password": "p"}),
        (
            "memcached://%75%40:p%2f%3A%3f@a,b",
            [Host("a", 11211), Host("b", 11211)],
            {"username": "u@", "password": "p/:?"},
        ),
        ("memcached://u:a:b@c@cache", [Host("cache", 11211)], {"username": "u", "password": "a:b@c"}),
        ("memcached:///run/mc.sock", [Path("/run/mc.sock")], {}),
        ("memcached:///run/a%20b@c,d", [Path("/run/a b@c,d")], {}),
        ("memcached://%2Frun%2fmc.sock", [Path("/run/mc.sock")], {}),
        ("memcached://%2Frun%2Fmc.sock/?timeout=1", [Path("/run/mc.sock")], {"timeout": "1"}),
        (
            "memcached://u:p@/run/mc.sock?timeout=1",
            [Path("/run/mc.sock")],
            {"username": "u", "password": "p", "timeout": "1"},
        ),
        (
            "memcached://cache?ssl_server_hostname=a%26b%3dc%20+",
            [Host("cache", 11211)],
            {"ssl_server_hostname": "a&b=c +"},
        ),
    ],
)
def test_urls(url: str, addresses: list[Address], options: dict[str, str]):
    assert parse_url(url) == (addresses, options)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("cache:11211", "begins with memcached://"),
        ("redis://cache", "begins with memcached://"),
        ("Memcached://cache", "begins with memcached://"),
        ("", "begins with memcached://"),
        ("memcached://", "names no node"),
        ("memcached:///", "names no node"),
        ("memcached://u:secret@", "names no node"),
        ("memcached://?timeout=1", "names no node"),
        ("memcached://a,,b", "is no node address"),
        ("memcached://a,", "is no node address"),
        ("memcached://a:0", "the port of 'a'"),
        ("memcached://cache/run/mc.sock", "hosts or one path, not both: 'cache'"),
        ("memcached://cache#part", "fragment"),
        ("memcached://cache/?timeout=1#part", "fragment"),
        ("memcached://u:sec#ret@cache", "fragment"),
        ("memcached://user@cache", "user and password, or neither"),
        ("memcached://secret@cache", "user and password, or neither"),
        ("memcached://cache?timeout", "option 'timeout' of the URL has no value"),
        ("memcached://cache?timeout=1&timeout=2", "option 'timeout' stands in the URL more than once"),
        ("memcacheds://cache?ssl=false", "option 'ssl' stands in the URL more than once"),
        ("memcached://u:secret@cache?password=secret", "option 'password' stands in the URL more than once"),
        ("memcached://u:sec/ret@cache", "write '/', '[?]' and '@'"),
        ("memcached://u:sec?ret@cache", "write '/', '[?]' and '@'"),
        ("memcached://u:s@ec/ret@cache", "write '/', '[?]' and '@'"),
        ("memcached://u:sec%ffret@cache", "password in the URL is not percent-encoded UTF-8"),
        ("memcached://u%ff:secret@cache", "user in the URL is not percent-encoded UTF-8"),
        ("memcached://cache?username=%ff", "option 'username' in the URL is not percent-encoded UTF-8"),
    ],
)
def test_bad_urls(url: str, text: str):
    """Each says what is wrong, and none tells a password."""
    with pytest.raises(ValueError, match=text) as caught:
        parse_url(url)
    assert "sec" not in str(caught.value)
