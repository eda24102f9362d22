"""Every path of a real server after a real run."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from rain.client import TaskException, remote
from rain.dashboard import static_files
from tests.server.http.browser import Browser, closed, until
from tests.server.http.rig import RunningServer, server

pytestmark = pytest.mark.cluster

TASKS = 30


@remote()
def square(ctx: object, number: int) -> bytes:
    print(f"squaring {number}")
    return b"%d" % (number * number)


@remote()
def broken(ctx: object) -> bytes:
    raise ValueError("broken on purpose")


@pytest.fixture(scope="module")
def ran() -> Iterator[RunningServer]:
    """A server with a session of 30 tasks and a failed one, both closed, and one that is open."""
    with server() as running:
        running.add_worker()
        with running.client() as client, client.new_session("open") as session:
            with client.new_session("good") as good:
                results = [square(number, name=f"all/{number % 3}") for number in range(TASKS)]
                good.submit()
                good.wait_all()
                del results
            with client.new_session("bad") as bad:
                broken(name="wrong")
                bad.submit()
                with pytest.raises(TaskException):
                    bad.wait_all()
            task = square(7, name="kept")
            task.keep_outputs()
            session.submit()
            session.wait_all()
            until(lambda: running.browser.events({"event_types": [{"value": "TaskFinished", "mode": "="}],
                                                  "session": {"value": 1, "mode": "="}}))  # fmt: skip
            yield running


@pytest.fixture
def browser(ran: RunningServer) -> Browser:
    return ran.browser


def types(*names: str) -> dict[str, object]:
    return {"event_types": [{"value": name, "mode": "="} for name in names]}


def test_events(browser):
    events = browser.events()
    assert all(set(event) == {"id", "time", "event"} for event in events)
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} UTC", event["time"]) for event in events)
    assert all(first["time"] <= second["time"] for first, second in pairwise(events))
    finished = [event for event in events if event["event"]["type"] == "TaskFinished"]
    assert len(finished) == TASKS + 2
    assert browser.events(types("TaskFinished")) == finished
    failed = browser.events(types("TaskFailed"))
    assert ["broken on purpose" in event["event"]["info"]["error"] for event in failed] == [True]


def test_events_by_criteria(browser):
    good = browser.events({"session": {"value": 2, "mode": "="}})
    assert [event["event"]["type"] for event in good][:2] == ["SessionNew", "ClientSubmit"]
    assert good[-1]["event"]["type"] == "SessionClosed"
    border = good[3]["id"]
    later = browser.events({"session": {"value": 2, "mode": "="}, "id": {"value": border, "mode": ">"}})
    assert later == good[4:]
    both = browser.events({**types("SessionNew", "SessionClosed"), "session": {"value": 3, "mode": "<="}})
    assert [(event["event"]["type"], event["event"]["session"]) for event in both] == [
        ("SessionNew", 1), ("SessionNew", 2), ("SessionClosed", 2), ("SessionNew", 3), ("SessionClosed", 3),
    ]  # fmt: skip
    assert browser.events(types("NoSuchType")) == []


@pytest.mark.parametrize(
    "body",
    [
        "", "{", "[]", "3", "null", '{"id": 3}', '{"id": {"value": "x", "mode": "="}}', '{"color": 1}', "[" * 60_000,
        '{"event_types": [{"value": "X", "mode": "<"}]}', b"\xff\xfe", '{"id": {"value": 1, "mode": "~"}}',
    ],
)  # fmt: skip
def test_malformed_criteria(browser, body):
    answer = browser.ask("POST", "/events", body)
    assert answer.status == 400
    assert answer.text.startswith("The body is not a JSON object with criteria of events: ")


def test_events_within_a_second(ran):
    """What happens can be seen a second later."""

    def measure() -> float:
        before = ran.browser.events(types("ClientNew"))
        with ran.client():
            happened = time.monotonic()
            until(lambda: len(ran.browser.events(types("ClientNew"))) > len(before))
        return time.monotonic() - happened

    assert any(measure() < 2.0 for _ in range(4))  # a second, and this machine's moods


def test_lite(browser):
    answer = browser.get("/lite/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.search(r"<td>127\.0\.0\.1:\d+</td><td>2</td>", answer.text)
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", answer.text)


def test_application(browser):
    page = browser.get("/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.body == (static_files() / "index.html").read_bytes()
    assert browser.get("/events").body == page.body
    for path, up in (("/sessions", None), ("/sessions/", "../"), ("/sessions/3/tasks", "../../")):
        other = browser.get(path)
        assert other.status == 200
        assert other.text.replace(f'<base href="{up}">', "") == page.text
        assert ("<base" in other.text) == (up is not None)


def test_links_of_the_page_are_relative(browser):
    """So that it works below any prefix; and all of them exist."""
    links = re.findall(r'(?:src|href)="([^"#]+)"', browser.get("/").text)
    assert links
    for link in links:
        assert not link.startswith(("/", "http:", "https:"))
        assert browser.get(f"/{link}").status == 200


def test_static_files(browser):
    path = "/static/icon.svg"
    answer = browser.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/svg+xml")
    assert answer.body == (static_files() / "icon.svg").read_bytes()
    assert answer.headers["Cache-Control"] == "no-cache"
    again = browser.get(path, If_None_Match=answer.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    for wrong in ("nothing.js", "", "js", "js/"):
        assert browser.get(f"/static/{wrong}").status in (403, 404), wrong


@pytest.mark.parametrize(
    "path",
    [
        "/static/../__init__.py", "/static/%2e%2e/__init__.py", "/static/..%2f__init__.py", "/static//etc/passwd",
        "/static/%2fetc/passwd", "/static/js/../../__init__.py", "/static/....//__init__.py", "/static/..\\__init__.py",
        "/static/%00", "/static/icon.svg%00", "/../../etc/passwd", "/static/" + "../" * 30 + "etc/passwd",
    ],
)  # fmt: skip
def test_no_way_out_of_the_folder(browser, path):
    answer = browser.get(path)
    assert answer.status in (200, 400, 403, 404)
    if answer.status == 200:
        assert "<title>Rain</title>" in answer.text
    assert b"root:" not in answer.body
    assert b"static_files" not in answer.body


def test_health(browser):
    answer = browser.get("/health")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"ok", "text/plain; charset=utf-8")


def test_security_headers(browser):
    for path in ("/", "/static/icon.svg", "/api/status", "/api/nothing", "/health", "/metrics", "/lite/"):
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"], path
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "SAMEORIGIN"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Server"] is None
        assert headers["Access-Control-Allow-Origin"] is None
        assert headers["Cache-Control"] in ("no-store", "no-cache")


def test_only_reading(browser):
    for path in ("/", "/health", "/metrics", "/api/status", "/api/nothing", "/static/icon.svg", "/lite/", "/events"):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO"):
            if (method, path) != ("POST", "/events"):
                assert browser.ask(method, path).status == 405, (method, path)
        got, head = browser.get(path), browser.ask("HEAD", path)
        assert (head.status, head.body) == (got.status, b""), path


def test_status(ran, browser):
    status = browser.get("/api/status").json
    assert status["live"] is True
    assert status["address"] == str(ran.access.address)
    assert status["started"] <= status["now"] <= time.time()
    assert status["workers"] == {"connected": 1, "lost": 0}
    assert status["cpus"] == 2
    with ran.client() as client:
        server_info = client.get_server_info()["server"]
    assert server_info["http_url"] == ran.url
    assert server_info["version"] == status["version"]


def test_answers_of_the_overview(browser):
    """Each is there, as the overview gives it; the overview's own tests look into them."""
    until(lambda: len(browser.get("/api/sessions").json["sessions"]) == 3)
    sessions = {session["name"]: session for session in browser.get("/api/sessions").json["sessions"]}
    assert set(sessions) == {"open", "good", "bad"}
    assert browser.get("/api/sessions/2").json["tasks"]["finished"] == TASKS
    groups = browser.get("/api/sessions/2/groups").json["groups"]
    assert [(group["name"], group["finished"]) for group in groups] == [("all", TASKS)]
    inner = browser.get("/api/sessions/2/groups?prefix=all").json["groups"]
    assert {group["name"]: group["total"] for group in inner} == {"0": 10, "1": 10, "2": 10}
    first = browser.get("/api/sessions/2/tasks?group=all&state=finished&limit=20").json
    second = browser.get(f"/api/sessions/2/tasks?group=all&limit=20&after={first['next']}").json
    ids = [task["id"] for task in first["tasks"] + second["tasks"]]
    assert (len(first["tasks"]), len(ids), second["next"]) == (20, TASKS, 0)
    assert browser.get(f"/api/tasks/2/{ids[0]}").json["state"] == "finished"
    assert browser.get("/api/sessions/2/graph?limit=5").json["mode"] == "groups"
    assert browser.get("/api/sessions/2/graph").json["mode"] == "tasks"
    assert browser.get("/api/sessions/2/stream?width=100").json["total"] == TASKS
    assert browser.get("/api/stream?width=100").json["total"] >= TASKS
    assert len(browser.get("/api/workers").json["workers"]) == 1
    newest = browser.get("/api/events?type=TaskFinished&session=2&limit=3").json["events"]
    assert [event["event"]["type"] for event in newest] == ["TaskFinished"] * 3
    older = browser.get(f"/api/events?type=TaskFinished&session=2&before={newest[-1]['id']}").json["events"]
    assert len(older) == TASKS - 3


@pytest.mark.parametrize(
    "path",
    ["sessions/99", "sessions/99/graph", "tasks/2/99999", "tasks/2/99999/explain", "tasks/99/1/explain", "nothing", "",
     "sessions/2/nothing", "tasks/2/99999999999/explain", "sessions/x", "sessions/2/groups?prefix=none"],
)  # fmt: skip
def test_what_is_not_there(browser, path):
    answer = browser.get(f"/api/{path}")
    assert answer.status == 404
    assert set(answer.json) == {"error"}
    assert answer.json["error"]


@pytest.mark.parametrize(
    "query",
    ["graph?limit=0", "graph?limit=-1", "graph?limit=x", "graph?limit=1e3", "stream?from=x", "stream?to=nan",
     "stream?from=inf", "tasks?after=%C2%B2", "tasks?limit=" + "9" * 30, "tasks?group=" + "x" * 5000, "stream?width=0"],
)  # fmt: skip
def test_malformed_queries(browser, query):
    answer = browser.get(f"/api/sessions/2/{query}")
    assert answer.status == 400
    assert set(answer.json) == {"error"}


def test_explain(browser):
    task = browser.get("/api/sessions/1/tasks").json["tasks"][0]["id"]
    assert "finished" in browser.get(f"/api/tasks/1/{task}/explain").json["text"]


def test_task_log(browser):
    task = browser.get("/api/sessions/1/tasks").json["tasks"][0]["id"]
    log = browser.get(f"/api/tasks/1/{task}/log").json
    assert log["text"] == "squaring 7\n"
    assert (log["offset"], log["next"], log["size"]) == (0, 11, 11)
    rest = browser.get(f"/api/tasks/1/{task}/log?stream=stdout&offset=9").json
    assert (rest["text"], rest["offset"], rest["next"]) == ("7\n", 9, 11)
    assert browser.get(f"/api/tasks/1/{task}/log?stream=stderr").json["text"] == ""
    assert browser.get(f"/api/tasks/1/{task}/log?stream=stdin").status == 400
    assert browser.get(f"/api/tasks/1/{task}/log?offset=-1").status == 400
    assert browser.get("/api/tasks/99/1/log").status == 404


async def test_live(ran):
    """The page learns that the log has grown."""
    socket = await websocket_connect(HTTPRequest(ran.url.replace("http", "ws", 1) + "api/live", request_timeout=20))
    first = json.loads(await socket.read_message() or "null")["last_event"]
    await socket.write_message("what a page has no reason to say")
    with ran.client():
        pass
    pushed = json.loads(await socket.read_message() or "null")["last_event"]
    assert pushed > first > 0
    assert ran.browser.get("/api/status").json["last_event"] >= pushed
    await closed(socket)


def test_broken_requests_end_nothing(ran):
    """What is no HTTP is answered by closing; the secret is in no log."""
    port = ran.access.http_port
    for data in (b"\0" * 1000, b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"x" * 100_000, b"POST /events HTTP/1.1\r\n"
                 b"Host: localhost\r\nContent-Length: 99999999\r\n\r\n", b"GET /?token=" + ran.token.encode()
                 + b" HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            with contextlib.suppress(OSError):  # it may have been closed before all was sent
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
    assert ran.browser.get("/health").text == "ok"
    assert ran.token not in ran.log()
    assert "Traceback" not in ran.log()
