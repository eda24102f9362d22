"""Makes the HTTP server. Imported when the first request comes: `tornado` takes a while."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import psutil
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application, RequestHandler

from rain.net.sockets import tune
from rain.server.http import api, pages
from rain.server.http.events import EventsHandler
from rain.server.http.live import LONGEST_MESSAGE, PING_SECONDS, LiveHandler
from rain.server.http.peers import parse_ip

if TYPE_CHECKING:
    import socket

    from rain.server.http.connections import Connections
    from rain.server.http.site import Site

MAX_HEADER = 16 << 10
MAX_BODY = 64 << 10
IDLE_SECONDS = 20.0
"""How long a connection may be idle, and how long the header of a request may take."""
BODY_SECONDS = 10.0


class LimitedServer(HTTPServer):
    """Serves connections that somebody else accepts, and not too many of them."""

    connections: Connections

    def take(self, sock: socket.socket) -> None:
        """Serve an accepted connection."""
        with contextlib.suppress(OSError):  # it may have ended already
            tune(sock)
        stream = IOStream(sock, max_buffer_size=4 * MAX_BODY, read_chunk_size=MAX_BODY)
        if self.connections.opened(stream):
            self.handle_stream(stream, stream.socket.getpeername())
        else:
            stream.close()

    def on_close(self, server_conn: Any) -> None:
        """A connection ended, or became a WebSocket."""
        super().on_close(server_conn)
        self.connections.closed(server_conn.stream)


def make_server(site: Site, idle_seconds: float = IDLE_SECONDS) -> LimitedServer:
    """A server that answers from this site.

    Args:
        site: has everything.
        idle_seconds: see IDLE_SECONDS.
    """
    # What tornado says of malformed requests has parts of them in it, secrets perhaps.
    logging.getLogger("tornado").setLevel(logging.ERROR)
    application = Application(
        _routes(site),
        site=site,
        log_function=_log_nothing,
        websocket_ping_interval=PING_SECONDS,
        websocket_ping_timeout=PING_SECONDS,
        websocket_max_message_size=LONGEST_MESSAGE,
    )
    server = LimitedServer(
        application,
        max_header_size=MAX_HEADER,
        max_body_size=MAX_BODY,
        idle_connection_timeout=idle_seconds,
        body_timeout=BODY_SECONDS,
    )
    server.connections = site.connections
    return server


def _routes(site: Site) -> list[Any]:
    overviews = [
        (f"/api/{path}", api.OverviewHandler, {"method": method, "parameters": parameters})
        for path, method, parameters in api.OVERVIEWS
    ]
    nothing: dict[str, Any] = {"method": "", "parameters": ()}
    return [
        ("/api/status", api.StatusHandler, nothing),
        ("/api/stream", api.StreamHandler, nothing),
        *overviews,
        (f"/api/{api.TASK}/explain", api.ExplainHandler),
        (f"/api/{api.TASK}/log", api.TaskLogHandler),
        ("/api/live", LiveHandler),
        ("/api/.*", api.NoSuchAnswerHandler),
        ("/events", EventsHandler),
        ("/health", pages.HealthHandler),
        ("/metrics", pages.MetricsHandler),
        ("/lite/", pages.LiteHandler),
        ("/static/(.*)", pages.FileHandler, {"path": str(site.facts.static)}),
        (".*", pages.PageHandler),
    ]


def own_addresses() -> list[str]:
    """IP addresses of this machine."""
    return [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if _is_ip(entry.address)]


def _is_ip(text: str) -> bool:
    try:
        parse_ip(text)
    except ValueError:
        return False
    return True


def _log_nothing(_: RequestHandler) -> None:
    """Addresses of requests may have the secret in them."""
