"""Where the address of the server comes from."""

from __future__ import annotations

import socket

import pytest

from rain.client.connect import find_target
from rain.net.access import AccessFile, write_access_file


def address_of(*arguments, environ=None, **options):
    target = find_target(*arguments, token="t", environ=environ or {}, **options)
    return str(target.address)


@pytest.fixture
def access_file(tmp_path):
    access = AccessFile("id", socket.gethostname(), ["127.0.0.1"], 4321, 4322, "hush" * 8, None, 1)
    return str(write_access_file(access, {}, tmp_path / "access.json"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("host", 7210), "host:7210"),
        (("host", "7210"), "host:7210"),
        (("host:7211", None), "host:7211"),
        (("rain://host:7211", None), "host:7211"),
        (("[::1]:7211", None), "[::1]:7211"),
        (("host", None), "host:7210"),
        (("host:7211", 7211), "host:7211"),
        ((None, 7211), "127.0.0.1:7211"),
    ],
)
def test_arguments(arguments, expected):
    assert address_of(*arguments) == expected
    assert address_of(*arguments, environ={"RAIN_ADDRESS": "other:1"}) == expected


def test_port_given_twice():
    with pytest.raises(ValueError, match="twice"):
        address_of("host:7211", 7212)


def test_order_of_sources(access_file):
    environ = {"RAIN_ADDRESS": "env:1", "RAIN_ACCESS_FILE": access_file}
    assert address_of(None, None, access_file=access_file, environ=environ) == "127.0.0.1:4321"
    assert address_of(None, None, environ=environ) == "env:1"
    assert address_of(None, None, environ={"RAIN_ACCESS_FILE": access_file}) == "127.0.0.1:4321"
    assert find_target(None, None, environ={}) is None


def test_secret_and_dashboard_of_an_access_file(access_file):
    target = find_target(None, None, access_file=access_file, environ={})
    assert target.secret.token == "hush" * 8
    assert target.dashboard_url == "http://127.0.0.1:4322/"
    assert "hush" not in repr(target)
    target = find_target(None, None, token="mine", environ={"RAIN_ACCESS_FILE": access_file})
    assert target.secret.token == "mine"
