"""Requests as browsers, scripts and monitoring systems send them."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tornado.websocket import WebSocketClientConnection

TIMEOUT = 20.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Asks one server, each time over a new connection.

    Args:
        url: of the dashboard.
        headers: sent each time.
    """

    def __init__(self, url: str, **headers: str) -> None:
        self.netloc = urlsplit(url).netloc
        self.headers = headers

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request; `_` in names of headers stands for `-`."""
        connection = http.client.HTTPConnection(self.netloc, timeout=TIMEOUT)
        try:
            sent = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def events(self, criteria: Any = None) -> list[dict[str, Any]]:
        """The events that fit."""
        answer = self.ask("POST", "/events", json.dumps(criteria or {}))
        assert answer.status == 200, answer.text
        return answer.json  # type: ignore[no-any-return]


async def closed(socket: WebSocketClientConnection) -> None:
    """Close a WebSocket and wait for its end."""
    socket.close()
    async with asyncio.timeout(TIMEOUT):
        while await socket.read_message() is not None:
            pass


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
