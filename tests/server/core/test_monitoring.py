"""What workers tell of themselves, and the figures of the server."""

from __future__ import annotations

from typing import Any

import pytest

from rain.eventlog.records import Event
from rain.protocol import messages as m
from rain.server.core.actions import Drop
from rain.testing.server_builders import ServerStory, SubmitBuilder

INFO: dict[str, Any] = {
    "cpu_usage": [1.5, 99],
    "mem_usage": 40.5,
    "net_stat": {"lo": [1, 2]},
    "store": {"memory": 5, "disk": 0},
    "executors": {"idle": 1},
    "transfers": {"received": 1, "sent": 2, "read": 3},
    "cache": {"hits": 1, "read": 70},
}


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def test_monitoring_is_recorded_and_remembered(story: ServerStory) -> None:
    worker = story.worker()
    story.records.clear()
    story.say(worker, m.WorkerMonitoring({**INFO, "surprise": 1}))
    names = {"worker": "10.0.0.1:9000", "governor": "10.0.0.1:9000"}
    assert story.records == [Event("Monitoring", None, {**names, **INFO})]
    assert story.core.metrics().monitoring == {"10.0.0.1:9000": INFO}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_usage": "much"},
        {"cpu_usage": [float("nan")]},
        {"cpu_usage": [True]},
        {"mem_usage": None},
        {"net_stat": {"lo": [1]}},
        {"net_stat": {"a\nb": [1, 2]}},
        {"net_stat": [1, 2]},
        {"store": {"memory": "x"}},
        {"executors": {"x" * 300: 1}},
        {"transfers": {"sent": [1, 2]}},
        {"cache": {"hits": "many"}},
    ],
)
def test_a_worker_that_tells_nonsense_is_dropped(story: ServerStory, wrong: dict[str, Any]) -> None:
    worker = story.worker()
    story.say(worker, m.WorkerMonitoring({**INFO, **wrong}))
    (action,) = [action for action in story.other_actions if isinstance(action, Drop)]
    assert action.reason == "WorkerMonitoring of worker 10.0.0.1:9000: its monitoring is not well formed"


def test_figures(story: ServerStory) -> None:
    client, worker = story.client(), story.worker(cpus=1)
    session = story.session(client)
    story.submit(client, session, SubmitBuilder().task(11, [], [10]).task(13, [10], [12], keep=True))
    metrics = story.core.metrics()
    assert {name: count for name, count in metrics.tasks.items() if count} == {"assigned": 1, "notAssigned": 1}
    assert (metrics.sessions, metrics.workers) == ({"open": 1, "failed": 0}, {"connected": 1, "draining": 0})
    assert (metrics.totals["submitted"], metrics.queued, metrics.clients) == (2, 0, 1)
    story.fail(worker, session, story.assigned(worker)[0])
    story.leave(worker)
    after = story.core.metrics()
    assert (after.sessions, after.totals["failed"]) == ({"open": 0, "failed": 1}, 1)
    assert (after.totals["lost_workers"], after.totals["stopped_workers"]) == (1, 0)
    assert not any(after.tasks.values())
