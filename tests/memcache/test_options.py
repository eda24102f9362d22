"""Options: defaults, what is refused, and what a URL says."""

from __future__ import annotations

import dataclasses
import importlib.util
import ssl
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from rain.memcache import default_values, options as options_module
from rain.memcache.addresses import MemcachedHostAddress, MemcachedUnixSocketPath
from rain.memcache.base import ClusterEvents, ClusterManagment
from rain.memcache.options import GivenOptions, Options, from_url

HOST = MemcachedHostAddress("cache", 11211)
SOCKET = MemcachedUnixSocketPath("/run/mc.sock")

DEFAULTS = {
    "timeout": 1.0,
    "max_connections": 2,
    "min_connections": 1,
    "purge_unused_connections_after": 60.0,
    "connection_timeout": 5.0,
    "cluster_events": None,
    "purge_unhealthy_nodes": False,
    "autobatching": False,
    "autobatching_max_keys": 32,
    "ssl": False,
    "ssl_verify": True,
    "ssl_extra_ca": None,
    "ssl_check_hostname": True,
    "ssl_server_hostname": None,
    "ssl_client_cert": None,
    "ssl_client_key": None,
    "username": None,
    "password": None,
    "autodiscovery": False,
    "autodiscovery_poll_interval": 60.0,
    "autodiscovery_timeout": 5.0,
    "protocol": "auto",
    "hashing": "emcache",
    "retry_reads": True,
    "chunking": False,
    "chunk_size": 523_776,
}
BOOLEANS = [name for name, value in DEFAULTS.items() if isinstance(value, bool) and name != "ssl"]


class Events(ClusterEvents):
    async def on_node_healthy(self, cluster_managment: ClusterManagment, host: Any) -> None: ...

    async def on_node_unhealthy(self, cluster_managment: ClusterManagment, host: Any) -> None: ...


def make(**given: Any) -> Options:
    return Options(**given)


def test_defaults():
    """All of them, and nothing else but the context."""
    options = Options()
    assert dataclasses.asdict(options) == {**DEFAULTS, "ssl_context": None}
    assert get_type_hints(GivenOptions, vars(options_module)).keys() == DEFAULTS.keys()


def test_default_values():
    """The constants of the public module are what counts."""
    constants = {name: value for name, value in vars(default_values).items() if name.startswith("DEFAULT_")}
    assert constants == {
        "DEFAULT_TIMEOUT": 1.0,
        "DEFAULT_CONNECTION_TIMEOUT": 5.0,
        "DEFAULT_MAX_CONNECTIONS": 2,
        "DEFAULT_MIN_CONNECTIONS": 1,
        "DEFAULT_PURGE_UNUSED_CONNECTIONS_AFTER": 60.0,
        "DEFAULT_PURGE_UNHEALTHY_NODES": False,
        "DEFAULT_AUTOBATCHING_ENABLED": False,
        "DEFAULT_AUTOBATCHING_MAX_KEYS": 32,
        "DEFAULT_SSL": False,
        "DEFAULT_SSL_VERIFY": True,
        "DEFAULT_AUTODISCOVERY_POLL_INTERVAL": 60.0,
        "DEFAULT_AUTODISCOVERY_TIMEOUT": 5.0,
        "DEFAULT_STARTUP_WAIT_AUTODISCOVERY": 10.0,
    }


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().timeout = 2  # type: ignore[misc]


ENDLESS = ["timeout", "purge_unused_connections_after", "connection_timeout"]
DURATIONS = [*ENDLESS, "autodiscovery_poll_interval", "autodiscovery_timeout"]


@pytest.mark.parametrize("name", DURATIONS)
def test_durations(name: str):
    for value in (0.001, 1, 1e9):
        assert getattr(make(**{name: value}), name) == value
    for value in (0, -1, -0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"^{name} must be larger than 0"):
            make(**{name: value})
    for wrong in ("1", True, b"1", [1]):
        with pytest.raises(TypeError, match=f"^{name} must be a number of seconds"):
            make(**{name: wrong})
    if name in ENDLESS:
        assert getattr(make(**{name: None}), name) is None
    else:
        with pytest.raises(TypeError, match=name):
            make(**{name: None})


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("max_connections", 1, 10_000),
        ("min_connections", 0, 2),
        ("autobatching_max_keys", 1, 10_000),
        ("chunk_size", 1024, 2**30),
    ],
)
def test_counts(name: str, low: int, high: int):
    for value in (low, high):
        given = {"min_connections": 0, name: value}
        assert getattr(make(**given), name) == value
    with pytest.raises(ValueError, match=f"^{name} must be (at least|from) {low}.*, not {low - 1}"):
        make(**{name: low - 1})
    for wrong in (1.0, "1", True):
        with pytest.raises(TypeError, match=f"^{name} must be an int"):
            make(**{name: wrong})


def test_chunk_size_has_an_upper_limit():
    with pytest.raises(ValueError, match="chunk_size must be from 1024 to 1073741824, not 1073741825"):
        make(chunk_size=2**30 + 1)


def test_connections_belong_together():
    assert make(min_connections=None).min_connections == 1
    assert make(max_connections=3, min_connections=3).min_connections == 3
    with pytest.raises(ValueError, match=r"min_connections \(3\) must not be above max_connections \(2\)"):
        make(min_connections=3)


@pytest.mark.parametrize("name", BOOLEANS)
def test_booleans(name: str):
    for value in (True, False):
        assert getattr(make(**{name: value}), name) is value
    for wrong in (1, 0, "true", None):
        with pytest.raises(TypeError, match=f"^{name} must be True or False"):
            make(**{name: wrong})


@pytest.mark.parametrize(
    ("name", "choices"),
    [("protocol", "auto, classic, binary"), ("hashing", "emcache, emcache-aarch64, rendezvous")],
)
def test_choices(name: str, choices: str):
    for wrong in ("meta", "", None, 1, []):
        with pytest.raises(ValueError, match=f"^{name} must be one of {choices}, not"):
            make(**{name: wrong})


def test_events_must_be_events():
    events = Events()
    assert make(cluster_events=events).cluster_events is events
    with pytest.raises(TypeError, match="cluster_events must be a ClusterEvents or None"):
        make(cluster_events=object())


def test_credentials():
    options = make(username="u", password="a secret: with\tall")
    assert (options.username, options.password) == ("u", "a secret: with\tall")
    assert "secret" not in repr(options)
    empty = make(username="", password="")
    assert (empty.username, empty.password) == (None, None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"username": "u"}, "password is missing"),
        ({"password": "secret"}, "username is missing"),
        ({"username": "u", "password": ""}, "password is missing"),
        ({"username": "", "password": "secret"}, "username is missing"),
        ({"username": "u v", "password": "secret"}, "username must not contain a space or a colon"),
        ({"username": "u:v", "password": "secret"}, "username must not contain a space or a colon"),
        ({"username": "u\n", "password": "secret"}, "username must not contain CR or LF"),
        ({"username": "u\r", "password": "secret"}, "username must not contain CR or LF"),
        ({"username": "u", "password": "secret\n"}, "password must not contain CR or LF"),
        ({"username": "u", "password": "secret\r"}, "password must not contain CR or LF"),
        ({"username": "u\0", "password": "secret", "protocol": "binary"}, "username must not contain NUL"),
        ({"username": "u", "password": "secret\0", "protocol": "binary"}, "password must not contain NUL"),
        ({"username": "u", "password": "secret\udcff"}, "password has characters that UTF-8 cannot encode"),
        ({"protocol": "binary"}, "protocol='binary' is for servers with SASL; pass username= and password="),
        (
            {"protocol": "binary", "username": "u", "password": "secret", "autodiscovery": True},
            "autodiscovery does not exist in the binary protocol",
        ),
    ],
)
def test_bad_credentials(given: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=text) as caught:
        make(**given)
    assert "secret" not in str(caught.value)


def test_what_only_text_commands_cannot_carry():
    """SASL takes spaces and line ends, text commands take NUL."""
    assert make(protocol="binary", username="u v:w\r\n", password="p\n").username == "u v:w\r\n"
    assert make(username="u\0", password="\0").password == "\0"


@pytest.mark.parametrize("name", ["username", "password", "ssl_server_hostname"])
def test_texts(name: str):
    with pytest.raises(TypeError, match=f"^{name} must be a str or None, not a bytes"):
        make(**{"username": "u", "password": "p", name: b"secret"})


@pytest.mark.parametrize("name", ["ssl_extra_ca", "ssl_client_cert", "ssl_client_key"])
def test_paths(name: str):
    for path in ("a.pem", Path("a.pem"), None):
        assert getattr(make(**{"ssl_client_cert": "c.pem", name: path}), name) == path
    with pytest.raises(TypeError, match=f"^{name} must be the path of a PEM file or None, not a int"):
        make(**{name: 7})


def test_tls():
    assert make(ssl=True).ssl is True
    assert make(ssl=True, ssl_client_cert="c.pem", ssl_client_key="k.pem").ssl_client_key == "k.pem"
    with pytest.raises(ValueError, match="ssl_client_key needs ssl_client_cert"):
        make(ssl=True, ssl_client_key="k.pem")
    for wrong in ("yes", 1, None):
        with pytest.raises(TypeError, match=r"ssl must be True, False or an ssl.SSLContext"):
            make(ssl=wrong)


def test_without_the_ssl_module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(options_module, "ssl_module", None)
    assert make().ssl is False
    with pytest.raises(ValueError, match="this Python was built without the ssl module"):
        make(ssl=True)


def test_a_python_without_ssl_can_import_the_module(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("options_without_ssl", options_module.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ssl", None)
    monkeypatch.setitem(sys.modules, "options_without_ssl", module)
    spec.loader.exec_module(module)
    assert module.ssl_module is None
    assert module.Options().timeout == 1


def test_ready_context():
    """Nothing that the context decides may be given beside it."""
    context = ssl.create_default_context()
    assert make(ssl=context, ssl_server_hostname="name").ssl is context
    for name, value in {
        "ssl_verify": False,
        "ssl_check_hostname": False,
        "ssl_extra_ca": "ca.pem",
        "ssl_client_cert": "c.pem",
    }.items():
        with pytest.raises(ValueError, match=f"^{name} has no effect on a ready SSLContext"):
            make(ssl=context, **{name: value})


def test_server_hostname():
    assert make().server_hostname(HOST) is None
    assert make(ssl=True).server_hostname(HOST) == "cache"
    assert make(ssl=True).server_hostname(SOCKET) == ""
    for address in (HOST, SOCKET):
        assert make(ssl=True, ssl_server_hostname="name").server_hostname(address) == "name"
    assert make(ssl=ssl.create_default_context()).server_hostname(HOST) == "cache"


def test_tls_over_unix_sockets():
    """It needs a name to compare, if names are compared."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    for options in (
        make(),
        make(ssl=True, ssl_server_hostname="name"),
        make(ssl=True, ssl_verify=False),
        make(ssl=True, ssl_check_hostname=False),
        make(ssl=unchecked),
    ):
        options.check_addresses([HOST, SOCKET])
    for options in (make(ssl=True), make(ssl=ssl.create_default_context())):
        options.check_addresses([HOST])
        with pytest.raises(ValueError, match=r"TLS over the unix socket /run/mc.sock needs ssl_server_hostname="):
            options.check_addresses([HOST, SOCKET])


def test_options_in_urls():
    given = from_url(
        {
            "timeout": "none",
            "connection_timeout": "2.5",
            "max_connections": "4",
            "min_connections": "none",
            "purge_unhealthy_nodes": "true",
            "ssl": "1",
            "ssl_verify": "0",
            "retry_reads": "false",
            "ssl_extra_ca": "/ca.pem",
            "hashing": "rendezvous",
            "password": "none",
        }
    )
    assert given == {
        "timeout": None,
        "connection_timeout": 2.5,
        "max_connections": 4,
        "min_connections": None,
        "purge_unhealthy_nodes": True,
        "ssl": True,
        "ssl_verify": False,
        "retry_reads": False,
        "ssl_extra_ca": "/ca.pem",
        "hashing": "rendezvous",
        "password": None,
    }


def test_every_option_can_stand_in_a_url():
    for name in DEFAULTS.keys() - {"cluster_events"}:
        assert from_url({name: "1"}).keys() == {name}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cluster_events", "x", "unknown option 'cluster_events' in the URL"),
        ("ssl_context", "x", "unknown option 'ssl_context' in the URL"),
        ("node_addresses", "x", "unknown option 'node_addresses' in the URL"),
        ("time_out", "1", "unknown option 'time_out' in the URL; the options are .*timeout"),
        ("", "1", "unknown option ''"),
        ("ssl", "yes", "option 'ssl' of the URL must be true, false, 1 or 0"),
        ("chunking", "True", "option 'chunking' of the URL must be true, false, 1 or 0"),
        ("timeout", "1s", "option 'timeout' of the URL must be a number, not '1s'"),
        ("timeout", "", "option 'timeout' of the URL must be a number, not ''"),
        ("max_connections", "1.5", "option 'max_connections' of the URL must be a number, not '1.5'"),
    ],
)
def test_bad_options_in_urls(name: str, text: str, message: str):
    with pytest.raises(ValueError, match=message):
        from_url({name: text})
