"""Who is let in by a real server (spec 11.10)."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from rain.client import RainException
from rain.client.connect import dashboard_url
from rain.net.secret import Secret
from tests.server.http.browser import Browser, closed, until
from tests.server.http.rig import RunningServer, ask_as, server

pytestmark = pytest.mark.cluster

EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def usual() -> Iterator[RunningServer]:
    with server() as running:
        yield running


@pytest.fixture(scope="module")
def strict() -> Iterator[RunningServer]:
    with server("--http-auth", "--http-allow-origin", "https://hub.example") as running:
        yield running


def stranger() -> int:
    """Another user, whose process may run our Python."""
    if os.geteuid() != 0:
        pytest.skip("requests of other users are not tested: only root may become another user")
    return pwd.getpwnam("nobody").pw_uid


def test_same_user_needs_nothing(usual):
    assert usual.browser.get("/health").text == "ok"


def test_another_user_needs_the_secret(usual):
    uid = stranger()
    netloc = usual.browser.netloc
    for path in ("/health", "/", "/api/status", "/metrics", "/static/icon.svg", "/lite/"):
        status, text = ask_as(uid, netloc, path)
        assert status == 401, path
        assert "secret" in text
    assert ask_as(uid, netloc, "/health", f"Authorization: Bearer {usual.token}") == (200, "ok")
    assert ask_as(uid, netloc, "/health", "Authorization: Bearer wrong")[0] == 401
    assert ask_as(uid, netloc, "/health", f"Host: evil.example:{usual.access.http_port}")[0] == 403
    until(lambda: "refused request from 127.0.0.1 port" in usual.log())
    assert usual.token not in usual.log()


def test_another_user_without_secret_where_there_is_none():
    with server("--insecure") as running:
        assert ask_as(stranger(), running.browser.netloc, "/health") == (200, "ok")
        assert running.browser.get("/health", Host="evil.example").status == 403


def test_everybody_needs_the_secret(strict):
    browser = strict.browser
    for path in ("/health", "/", "/api/status", "/api/nothing", "/metrics", "/static/icon.svg", "/nothing"):
        answer = browser.get(path)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
    assert browser.ask("POST", "/events", "{}").status == 401
    with_secret = Browser(strict.url, Authorization=f"Bearer {strict.token}")
    assert with_secret.get("/health").text == "ok"
    assert with_secret.events() == []
    for wrong in ("Bearer", "Bearer ", "Bearer x", f"Basic {strict.token}", f"Bearer {strict.token}x"):
        assert browser.get("/health", Authorization=wrong).status == 401
    assert browser.get("/api/status", Authorization="Bearer x").json["error"].startswith("This is not the server's")


def test_token_then_cookie(strict):
    """The secret is shown once; the cookie lasts, and does not tell it."""
    browser = strict.browser
    answer = browser.get(f"/?a=1&token={strict.token}&b=%26%20c")
    assert answer.status == 303
    assert answer.headers["Location"] == "./?a=1&b=%26+c"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path" not in cookie  # hence that of the page, with the prefix a proxy may have put before it
    assert strict.token not in cookie
    pair = cookie.split(";")[0]
    assert browser.get("/health", Cookie=pair).text == "ok"
    assert browser.ask("POST", "/events", "{}", Cookie=f"x=y; {pair}").json == []
    assert browser.get("/health", Cookie=pair[:-1]).status == 401
    assert browser.get("/health", Cookie=f"{pair.split('=')[0]}={strict.token}").status == 401
    assert browser.get("/?token=wrong", Cookie=pair).status == 200
    assert browser.get("/lite/", Cookie=pair, Host="evil.example").status == 403


def test_wrong_tokens(strict):
    browser = strict.browser
    for path in ("/?token=wrong", "/?token=", f"/?token={strict.token}&token=wrong", "/?token=%FF"):
        answer = browser.get(path)
        assert (answer.status, answer.headers["Set-Cookie"]) in ((401, None), (400, None)), path
    assert browser.ask("POST", f"/events?token={strict.token}", "{}").status == 401
    assert strict.token not in strict.log()


@pytest.mark.parametrize(
    ("path", "location"), [("/lite/", "./"), ("/some/page", "./page"), ("//evil.example", "./evil.example")]
)
def test_redirect_stays_here(strict, path, location):
    answer = strict.browser.get(f"{path}?token={strict.token}")
    assert (answer.status, answer.headers["Location"]) == (303, location)


def test_foreign_host(usual):
    for host in ("evil.example", "evil.example:7222", "", "localhost.evil.example", "192.0.2.1"):
        assert usual.browser.get("/api/status", Host=host).status in (400, 403), host
        assert usual.browser.get("/api/status", Host=host, Authorization=f"Bearer {usual.token}").status in (400, 403)
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000", socket.gethostname()):
        assert usual.browser.get("/health", Host=host).status == 200, host


def test_foreign_origin(usual):
    for origin in (EVIL, "null", "http://localhost:3000", f"{usual.url[:-1]}.evil.example"):
        answer = usual.browser.get("/api/status", Origin=origin)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (403, None), origin
        assert usual.browser.ask("POST", "/events", "{}", Origin=origin).status == 403
    own = usual.browser.get("/api/status", Origin=usual.url[:-1])
    assert (own.status, own.headers["Access-Control-Allow-Origin"]) == (200, None)
    assert usual.browser.ask("OPTIONS", "/events", Origin=EVIL).status == 403
    assert usual.browser.ask("OPTIONS", "/events").status == 405


def test_allowed_origin(strict):
    hub = "https://hub.example"
    browser = Browser(strict.url, Authorization=f"Bearer {strict.token}")
    answer = browser.get("/health", Origin=hub)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, hub)
    assert answer.headers["Vary"] == "Origin"
    assert browser.get("/health", Origin=EVIL).status == 403
    assert browser.get("/health", Host="hub.example").status == 200
    asked = strict.browser.ask("OPTIONS", "/events", Origin=hub)
    assert (asked.status, asked.headers["Access-Control-Allow-Origin"]) == (204, hub)
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
    refused = strict.browser.get("/health", Origin=hub)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, hub)


async def connect(running: RunningServer, **headers: str) -> int | None:
    """Status of a refused WebSocket, None if it was opened."""
    url = running.url.replace("http", "ws", 1) + "api/live"
    try:
        socket = await websocket_connect(HTTPRequest(url, headers=headers, request_timeout=20))
    except HTTPClientError as error:
        return error.code
    await closed(socket)
    return None


async def test_websockets(usual, strict):
    assert await connect(usual) is None
    assert await connect(usual, Origin=usual.url[:-1]) is None
    assert await connect(usual, Origin=EVIL) == 403
    assert await connect(usual, Origin=EVIL, Authorization=f"Bearer {usual.token}") == 403
    assert await connect(usual, Host="evil.example", Origin=EVIL) == 403
    assert await connect(strict) == 401
    assert await connect(strict, Authorization=f"Bearer {strict.token}") is None
    assert await connect(strict, Authorization=f"Bearer {strict.token}", Origin="https://hub.example") is None


def test_no_secret_to_demand():
    with pytest.raises(RainException, match="--http-auth demands a secret and --insecure says there is none"), server(
        "--insecure", "--http-auth"
    ):
        pass


def test_address_of_another_machine_lets_in():
    """The URL that is given out for the outside works there: here it is ours by another address."""
    with server(http="0.0.0.0:0") as running:
        port = running.access.http_port
        assert port is not None
        browser = Browser(f"http://127.0.0.2:{port}")
        assert browser.get("/health").text == "ok"
        own = _outside_address()
        if own is None:
            return
        outside = Browser(f"http://{own}:{port}")
        assert outside.get("/health").status == 401
        url = dashboard_url(own, port, Secret(running.token, "test"))
        answer = outside.get(url.removeprefix(f"http://{own}:{port}"))
        assert answer.status == 303
        assert outside.get("/", Cookie=answer.headers["Set-Cookie"].split(";")[0]).status == 200


def _outside_address() -> str | None:
    """An address of this machine that is not loopback, None if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(sock.getsockname()[0])
        return None if address.startswith("127.") else address
