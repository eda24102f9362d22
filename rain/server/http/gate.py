"""Who may use the HTTP port (spec 11.10). Knows texts of requests, no sockets."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rain.common.structs import dataclass
from rain.server.http.peers import parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY_ORIGIN = "*"

_NETLOC = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^\s:/@?#\[\]]{1,255}))(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://[^\s/@?#]+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served. status: of the answer."""

    status: int
    text: str


NO_SECRET = Refusal(
    401, "This needs the server's secret: open the URL with ?token=SECRET, or send 'Authorization: Bearer SECRET'"
)
WRONG_SECRET = Refusal(401, "This is not the server's secret; it is in the server's access file")


def check_allowed_origin(text: str) -> str:
    """Returns `text` if it is what `--http-allow-origin` takes.

    Raises:
        ValueError: it is not.
    """
    if text != ANY_ORIGIN and _ORIGIN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not an origin; expected http://HOST[:PORT], https://HOST[:PORT] or *")
    return text.lower()


class Gate:
    """Decides about requests.

    Args:
        token: the secret; None: nobody needs one.
        demanded: local processes of the same user need it too.
        names: host names and addresses of this machine.
        allow_origin: another origin whose pages may ask, or `*`; None: there is none.

    Attributes:
        cookie_name, cookie_value: prove that who sends them has been here with the secret. They do not tell it, and
            are the same as long as the secret is.
    """

    def __init__(self, token: str | None, *, demanded: bool, names: Iterable[str], allow_origin: str | None) -> None:
        self._token = None if token is None else token.encode()
        self.trusts_local_user = not demanded
        self._allow_origin = None if allow_origin is None else check_allowed_origin(allow_origin)
        self._names = {"localhost", *(_plain_name(name) for name in names)}
        if self._allow_origin not in (None, ANY_ORIGIN):
            self._names.add(_plain_name(urlsplit(self._allow_origin).hostname or ""))
        key = self._token or b""
        self.cookie_name = "rain-" + hmac.new(key, b"rain http cookie name", hashlib.sha256).hexdigest()[:8]
        self.cookie_value = hmac.new(key, b"rain http cookie", hashlib.sha256).hexdigest()

    @property
    def is_open(self) -> bool:
        """Nobody needs a secret."""
        return self._token is None

    def refuse_names(self, hosts: list[str], origins: list[str], local_ip: str) -> Refusal | None:
        """Whether Host and Origin name this server, whatever the port: there may be a tunnel or proxy in between.

        Args:
            hosts, origins: values of these headers.
            local_ip: address of this end of the connection.
        """
        if len(hosts) != 1 or not self._is_own(hosts[0], local_ip):
            shown = ", ".join(hosts)[:300] or "nothing"
            return Refusal(
                403,
                f"The Host header names {shown!r}, which is not this server. If it is a name of this server or of a "
                "proxy before it, start the server with --http-allow-origin http://NAME[:PORT]",
            )
        if origins and not self._is_same(origins, hosts[0]) and self.allowed_origin(origins) is None:
            return Refusal(403, "Pages of another origin may not ask this server; see --http-allow-origin")
        return None

    def allowed_origin(self, origins: list[str]) -> str | None:
        """What to tell a browser of the page which asks: its origin if it was allowed by `--http-allow-origin`."""
        if self._allow_origin == ANY_ORIGIN:
            return ANY_ORIGIN
        return self._allow_origin if len(origins) == 1 and origins[0].lower() == self._allow_origin else None

    def _is_same(self, origins: list[str], host: str) -> bool:
        return len(origins) == 1 and origins[0].lower() in (f"http://{host.lower()}", f"https://{host.lower()}")

    def _is_own(self, host: str, local_ip: str) -> bool:
        if self._allow_origin == ANY_ORIGIN:
            return True  # these pages may read anyway, so a name that leads here under false pretences gains nothing
        match = _NETLOC.fullmatch(host)
        if match is None:
            return False
        name = _plain_name(match[1] or match[2])
        if name in self._names or name == _plain_name(local_ip):
            return True
        try:
            return parse_ip(name).is_loopback
        except ValueError:
            return False

    def is_secret(self, text: str) -> bool:
        """Whether this is the secret."""
        return self._token is not None and hmac.compare_digest(text.encode("utf-8", "replace"), self._token)

    def is_cookie(self, value: str) -> bool:
        """Whether this is the value of our cookie."""
        return not self.is_open and hmac.compare_digest(value.encode("utf-8", "replace"), self.cookie_value.encode())


def _plain_name(name: str) -> str:
    """As it is compared: addresses in their shortest form, names in lower case."""
    name = name.lower().removesuffix(".")
    try:
        return str(parse_ip(name))
    except ValueError:
        return name
