"""What all handlers of requests have in common: access, headers, errors, slow readers."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlencode

from tornado.web import HTTPError, RequestHandler

from rain.server.http.asking import NoAnswer, RefusedError
from rain.server.http.gate import NO_SECRET, WRONG_SECRET, Refusal
from rain.server.http.logview import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from tornado.iostream import IOStream

    from rain.server.http.connections import Connection
    from rain.server.http.site import Site

T = TypeVar("T")

_log = logging.getLogger("rain.server.http")

STALL_SECONDS = 30.0
"""How long a reader may take nothing."""

_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
_READING = ("GET", "HEAD")

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json; charset=utf-8"


class Problem(HTTPError):
    """Answers with an error.

    Args:
        status: of the answer.
        text: for people.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status)
        self.text = text


def as_json(answer: Any) -> str:
    """Its JSON text."""
    return json.dumps(answer, separators=(",", ":"))


async def answer_of(awaitable: Awaitable[T]) -> T:
    """What it gives.

    Raises:
        Problem: it cannot be had.
    """
    try:
        return await awaitable
    except (Unavailable, NoAnswer) as error:
        raise Problem(503, str(error)) from error
    except RefusedError as error:
        raise Problem(404, str(error)) from error


class BaseHandler(RequestHandler):
    """Answers only who may ask (spec 11.10)."""

    @property
    def site(self) -> Site:
        """What it is answered from."""
        return cast("Site", self.settings["site"])

    def set_default_headers(self) -> None:
        """Of every answer, errors too."""
        self.clear_header("Server")
        for name, value in _SECURITY_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")
        origins = self.request.headers.get_list("Origin")
        allowed = self.site.gate.allowed_origin(origins) if origins else None
        if allowed is not None:
            self.set_header("Access-Control-Allow-Origin", allowed)
            self.set_header("Vary", "Origin")

    async def prepare(self) -> None:
        """Let the request pass, or answer it."""
        self.stream: IOStream = cast(Any, self.request.connection).stream
        connection = self.site.connections.get(self.stream)
        if connection is None:  # it was closed meanwhile
            raise Problem(503, "There are too many connections; try again later")
        connection.requests += 1
        self.connection = connection
        headers = self.request.headers
        hosts, origins = headers.get_list("Host"), headers.get_list("Origin")
        refusal = self.site.gate.refuse_names(hosts, origins, connection.local[0])
        if refusal is None and not self._is_preflight():
            refusal = await self._refuse_stranger(connection)
        if refusal is None:
            connection.is_admitted = True
            return
        _log.warning("refused request from %s port %d: %s", *connection.peer, refusal.text)
        if refusal.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.say_error(refusal.status, refusal.text)

    async def _refuse_stranger(self, connection: Connection) -> Refusal | None:
        """None: it is a friend."""
        gate = self.site.gate
        if gate.is_open:
            return None
        scheme, _, secret = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return None if gate.is_secret(secret.strip()) else WRONG_SECRET
        tokens = self.get_query_arguments("token") if self.request.method in _READING else []
        if tokens and gate.is_secret(tokens[-1]):
            self._give_cookie()
            return None
        cookie = self.get_cookie(gate.cookie_name)
        if cookie is not None and gate.is_cookie(cookie):
            return None
        if gate.trusts_local_user and await connection.is_local_user():
            return None
        return WRONG_SECRET if tokens else NO_SECRET

    def _give_cookie(self) -> None:
        """Give the cookie and send the browser to the same address without the secret. Cookie and address are relative:
        there may be a proxy before us that serves us below a path of its own."""
        gate = self.site.gate
        self.set_cookie(gate.cookie_name, gate.cookie_value, path="", httponly=True, samesite="Strict")
        names = [name for name in self.request.query_arguments if name != "token"]
        rest = urlencode([(name, value) for name in names for value in self.get_query_arguments(name)])
        target = "./" + self.request.path.rpartition("/")[2] + (f"?{rest}" if rest else "")
        self.set_status(303)
        self.set_header("Location", target)
        self.finish()

    def _is_preflight(self) -> bool:
        origins = self.request.headers.get_list("Origin")
        return self.request.method == "OPTIONS" and self.site.gate.allowed_origin(origins) is not None

    def options(self, *_: Any) -> None:
        """Tell a page of an allowed origin what it may send."""
        if not self._is_preflight():
            raise HTTPError(405)
        self.set_status(204)
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, POST")
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.finish()

    def say_text(self, text: str, content_type: str = TEXT) -> None:
        """Answer with this."""
        self.set_header("Content-Type", content_type)
        self.finish(text)

    def say_json(self, answer: Any) -> None:
        """Answer with this."""
        self.say_text(as_json(answer), JSON)

    def say_error(self, status: int, text: str) -> None:
        """Answer with an error."""
        self.set_status(status)
        if self.request.path.startswith("/api/"):
            self.say_json({"error": text})
        else:
            self.say_text(text + "\n")

    async def flush_patiently(self) -> None:
        """Send what was written so far; ends the connection if nobody takes it for long.

        Raises:
            StreamClosedError: the connection has ended.
        """
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self.flush()
        except TimeoutError:
            self.stream.close()
            await self.flush()

    def on_finish(self) -> None:
        """Who does not take the answer is not waited for for ever."""
        stream: IOStream | None = getattr(self, "stream", None)
        if stream is not None and stream.writing():
            asyncio.get_running_loop().call_later(STALL_SECONDS, self._end_if_stuck, self.connection.requests)

    def _end_if_stuck(self, requests: int) -> None:
        # The next request is taken only when the answer to this one is.
        if self.stream.writing() and self.connection.requests == requests:
            self.stream.close()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what was wrong with the request; of an internal error nothing."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        self.say_error(status_code, error.text if isinstance(error, Problem) else self._reason)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log what is our fault, without the request: its address may have the secret in it."""
        if not isinstance(value, HTTPError):
            name = type(self).__name__
            _log.error("internal error in %s", name, exc_info=value)
