"""Addresses as users write them (spec 11.2 and 9)."""

import pytest
from hypothesis import given, strategies as st

from rain.net.address import Address


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("7000", None, Address("127.0.0.1", 7000)),
        (7000, None, Address("127.0.0.1", 7000)),
        ("10.0.0.1", None, Address("10.0.0.1", 7210)),
        ("10.0.0.1:80", None, Address("10.0.0.1", 80)),
        ("[::1]:7210", None, Address("::1", 7210)),
        ("[::1]", None, Address("::1", 7210)),
        ("::1", None, Address("::1", 7210)),
        ("host", None, Address("host", 7210)),
        ("host.example.org", 7211, Address("host.example.org", 7211)),
        ("host", "7211", Address("host", 7211)),
        ("host:7211", None, Address("host", 7211)),
        ("host:7211", 7211, Address("host", 7211)),
        ("rain://host:7211", None, Address("host", 7211)),
        ("rain://host", None, Address("host", 7210)),
        ("rain://[fe80::1]:1/", None, Address("fe80::1", 1)),
        (" host:0 ", None, Address("host", 0)),
    ],
)
def test_parse(text, port, expected):
    assert Address.parse(text, port) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", ":7210", "host:", "host:x", "host:65536", "99999", "[::1", "::1]:7", "[x]:1", "a b", "http://host:1",
     "host/path", "1:2:3", "[::1]x", "host:-1"],
)  # fmt: skip
def test_not_an_address(text):
    with pytest.raises(ValueError, match=r"address|port"):
        Address.parse(text)


def test_port_given_twice_and_different():
    with pytest.raises(ValueError, match="twice: 'host:1' and 2"):
        Address.parse("host:1", 2)
    with pytest.raises(ValueError, match="port"):
        Address.parse("host", "many")


def test_defaults_of_the_caller():
    assert Address.parse("8000", default_host="0.0.0.0") == Address("0.0.0.0", 8000)
    assert Address.parse("host", default_port=0) == Address("host", 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("host", False)],
)  # fmt: skip
def test_is_loopback(host, expected):
    assert Address(host, 1).is_loopback is expected


@given(st.ip_addresses().map(str) | st.just("some-host.example"), st.integers(0, 65535))
def test_text_and_back(host, port):
    address = Address(host, port)
    assert Address.parse(str(address)) == address
