"""What the core tells for a dump."""

from __future__ import annotations

import json

from rain.protocol.messages import GetWorkerInfo, WorkerInfo
from rain.server.core.lies import checked_info
from rain.testing.worker_builders import BlockOf, InputOf, TaskOf, WorkerStory, packed_template
from rain.worker.core.inspection import LISTED

TEMPLATES = {
    0: packed_template("py/f", env={"API_KEY": "hunter2"}),
    1: packed_template("buildin/run"),
    2: packed_template("py/g", resources={"cpus": 1, "gpus": 1}),
}


def full(story: WorkerStory) -> dict:
    """The answer to a GetWorkerInfo for a dump, which the server takes."""
    story.say(GetWorkerInfo(7, True))
    (message,) = story.messages(WorkerInfo)
    assert message.seq == 7
    assert checked_info(message.info) == {**message.info, "log": []}
    assert json.loads(json.dumps(message.info)) == message.info
    return message.info["state"]


def test_an_idle_worker():
    state = full(WorkerStory(cpus=2, resources={"memory": 100, "licences": 2}))
    assert state["resources"]["cpus"] == {"free": 2, "total": 2}
    assert state["resources"]["memory"] == {"free": 100, "total": 100}
    assert state["resources"]["custom_units"]["licences"]["free"] > 0
    assert state["executors"] == state["builtins"] == state["queues"] == state["sessions"] == []
    assert state["stopping"]["count"] == state["transfers"]["count"] == state["delete_list"] == 0


def test_what_runs_since_when():
    story = WorkerStory(cpus=3, resources={"gpus": [4]})
    story.assign(
        TaskOf(20, [], [30], args=b"argument"),
        TaskOf(21, [], [31], template=1),
        TaskOf(22, [], [32], template=2),
        TaskOf(23, [], [33]),
        templates=TEMPLATES,
    )
    first = full(story)
    assert [(one["state"], one["starts_for"]) for one in first["executors"]] == [
        ("coming", "1/20 run 1"),
        ("coming", "1/22 run 1"),
    ]
    story.ready(1)
    story.ready(2)
    story.now += 2.5
    state = full(story)
    by_run = {one["runs"]: one for one in state["executors"]}
    assert by_run["1/20 run 1"]["seconds"] == 2.5
    assert by_run["1/20 run 1"]["environment"] == ["API_KEY"]
    assert by_run["1/20 run 1"]["in_line"] == 1
    assert by_run["1/22 run 1"]["gpus"] == [4]
    assert state["builtins"] == [{"run": "1/21 run 1", "type": "buildin/run", "seconds": 2.5}]
    assert state["resources"]["cpus"]["free"] == 0
    assert state["resources"]["gpus"] == {"free": [], "total": [4]}
    assert state["sessions"][0]["tasks"] == {"running": 3, "ready": 1}
    (queue,) = [queue for queue in state["queues"] if queue["ready"]]
    assert (queue["type"], queue["environment"], queue["in_flight"], queue["executors"]) == ("py", ["API_KEY"], 1, [1])
    assert "hunter2" not in json.dumps(state)
    assert "argument" not in json.dumps(state)


def test_objects_transfers_and_what_tasks_wait_for():
    story = WorkerStory()
    story.assign(
        TaskOf(20, [10], [30], template=1),
        TaskOf(21, [30, 11], [31], template=1),
        templates=TEMPLATES,
        objects=[InputOf(10, b"a value"), InputOf(11, size=500)],
    )
    state = full(story)
    (session,) = state["sessions"]
    assert session["tasks"] == {"running": 1, "waiting": 1}
    assert session["objects"] == {
        "expected": {"count": 2, "bytes": 0},
        "fetching": {"count": 1, "bytes": 500},
        "present": {"count": 1, "bytes": 7},
    }
    inputs = ["1/30 is expected from 1/20 run 1, which is running", "1/11 is fetching"]
    assert session["waiting"] == [{"run": "1/21 run 1", "missing": 2, "inputs": inputs}]
    assert state["transfers"] == {"count": 1, "bytes": 500, "objects": [{"object": "1/11", "bytes": 500}]}
    assert "a value" not in json.dumps(state)


def test_what_is_being_stopped():
    story = WorkerStory(cpus=2)
    story.assign(TaskOf(20), TaskOf(21, template=1), templates=TEMPLATES)
    story.ready(1)
    story.cancel(20, 21, grace=2.0)
    state = full(story)
    assert state["stopping"] == {
        "count": 2,
        "runs": [{"run": f"1/{task} run 1", "grace": 2.0, "fails": False} for task in (20, 21)],
        "builtins": ["1/21 run 1"],
    }
    (executor,) = state["executors"]
    assert (executor["state"], executor["runs"], executor["to_be_confirmed"]) == ("stopping", None, ["1/20 run 1"])


def test_members_of_blocks_are_counted():
    story = WorkerStory()
    story.assign(BlockOf(50, [], [10], members=30), templates=TEMPLATES)
    assert full(story)["sessions"][0]["tasks"] == {"starting": 30}


def test_lists_are_bounded():
    story = WorkerStory()
    tasks = [TaskOf(1000 + n, [n], [2000 + n], template=1) for n in range(10, 300)]
    story.assign(*tasks, templates=TEMPLATES, objects=[InputOf(n) for n in range(10, 300)])
    for number in range(2, 100):
        story.assign(TaskOf(20, template=1), templates={1: packed_template("buildin/run")}, session=number)
    state = full(story)
    assert state["session_count"] == 99
    assert state["transfers"]["count"] == 290
    assert len(state["transfers"]["objects"]) == len(state["sessions"]) == LISTED
    assert len(state["sessions"][0]["waiting"]) == LISTED
