"""Where the address of the server comes from."""

from __future__ import annotations

import socket

import pytest

from rain.client.connect import dashboard_url, find_target
from rain.net.access import AccessFile, write_access_file
from rain.net.secret import Secret


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


def test_the_dashboard_of_a_server_whose_address_is_given(access_file, tmp_path):
    def url(address, environ=None, **options):
        environ = environ or {"RAIN_ACCESS_DIR": str(tmp_path)}
        return find_target(address, None, environ=environ, **options).dashboard_url

    known = "http://127.0.0.1:4322/"
    assert url("127.0.0.1:4321") == known
    assert url("127.0.0.1:4321", access_file=access_file) == known
    assert url("127.0.0.1:4321", {"RAIN_ACCESS_FILE": access_file}) == known
    assert url("127.0.0.1:4321", token="hush" * 8) == known
    assert url("127.0.0.1:4321", token="another") is None
    assert url("127.0.0.1:4320") is None
    assert url("127.0.0.1:4321", {"RAIN_ACCESS_FILE": "/nowhere", "RAIN_TOKEN": "hush" * 8}) is None


def test_the_dashboard_of_another_machine_wants_the_secret(tmp_path):
    access = AccessFile("id", "far", ["192.0.2.1"], 4321, 4322, "a+b/", None, 1)
    path = str(write_access_file(access, {}, tmp_path / "access.json"))
    target = find_target(None, None, access_file=path, environ={})
    assert target.dashboard_url == "http://192.0.2.1:4322/?token=a%2Bb%2F"
    assert "a%2Bb" not in repr(target)
    target = find_target("192.0.2.1:4321", None, access_file=path, environ={})
    assert target.dashboard_url == "http://192.0.2.1:4322/?token=a%2Bb%2F"


@pytest.mark.parametrize("token", ["hush" * 8, None])
def test_no_dashboard(tmp_path, token):
    access = AccessFile("id", socket.gethostname(), ["127.0.0.1"], 4321, None, token, None, 1)
    path = str(write_access_file(access, {}, tmp_path / "access.json"))
    assert find_target(None, None, access_file=path, environ={}).dashboard_url is None


def test_addresses_of_dashboards():
    assert dashboard_url("::1", 80, Secret("s", "test")) == "http://[::1]:80/"
    assert dashboard_url("localhost", 80, Secret("s", "test")) == "http://localhost:80/"
    assert dashboard_url("host", 80, Secret(None, "test")) == "http://host:80/"
    assert dashboard_url("2001:db8::1", 80, Secret("s&t", "test")) == "http://[2001:db8::1]:80/?token=s%26t"
