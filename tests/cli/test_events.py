"""`rain events`: from files and from a server, in all forms."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rain.cli import connection, events
from rain.cli.connection import KnownServer
from rain.cli.event_sources import FileSource, ServerSource, read_list
from rain.cli.events import line_of, local_time
from rain.cli.main import main
from rain.common.errors import AuthenticationError, RainConnectionError, RainException, RainTimeoutError
from rain.eventlog.criteria import EVENT_TYPES, FAILED, parse_criteria
from rain.eventlog.reader import EventReader
from rain.eventlog.records import Event, Record, TasksEnded
from rain.eventlog.writer import EventWriter, open_log
from rain.net.address import Address
from rain.net.secret import Secret
from rain.protocol.messages import ServerInfo
from tests.eventlog.making import u32

SERVER = KnownServer(Address("127.0.0.1", 7210), Secret("secret", "test"))
MOMENT = 1_700_000_000_123_456_789


def add(path: Path, *records: Record) -> None:
    writer = EventWriter(path)
    writer.put(list(records), MOMENT)
    writer.close()


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is that of the log."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Four events in a log directory."""
    open_log(tmp_path / "events.db")
    failed = {"task": [3, 11], "info": {"error": "Traceback (most recent call last):\n  x\nValueError: no \x1b[31m"}}
    session = Event("SessionNew", 3, {"session": 3, "client": "127.0.0.1:5", "spec": {"name": "census"}})
    ended = TasksEnded(4, "TaskAborted", u32([12]), u32([2]))
    add(tmp_path / "events.db", session, Event("TaskFinished", 3, failed), ended)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What is printed; of an error the error."""
    assert main(["events", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    if code:
        assert printed.out == ""
        return printed.err
    assert printed.err == ""
    return printed.out


# --- from a file ------------------------------------------------------------------------------------

TABLE = """\
      ID  TIME                     TYPE                  SESSION  DETAILS
       1  2023-11-14 22:13:20.123  SessionNew                  3  census by 127.0.0.1:5
       2  2023-11-14 22:13:20.123  TaskFinished                3  3/11 failed: ValueError: no ?[31m
       3  2023-11-14 22:13:20.123  TaskAborted                 4  4/12
       4  2023-11-14 22:13:20.123  TaskAborted                 4  4/13
"""


def test_table(log: Path, capsys: pytest.CaptureFixture[str]):
    """A log directory and the file in it are the same; what controls terminals is not printed."""
    assert run(capsys, log) == TABLE
    assert run(capsys, log / "events.db") == TABLE


def test_the_log_directory_of_rain_start(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "server").mkdir()
    (log / "events.db").rename(tmp_path / "server" / "events.db")
    assert run(capsys, tmp_path) == TABLE


def test_other_forms(log: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, log, "--output", "quiet") == "1\n2\n3\n4\n"
    lines = run(capsys, log, "--output", "json").splitlines()
    assert len(lines) == 4
    assert json.loads(lines[3]) == {
        "id": 4,
        "time": "2023-11-14 22:13:20.123456789 UTC",
        "event": {"type": "TaskAborted", "task": [4, 13]},
    }


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--session", "3"], "1 2"),
        (["--session", "5"], ""),
        (["--type", "TaskFailed"], "2"),
        (["--type", "GovernorNew"], ""),
        (["--type", "TaskAborted", "--session", "4"], "3 4"),
    ],
)
def test_selections(log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], ids: str):
    assert run(capsys, log, "--output", "quiet", *arguments).split() == ids.split()


def test_nothing_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    open_log(tmp_path / "events.db")
    assert run(capsys, tmp_path) == ""


def test_follow(log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Each event once, under one heading, until interrupted."""
    naps = iter(range(4))

    def sleep(seconds: float) -> None:
        assert 0 < seconds <= 1
        nap = next(naps)
        if nap == 3:
            raise KeyboardInterrupt
        if nap:
            add(log / "events.db", Event("WorkerNew", None, {"worker": f"h:{nap}"}))

    monkeypatch.setattr(events.time, "sleep", sleep)
    assert main(["events", str(log), "--follow"]) == 130
    printed = capsys.readouterr().out
    assert printed.startswith(TABLE)
    assert [line.split()[-1] for line in printed.splitlines()[5:]] == ["h:1", "h:2"]


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "there is no event log" in run(capsys, tmp_path / "absent", code=1)
    (tmp_path / "events.db").write_bytes(b"x" * 5000)
    assert "damaged" in run(capsys, tmp_path, code=1)


@pytest.mark.parametrize("arguments", [["--type", "TaskFinish"], ["--session", "x"], ["a", "b"], ["--output", "xml"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["events", *arguments])
    assert caught.value.code == 1
    assert "error:" in capsys.readouterr().err


# --- lines ------------------------------------------------------------------------------------------

NAMES = {"worker": "h:1", "governor": "h:1"}
DETAILS = [
    ({"type": "WorkerNew", **NAMES}, "", "h:1"),
    ({"type": "WorkerRemoved", **NAMES, "error_msg": "lost"}, "", "h:1: lost"),
    ({"type": "ClientNew", "client": "h:2"}, "", "h:2"),
    ({"type": "ClientRemoved", "client": "h:2", "error_msg": "broke\nmore"}, "", "h:2: broke"),
    ({"type": "SessionClosed", "session": 1, "reason": "Error", "message": "m"}, "1", "Error: m"),
    ({"type": "ClientSubmit", "session": 1, "tasks": [{}, {"count": 4}], "dataobjs": [{}]}, "1", "5 tasks, 1 objects"),
    ({"type": "ClientUnkeep", "dataobjs": [[2, 10]]}, "2", "2/10"),
    ({"type": "ClientUnkeep", "dataobjs": [[2, 10], [2, 11]]}, "2", "2 objects"),
    ({"type": "TaskStarted", "task": [1, 9], **NAMES, "info": {}}, "1", "1/9 on h:1"),
    ({"type": "TaskFinished", "task": [1, 9], "info": {"duration": 0.25}}, "1", "1/9 in 250 ms"),
    ({"type": "TaskFinished", "task": [1, 9], "info": {}}, "1", "1/9"),
    ({"type": "TaskRetried", "task": [1, 9], "run": 2, "reason": "lost"}, "1", "1/9 run 2: lost"),
    ({"type": "TaskCancelled", "task": [1, 9]}, "1", "1/9"),
    ({"type": "TaskInfeasible", "task": [1, 9], "reason": "no gpu"}, "1", "1/9: no gpu"),
    ({"type": "DataObjectFinished", "dataobject": [1, 9], **NAMES, "size": 2048}, "1", "1/9 2.0 KiB on h:1"),
    ({"type": "Monitoring", **NAMES, "cpu_usage": [10, 30], "mem_usage": 5.4}, "", "h:1 cpu 20 %, memory 5 %"),
    ({"type": "Monitoring", **NAMES, "cpu_usage": [], "mem_usage": 5.4}, "", "h:1 cpu 0 %, memory 5 %"),
    ({"type": "Unheard", "x": 1}, "", '{"x": 1}'),
    ({"type": "TaskStarted", "task": "odd"}, "", '{"task": "odd"}'),
]


@pytest.mark.parametrize(("event", "session", "details"), DETAILS)
def test_lines(event: dict[str, Any], session: str, details: str):
    line = line_of({"id": 7, "time": "2023-11-14 22:13:20.123456789 UTC", "event": event})
    assert line == f"{7:>8}  2023-11-14 22:13:20.123  {event['type']:<20}  {session:>7}  {details}"


def test_times_are_local(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    assert local_time("2023-11-14 22:13:20.123456789 UTC") == "2023-11-15 00:13:20.123"
    assert local_time("yesterday") == "yesterday"


def test_all_types_have_lines():
    aliases = {FAILED, "GovernorNew", "GovernorRemoved", "ObjectFinished", "InvalidRequest"}
    assert set(events._DETAILS) == set(EVENT_TYPES) - aliases


def test_long_details_are_cut():
    event = {"type": "WorkerRemoved", "worker": "h:1", "error_msg": "x" * 10_000}
    assert len(line_of({"id": 7, "time": "t", "event": event})) < 250


# --- from a server ----------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Answers POST /events from a log, in pieces; or what it is told to."""

    protocol_version = "HTTP/1.1"
    log: Path
    secret: str | None = "secret"
    instead: Callable[[BaseHTTPRequestHandler], None] | None = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.secret is not None and self.headers["Authorization"] != f"Bearer {self.secret}":
            self.answer(401, b"This is not the server's secret\n")
        elif self.instead is not None:
            type(self).instead(self)
        else:
            assert self.path == "/events"
            with closing(EventReader(self.log)) as reader:
                found = list(reader.events(parse_criteria(json.loads(body))))
            entries = [{"id": one.id, "time": one.time_text, "event": one.event} for one in found]
            self.answer(200, json.dumps(entries, ensure_ascii=False).encode())

    def answer(self, status: int, body: bytes) -> None:
        """In chunks of 7 bytes."""
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(body), 7):
            piece = body[at : at + 7]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *arguments: object) -> None:
        """Not to stderr."""


@pytest.fixture
def site(log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    """An HTTP server which the server names; returns the class of its handlers, to be told what to do."""

    class Own(Handler):
        pass

    Own.log = log
    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        say_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
        yield Own
        server.shutdown()
        thread.join()


def say_url(monkeypatch: pytest.MonkeyPatch, url: str | None, secret: Secret = SERVER.secret) -> None:
    """The server says that this is its HTTP port."""
    server = KnownServer(SERVER.address, secret)
    monkeypatch.setattr(connection, "find_server", lambda _options: server)
    monkeypatch.setattr(connection, "ask", lambda *_: ServerInfo(1, {"server": {"http_url": url}, "workers": []}))


def test_a_server_says_the_same_as_its_file(site: type[Handler], log: Path, capsys: pytest.CaptureFixture[str]):
    for arguments in ([], ["--output", "json"], ["--session", "4"], ["--type", "TaskFailed", "--output", "quiet"]):
        assert run(capsys, *arguments) == run(capsys, log, *arguments) != ""


def test_follow_a_server(
    site: type[Handler], log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def sleep(_: float) -> None:
        if EventReader(log).last_id() > 4:
            raise KeyboardInterrupt
        add(log / "events.db", Event("WorkerNew", None, {"worker": "h:1"}))

    monkeypatch.setattr(events.time, "sleep", sleep)
    assert main(["events", "--follow", "--output", "quiet"]) == 130
    assert capsys.readouterr().out == "1\n2\n3\n4\n5\n"


def test_insecure_servers_get_no_secret(
    site: type[Handler], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    url = connection.ask(None, None, None, 0).info["server"]["http_url"]  # type: ignore[arg-type]
    say_url(monkeypatch, url, Secret(None, "--insecure"))
    site.secret = None
    assert run(capsys) == TABLE


def source(site_url: str | None, secret: str = "secret", timeout: float = 10.0) -> ServerSource:
    return ServerSource(SERVER.address, site_url, Secret(secret, "test"), timeout, None, [])


def url_of() -> str:
    url: str = connection.ask(None, None, None, 0).info["server"]["http_url"]  # type: ignore[arg-type]
    return url


@pytest.mark.parametrize("url", [None, "", "https://host:1/", "nonsense"])
def test_no_http_port(url: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    say_url(monkeypatch, url)
    text = run(capsys, code=1)
    assert "has no HTTP port" in text
    assert "rain events LOGDIR" in text


def test_nobody_listens():
    with pytest.raises(RainConnectionError, match=r"http://127\.0\.0\.1:1/events: .*rain events LOGDIR"):
        list(source("http://127.0.0.1:1/").entries(0))


def test_wrong_secret(site: type[Handler]):
    with pytest.raises(AuthenticationError, match="answers 401: This is not the server's secret"):
        list(source(url_of(), "other").entries(0))


@pytest.mark.parametrize("body", [b'{"error": "the log is broken"}', b"the log is broken\n"])
def test_a_server_that_cannot(site: type[Handler], body: bytes):
    site.instead = lambda self: self.answer(503, body)  # type: ignore[attr-defined]
    with pytest.raises(RainException, match="answers 503: the log is broken"):
        list(source(url_of()).entries(0))


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"[{}]", b'[{"id": 1}', b"[] []", b"\xff", b"<html>"])
def test_answers_that_are_none(site: type[Handler], body: bytes):
    site.instead = lambda self: self.answer(200, body)  # type: ignore[attr-defined]
    with pytest.raises(RainConnectionError, match="cannot read events"):
        list(source(url_of()).entries(0))


def test_an_answer_that_breaks_off(site: type[Handler]):
    """What came is shown before the error is."""

    def break_off(self: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'[{"id": 1, "time": "t", "event": {}}, ')
        self.close_connection = True

    site.instead = break_off
    found = source(url_of()).entries(0)
    assert next(found)["id"] == 1
    with pytest.raises(RainConnectionError, match="cannot read events"):
        next(found)


def test_a_silent_server(site: type[Handler]):
    release = threading.Event()
    site.instead = lambda _self: release.wait(30)  # type: ignore[assignment,return-value]
    with pytest.raises(RainTimeoutError, match=r"silent for 0\.2 s"):
        list(source(url_of(), timeout=0.2).entries(0))
    release.set()


# --- lists in pieces --------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=30), max_size=5), st.lists(st.integers(0, 300)), st.sampled_from([None, 1]))
def test_lists_in_any_pieces(texts: list[str], cuts: list[int], indent: int | None):
    entries = [{"id": k, "time": text, "event": {"text": text}} for k, text in enumerate(texts)]
    data = json.dumps(entries, ensure_ascii=False, indent=indent).encode()
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert list(read_list(data[a:b] for a, b in pairwise(borders))) == entries


def test_long_entries_take_time_in_proportion():
    """Each piece is not scanned again for each further one."""
    entry = {"id": 1, "time": "t", "event": {"tasks": [[k, "x"] for k in range(50_000)]}}
    data = json.dumps([entry]).encode()
    pieces = 0

    def cut() -> Iterator[bytes]:
        nonlocal pieces
        for at in range(0, len(data), 1000):
            pieces += 1
            yield data[at : at + 1000]

    assert list(read_list(cut())) == [entry]
    assert pieces > 500


def test_entries_come_before_the_end():
    def endless() -> Iterator[bytes]:
        yield b"["
        for number in range(1 << 60):
            yield b'{"id": %d, "time": "t", "event": {}},\n' % number

    found = read_list(endless())
    assert [next(found)["id"] for _ in range(1000)] == list(range(1000))


def test_a_file_source_is_lazy(log: Path):
    entries = FileSource(str(log), None, []).entries(0)
    assert next(entries)["id"] == 1
