"""All options of a client as one validated, frozen record."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from rain.memcache import default_values
from rain.memcache.addresses import Address, MemcachedUnixSocketPath
from rain.memcache.base import ClusterEvents

try:
    import ssl as ssl_module
except ImportError:  # Python was built without it
    ssl_module = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Protocol = Literal["auto", "classic", "binary"]
Hashing = Literal["emcache", "emcache-aarch64", "rendezvous"]

PROTOCOLS = ("auto", "classic", "binary")
HASHINGS = ("emcache", "emcache-aarch64", "rendezvous")


class GivenOptions(TypedDict, total=False):
    """The keyword arguments of `create_client`; `Options` tells their defaults."""

    timeout: float | None
    max_connections: int
    min_connections: int | None
    purge_unused_connections_after: float | None
    connection_timeout: float | None
    cluster_events: ClusterEvents | None
    purge_unhealthy_nodes: bool
    autobatching: bool
    autobatching_max_keys: int
    ssl: bool | ssl_module.SSLContext
    ssl_verify: bool
    ssl_extra_ca: str | PathLike[str] | None
    ssl_check_hostname: bool
    ssl_server_hostname: str | None
    ssl_client_cert: str | PathLike[str] | None
    ssl_client_key: str | PathLike[str] | None
    username: str | None
    password: str | None
    autodiscovery: bool
    autodiscovery_poll_interval: float
    autodiscovery_timeout: float
    protocol: Protocol
    hashing: Hashing
    retry_reads: bool
    chunking: bool
    chunk_size: int


@dataclass(frozen=True)
class Options:
    """The options of `create_client`, checked; docs/memcache/options.md tells what each means.

    `ssl_context` is None without TLS. `min_connections` is never None, nor are `username` and `password` empty.
    """

    timeout: float | None = default_values.DEFAULT_TIMEOUT
    max_connections: int = default_values.DEFAULT_MAX_CONNECTIONS
    min_connections: int = default_values.DEFAULT_MIN_CONNECTIONS
    purge_unused_connections_after: float | None = default_values.DEFAULT_PURGE_UNUSED_CONNECTIONS_AFTER
    connection_timeout: float | None = default_values.DEFAULT_CONNECTION_TIMEOUT
    cluster_events: ClusterEvents | None = None
    purge_unhealthy_nodes: bool = default_values.DEFAULT_PURGE_UNHEALTHY_NODES
    autobatching: bool = default_values.DEFAULT_AUTOBATCHING_ENABLED
    autobatching_max_keys: int = default_values.DEFAULT_AUTOBATCHING_MAX_KEYS
    ssl: bool | ssl_module.SSLContext = default_values.DEFAULT_SSL
    ssl_verify: bool = default_values.DEFAULT_SSL_VERIFY
    ssl_extra_ca: str | PathLike[str] | None = None
    ssl_check_hostname: bool = True
    ssl_server_hostname: str | None = None
    ssl_client_cert: str | PathLike[str] | None = None
    ssl_client_key: str | PathLike[str] | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    autodiscovery: bool = False
    autodiscovery_poll_interval: float = default_values.DEFAULT_AUTODISCOVERY_POLL_INTERVAL
    autodiscovery_timeout: float = default_values.DEFAULT_AUTODISCOVERY_TIMEOUT
    protocol: Protocol = "auto"
    hashing: Hashing = "emcache"
    retry_reads: bool = True
    chunking: bool = False
    chunk_size: int = 523_776
    ssl_context: ssl_module.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.min_connections is None:
            object.__setattr__(self, "min_connections", default_values.DEFAULT_MIN_CONNECTIONS)
        for name in ("username", "password"):
            if getattr(self, name) == "":
                object.__setattr__(self, name, None)
        self._check_types()
        self._check_ranges()
        self._check_choices()
        self._check_credentials()
        self._check_tls()

    def _check_types(self) -> None:
        for name in _BOOLEANS:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str or None, not a {type(value).__name__}")
        for name in _PATHS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, PathLike)):
                raise TypeError(f"{name} must be the path of a PEM file or None, not a {type(value).__name__}")
        if self.cluster_events is not None and not isinstance(self.cluster_events, ClusterEvents):
            raise TypeError(f"cluster_events must be a ClusterEvents or None, not {self.cluster_events!r}")

    def _check_ranges(self) -> None:
        for name in _DURATIONS:
            value = getattr(self, name)
            if value is None and name in _ENDLESS:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number of seconds, not {value!r}")
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be larger than 0{' or None' * (name in _ENDLESS)}, not {value!r}")
        for name, (low, high) in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {value!r}")
            if value < low or (high is not None and value > high):
                wanted = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"{name} must be {wanted}, not {value}")
        if self.min_connections > self.max_connections:
            raise ValueError(
                f"min_connections ({self.min_connections}) must not be above max_connections ({self.max_connections})"
            )

    def _check_choices(self) -> None:
        for name, value, choices in (("protocol", self.protocol, PROTOCOLS), ("hashing", self.hashing, HASHINGS)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        if self.protocol == "binary":
            if self.username is None:
                raise ValueError("protocol='binary' is for servers with SASL; pass username= and password=")
            if self.autodiscovery:
                raise ValueError("autodiscovery does not exist in the binary protocol; pass another protocol=")

    def _check_credentials(self) -> None:
        if (self.username is None) != (self.password is None):
            missing = "username" if self.username is None else "password"
            raise ValueError(f"username and password belong together, {missing} is missing")
        if self.username is None or self.password is None:
            return
        for name, text in (("username", self.username), ("password", self.password)):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{name} has characters that UTF-8 cannot encode") from None
            if self.protocol == "binary" and "\0" in text:
                raise ValueError(f"{name} must not contain NUL")
            if self.protocol != "binary" and ("\r" in text or "\n" in text):
                raise ValueError(f"{name} must not contain CR or LF")
        if self.protocol != "binary" and (" " in self.username or ":" in self.username):
            raise ValueError("username must not contain a space or a colon")

    def _check_tls(self) -> None:
        if self.ssl is False:
            return
        if ssl_module is None:
            raise ValueError("ssl is wanted, but this Python was built without the ssl module")
        if self.ssl_client_key is not None and self.ssl_client_cert is None:
            raise ValueError("ssl_client_key needs ssl_client_cert")
        if self.ssl is True:
            return
        if not isinstance(self.ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be True, False or an ssl.SSLContext, not {self.ssl!r}")
        for name in _CONTEXT_MAKES_NEEDLESS:
            if getattr(self, name) != _DEFAULTS[name]:
                raise ValueError(f"{name} has no effect on a ready SSLContext in ssl=; set it up in the context")

    def checks_hostname(self) -> bool:
        """True if the name in a node's certificate is compared."""
        if isinstance(self.ssl, bool):
            return self.ssl and self.ssl_verify and self.ssl_check_hostname
        return self.ssl.check_hostname

    def server_hostname(self, address: Address) -> str | None:
        """The name for TLS with a node; None without TLS, empty if there is no name to send or to compare."""
        if self.ssl is False:
            return None
        if self.ssl_server_hostname is not None:
            return self.ssl_server_hostname
        return "" if isinstance(address, MemcachedUnixSocketPath) else address.address

    def check_addresses(self, addresses: Iterable[Address]) -> None:
        """Raise `ValueError` if the certificate of a unix socket could not be compared with any name."""
        if self.ssl_server_hostname is not None or not self.checks_hostname():
            return
        for address in addresses:
            if isinstance(address, MemcachedUnixSocketPath):
                raise ValueError(f"TLS over the unix socket {address} needs ssl_server_hostname=")


_DEFAULTS = {option.name: option.default for option in fields(Options)}
_ENDLESS = {"timeout", "connection_timeout", "purge_unused_connections_after"}
_DURATIONS = (*sorted(_ENDLESS), "autodiscovery_poll_interval", "autodiscovery_timeout")
_COUNTS: dict[str, tuple[int, int | None]] = {
    "max_connections": (1, None),
    "min_connections": (0, None),
    "autobatching_max_keys": (1, None),
    "chunk_size": (1024, 2**30),
}
_BOOLEANS = (
    "purge_unhealthy_nodes",
    "autobatching",
    "ssl_verify",
    "ssl_check_hostname",
    "autodiscovery",
    "retry_reads",
    "chunking",
)
_TEXTS = ("username", "password", "ssl_server_hostname")
_PATHS = ("ssl_extra_ca", "ssl_client_cert", "ssl_client_key")
_CONTEXT_MAKES_NEEDLESS = ("ssl_verify", "ssl_check_hostname", *_PATHS)
_NOT_IN_URLS = {"cluster_events", "ssl_context"}


def from_url(texts: Mapping[str, str]) -> GivenOptions:
    """Options as they stand in a URL, as values.

    Raises:
        ValueError: an unknown option, or a text that is no value of it.
    """
    given: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in _DEFAULTS or name in _NOT_IN_URLS:
            known = ", ".join(sorted(_DEFAULTS.keys() - _NOT_IN_URLS))
            raise ValueError(f"unknown option {name!r} in the URL; the options are {known}")
        given[name] = _value(name, text)
    return given  # type: ignore[return-value]  # the names were looked up, Options checks the values


def _value(name: str, text: str) -> Any:
    if text == "none":
        return None
    if name in _BOOLEANS or name == "ssl":
        if text not in _URL_BOOLEANS:
            raise ValueError(f"option {name!r} of the URL must be true, false, 1 or 0")
        return _URL_BOOLEANS[text]
    if name in _COUNTS or name in _DURATIONS:
        try:
            return int(text) if name in _COUNTS else float(text)
        except ValueError:
            raise ValueError(f"option {name!r} of the URL must be a number, not {text!r}") from None
    return text


_URL_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
