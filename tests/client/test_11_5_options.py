"""Task options: what is accepted, what is refused, and what is sent."""

from __future__ import annotations

import msgpack
import pytest

from rain.client import Output, Program, Task, blob, delayed, remote, tasks
from rain.client.submit import SubmitPacker


def sent(session):
    """The template of the last task."""
    chunks = list(SubmitPacker(session, {}).messages(session._unsubmitted()))
    return msgpack.unpackb([one for chunk in chunks for one in chunk.templates][-1])


def plain(value):
    return value


@pytest.fixture(params=["Task", "remote", "delayed", "map", "concat", "execute", "program"])
def make(request, graph):
    """Makes a task with options, in each of the ways there are."""
    ways = {
        "Task": lambda **options: Task("a/b", outputs=1, **options),
        "remote": lambda **options: remote(**options)(lambda ctx: b"")(),
        "delayed": lambda **options: delayed(plain).options(**options)(1),
        "map": lambda **options: graph.map(plain, [1], **options)[0],
        "concat": lambda **options: tasks.concat([blob(b"x")], **options),
        "execute": lambda **options: tasks.execute("ls", stdout="out", **options),
        "program": lambda **options: Program("ls", stdout="out", **options)(),
    }
    return ways[request.param]


GOOD = [
    ({"name": "group/one"}, {"name": "group/one"}),
    ({"cpus": 0}, {"resources": {"cpus": 0}}),
    ({"cpus": 2, "resources": {"cpus": 2}}, {"resources": {"cpus": 2}}),
    ({"resources": {"gpus": 1}}, {"resources": {"cpus": 1, "gpus": 1}}),
    ({"resources": {"cpus": 3, "licence_1": 0.5}}, {"resources": {"cpus": 3, "licence_1": 0.5}}),
    ({"retries": 3}, {"retries": 3}),
    ({"timeout": "2 min"}, {"timeout": 120.0}),
    ({"timeout": 1.5}, {"timeout": 1.5}),
    ({"priority": -(1 << 31)}, {"priority": -(1 << 31)}),
    ({"env": {"A": "b", "C": None}}, {"env": {"A": "b", "C": None}}),
    ({"user_spec": {"k": [0]}}, {"user": {"k": [0]}}),
    ({"cache": "text"}, {"cache": "text"}),
    ({"cache": True}, {"cache": True}),
    ({"cache": None}, {}),
    ({"cache": False}, {}),
]


@pytest.mark.parametrize(("options", "expected"), GOOD)
def test_good(make, graph, options, expected):
    make(**options)
    found = sent(graph)
    for name, value in expected.items():
        assert found[name] == value
    assert options.get("cache") or "cache" not in found


BAD = [
    ({"cpus": -1}, ValueError),
    ({"cpus": 1.5}, (TypeError, ValueError)),
    ({"cpus": 1, "resources": {"cpus": 2}}, ValueError),
    ({"resources": {"a b": 1}}, ValueError),
    ({"resources": {"licence": -1}}, ValueError),
    ({"resources": {"memory": "much"}}, ValueError),
    ({"retries": -1}, ValueError),
    ({"retries": "1"}, TypeError),
    ({"timeout": "soon"}, ValueError),
    ({"priority": 1 << 31}, ValueError),
    ({"priority": 1.5}, TypeError),
    ({"env": {"RAIN_X": "1"}}, ValueError),
    ({"env": {"A=B": "1"}}, ValueError),
    ({"env": {"A": 1}}, TypeError),
    ({"cache": 5}, TypeError),
    ({"colour": "red"}, TypeError),
]


@pytest.mark.parametrize(("options", "error"), BAD)
def test_bad(make, graph, options, error):
    with pytest.raises(error):
        make(**options)
    assert not any(isinstance(thing, Task) for thing in graph._things)


def test_cache_is_not_allowed(graph):
    calls = [
        lambda: tasks.open("/a", cache=True),
        lambda: tasks.Load("/a", cache=True),
        lambda: tasks.LoadDir("/a", cache=True),
        lambda: tasks.export(blob(b"x"), "/a", cache=True),
        lambda: tasks.Store(blob(b"x"), "/a", cache="text"),
        lambda: Task("buildin/open", outputs=1, cache=True),
        lambda: Task("buildin/export", outputs=1, cache="text"),
        lambda: Task("a/b", outputs=0, cache=True),
        lambda: Task("buildin/open_dir", outputs=1, cache=True),
        lambda: Task("!open", outputs=1, cache=True),
        lambda: delayed(plain, outputs=0, cache=True),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="cache="):
            call()



def test_options_may_be_edited_before_submit(graph):
    task = delayed(plain)(1)
    task.spec.retries = 2
    task.spec.timeout = 3
    task.spec.resources["cpus"] = 4
    found = sent(graph)
    assert (found["retries"], found["timeout"], found["resources"]) == (2, 3, {"cpus": 4})


def test_call_time_options_win(graph):
    changed = remote(retries=1, priority=1)(lambda ctx: b"").options(retries=5)
    task = changed()
    assert (task.spec.retries, task.spec.priority) == (5, 1)
    program = Program("ls", stdout=Output("out")).options(retries=2)
    assert program().spec.retries == 2
