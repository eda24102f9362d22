"""What notebooks show: short, escaped, and nobody is asked."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from rain.client import Client, DataObject, Session, Task, TaskArray, TaskException, blob, delayed, directory, tasks
from rain.common.attributes import ObjectInfo, TaskInfo
from tests.client.aio_rig import scripted

EVIL = "<script>alert('x' + \"y\")</script> & Co"
TAGS = {"div", "strong", "table", "tr", "th", "td", "a", "span"}


class Reader(HTMLParser):
    """The rows of a table, name -> value, its title and the widths of the parts of a bar; only tags of Rain's."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, str] = {}
        self.links: list[str | None] = []
        self.title = ""
        self.bar: list[str] = []
        self._open: list[str] = []
        self._name = ""
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        self._open.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag == "span":
            self.bar.append(dict(attrs)["style"].partition(";")[0])
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style" or not re.search(r"(^|;)\s*color\s*:", value), "text has the colour of the page"

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        match self._open[-1]:
            case "strong":
                self.title += data
            case "th":
                self._name = data
            case "td" | "a":
                self.rows[self._name] = self.rows.get(self._name, "") + data
            case other:
                raise AssertionError(f"text in {other}")


def read(thing) -> Reader:
    text = thing._repr_html_()
    assert len(text) < 4000
    return Reader(text)


class Silent:
    """`read(thing)` asks the server nothing."""

    def __init__(self, server) -> None:
        self._server = server

    def __call__(self, thing) -> Reader:
        begun = len(self._server.received)
        shown = read(thing)
        assert len(self._server.received) == begun
        return shown


@pytest.fixture
def shown_of(server) -> Silent:
    return Silent(server)


def test_client(client, server, shown_of):
    client.dashboard_url = "http://127.0.0.1:7222/a&b<2>"
    assert shown_of(client).rows["Sessions"] == "none"
    sessions = [client.new_session(name) for name in ("one", EVIL, "x" * 50)]
    shown = shown_of(client)
    assert shown.title == "Client 127.0.0.1:7210"
    assert shown.rows == {
        "State": "open",
        "Sessions": f"1 'one', 2 {EVIL!r}, 3 '{'x' * 50}'",
        "Dashboard": client.dashboard_url,
    }
    assert shown.links == [client.dashboard_url]
    sessions = [client.new_session(str(n)) for n in range(40)]
    assert shown_of(client).rows["Sessions"] == "4 '0', 5 '1', 6 '2', 7 '3', 8 '4' and 35 more"
    assert all(session.active for session in sessions)


def test_the_secret_is_not_shown(client, shown_of):
    client.dashboard_url = "http://10.0.0.1:7222/?token=0123456789abcdef"
    shown = shown_of(client)
    assert shown.links == ["http://10.0.0.1:7222/"] == [shown.rows["Dashboard"]]
    assert "0123456789abcdef" not in client._repr_html_() + repr(client)


def test_a_strange_dashboard_is_no_link(client):
    client.dashboard_url = "javascript:alert(1)"
    assert "javascript" not in client._repr_html_()


def test_closed_client(client):
    client.close()
    assert read(client).rows["State"] == "closed"


def test_session(client, server, shown_of, task_failure):
    session = client.new_session(EVIL, on_failure="continue")
    with session.bind_only():
        tasks.concat([blob("x")])
        shown = shown_of(session)
        assert EVIL in shown.title or repr(EVIL) in shown.title
        assert shown.rows == {
            "State": "open",
            "Server": "127.0.0.1:7210",
            "On failure": "continue",
            "Not submitted": "1 tasks, 2 objects",
        }
        session.submit()
        server.states = {11: 4, 13: 3}
        session.counts()
        server.failures[session.session_id] = task_failure(session.session_id)
        with pytest.raises(TaskException):
            session.counts()
        rows = shown_of(session).rows
        assert rows["Submitted"] == "3 tasks and objects"
        assert rows["Tasks when last asked"] == "running 1, finished 1"
        assert shown_of(session).bar == ["width: 50%"] * 2
        assert rows["First failure"] == "Traceback: ValueError: no"
    session.close()
    assert shown_of(session).rows["State"] == "closed"


def test_the_first_failure_of_a_session_that_goes_on(session, server, shown_of):
    tasks.concat([])
    session.submit()
    server.states, server.first_failure = {11: 5}, f"Task 'x' (1/11) failed: {EVIL}"
    session.counts()
    shown = shown_of(session)
    assert shown.rows["First failure"] == server.first_failure
    assert shown.rows["Tasks when last asked"] == "failed 1"


def test_session_without_client(graph):
    assert read(graph).rows["Server"] == "none"


def test_task(session, server, shown_of):
    inputs = [blob("x", label=EVIL) for _ in range(12)]
    task = tasks.concat(inputs, name=EVIL)
    shown = shown_of(task)
    assert EVIL in shown.title
    assert shown.rows["State"] == "not submitted"
    assert shown.rows["Inputs"].endswith("...")
    session.submit()
    task._info = TaskInfo(
        governor="10.0.0.1:9000", duration=1.23456, attempts=2, error=f"Traceback (most recent call last):\n  x\n{EVIL}"
    )
    rows = shown_of(task).rows
    assert rows["State"] == "notAssigned"
    assert rows["Worker"] == "10.0.0.1:9000"
    assert rows["Duration"] == "1.23 s"
    assert rows["Runs"] == "2"
    assert rows["Error"] == EVIL


def test_task_with_many_inputs_and_no_output(session):
    objects = [blob("x", label="in") for _ in range(7)]
    task = Task("executor/method", inputs=objects)
    rows = read(task).rows
    assert rows["Inputs"] == ", ".join(f"{one.id} in" for one in objects[:5]) + " and 2 more"
    assert "Outputs" not in rows
    assert rows["Type"] == "executor/method"


def test_delayed_task(session, shown_of):
    call = delayed(abs)(-1)
    shown = shown_of(call)
    assert shown.title == f"DelayedTask {call.id} abs"


def test_object(session, tmp_path, shown_of):
    made = blob("text", label=EVIL)
    assert shown_of(made).rows == {
        "Label": EVIL,
        "Kind": "blob",
        "Content type": "text",
        "State": "not submitted",
        "Size": "4 bytes",
        "Kept": "no",
    }
    tree = directory(tmp_path, label="tree")
    assert shown_of(tree).rows["Kind"] == "directory"
    session.submit()
    made._info = ObjectInfo(size=17)
    rows = shown_of(made).rows
    assert (rows["Size"], rows["State"]) == ("17 bytes", "unfinished")


def test_array(session, server, monkeypatch, shown_of):
    made = session.map(abs, range(1000))
    shown = shown_of(made)
    assert shown.title == "TaskArray of 1000 tasks abs"
    assert shown.rows["State"] == "not submitted"
    session.submit()
    assert shown_of(made).rows["State"] == "submitted"
    server.states = dict.fromkeys(made._task_range()[:3], 4)
    made.counts()
    assert shown_of(made).rows["State"] == "ready 997, finished 3"
    assert shown_of(made).bar == ["width: 0.3%"]
    made.wait()
    assert shown_of(made).rows["State"] == "finished 1000"
    assert shown_of(made).bar == ["width: 100%"]
    assert shown_of(made[3]).title == f"ArrayTask {made[3].id} abs"
    assert shown_of(made[3].output).rows["State"] == "finished"


def test_long_names_are_cut(session):
    made = blob("x", label="l" * 100_000)
    assert len(made._repr_html_()) < 1000


async def test_aio(server):
    async with scripted(server) as client:
        session = await client.new_session("test")
        with session.bind_only():
            task = tasks.concat([])
        read = Silent(server)
        assert read(client).title == "AsyncClient 127.0.0.1:7210"
        assert read(session).title == "AsyncSession 1 'test'"
        assert read(task).rows["State"] == "not submitted"
        assert read(task.output).rows["State"] == "not submitted"


@pytest.mark.parametrize("kind", [Client, Session, Task, DataObject, TaskArray])
def test_every_kind_has_it(kind):
    assert callable(kind._repr_html_)
