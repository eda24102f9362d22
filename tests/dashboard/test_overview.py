"""Every answer of the overview, from logs made by hand."""

from __future__ import annotations

import json

import msgpack
import pytest

from rain.dashboard import sessions
from rain.dashboard.overview import Overview
from rain.dashboard.states import UnknownError
from rain.eventlog.reader import EventReader
from rain.testing.server_builders import SubmitBuilder
from tests.dashboard.stories import BEGIN, W1, W2, Story, catch_up, chain

NO_TASKS = {"total": 0, "waiting": 0, "running": 0, "finished": 0, "failed": 0, "cancelled": 0, "aborted": 0}


def states(overview: Overview, session: int = 1) -> dict[int, str]:
    return {task["id"]: task["state"] for task in overview.tasks(session)["tasks"]}


class TestSessions:
    def test_empty_log(self, story: Story):
        overview = story.overview()
        assert overview.sessions() == {"sessions": []}
        assert overview.workers() == {"workers": []}
        assert overview.events() == {"events": [], "next": 0}
        assert overview.stream() == {"from": 0.0, "to": 0.0, "names": [], "rows": [], "total": 0}
        status = overview.status()
        assert (status["last_event"], status["sessions"], status["cpus"]) == (0, {}, 0)
        assert not overview.is_behind

    def test_new_and_closed(self, story: Story):
        story.session().wait(3).session(2, "other").wait(4).closed(1, message="closed by its client")
        first, second = reversed(story.overview().sessions()["sessions"])
        assert first == {
            "id": 1,
            "name": "work",
            "status": "closed",
            "client": "10.0.0.9:5",
            "created": BEGIN,
            "ended": BEGIN + 7,
            "message": "closed by its client",
            "submits": 0,
            "objects": 0,
            "tasks": NO_TASKS,
        }
        assert (second["name"], second["status"], second["created"], second["ended"]) == (
            "other",
            "open",
            BEGIN + 3,
            None,
        )

    @pytest.mark.parametrize(
        ("reason", "status", "unfinished"),
        [
            ("ClientClose", "closed", "cancelled"),
            ("Error", "error", "aborted"),
            ("ServerLost", "lost", "cancelled"),
            ("Expired", "expired", "cancelled"),
        ],
    )
    def test_end_of_a_session_is_the_end_of_its_tasks(self, story: Story, reason: str, status: str, unfinished: str):
        story.session().submit(chain("a", "b", "c")).wait(1).finished(12).started(14).wait(1).closed(1, reason)
        overview = story.overview()
        assert overview.session(1)["status"] == status
        assert states(overview) == {12: "finished", 14: unfinished, 16: unfinished}
        assert overview.session(1)["tasks"] == {**NO_TASKS, "total": 3, "finished": 1, unfinished: 2}
        assert overview.status()["sessions"] == {status: 1}
        assert overview.stream(1)["rows"][0]["slots"][0][1][:2] == [BEGIN + 1, BEGIN + 2]

    def test_detached_and_attached(self, story: Story):
        story.session().event("SessionDetached", 1, session=1, client="10.0.0.9:5")
        assert story.overview().session(1)["status"] == "detached"
        story.event("SessionAttached", 1, session=1, client="10.0.0.7:1")
        session = story.overview().session(1)
        assert (session["status"], session["client"]) == ("open", "10.0.0.7:1")

    def test_chart_of_unprocessed_tasks(self, story: Story):
        story.session().wait(1).submit(chain("a", "b")).wait(1).finished(12).wait(1).finished(14)
        chart = story.overview().session(1)["unprocessed"]
        assert chart == [[BEGIN, 0], [BEGIN + 1, 2], [BEGIN + 2, 1], [BEGIN + 3, 0]]

    def test_first_error_and_bytes(self, story: Story):
        story.session(on_failure="continue").submit(chain("a", "b", "c")).finished(12, size=5_000_000_000)
        story.failed(14, "boom").failed(16, "bang")
        session = story.overview().session(1)
        assert session["first_error"] == {"task": 14, "name": "b", "message": "boom"}
        assert session["on_failure"] == "continue"
        assert session["bytes"] == 5_000_000_000
        assert (session["submits"], session["objects"]) == (1, 4)

    def test_unknown(self, story: Story):
        overview = story.session().submit(chain("a")).overview()
        for ask in (
            lambda: overview.session(2),
            lambda: overview.task(1, 13),
            lambda: overview.task(1, 99),
            lambda: overview.stream(2),
            lambda: overview.graph(2),
            lambda: overview.groups(1, "b"),
            lambda: overview.tasks(1, group="b"),
            lambda: overview.tasks(1, state="lazy"),
        ):
            with pytest.raises(UnknownError):
                ask()

    def test_a_session_whose_beginning_was_not_logged(self, story: Story):
        story.submit(chain("a", "b"), session=5).finished(12, 14, 77, session=5).ended(
            "TaskCancelled", (90, 3), session=5
        )
        session = story.overview().session(5)
        assert (session["name"], session["tasks"]["finished"], session["created"]) == ("", 2, BEGIN)


class TestTasks:
    def test_states(self, story: Story):
        story.session(on_failure="continue").submit(chain("a", "b", "c", "d", "e", "f"))
        story.finished(12).started(14, worker=W2).failed(16).ended("TaskCancelled", (18, 1)).ended(
            "TaskAborted", (20, 1)
        )
        overview = story.overview()
        assert list(states(overview).values()) == ["finished", "running", "failed", "cancelled", "aborted", "waiting"]
        tasks = overview.tasks(1)["tasks"]
        assert tasks[0] == {
            "id": 12,
            "name": "a",
            "type": "py/",
            "state": "finished",
            "worker": W1,
            "start": BEGIN - 1,
            "duration": 1.0,
        }
        assert (tasks[1]["worker"], tasks[1]["start"], tasks[1]["duration"]) == (W2, BEGIN, None)
        assert (tasks[5]["worker"], tasks[5]["start"], tasks[5]["duration"]) == (None, None, None)
        assert overview.status()["tasks"]["running"] == 1

    def test_pages(self, story: Story):
        overview = story.session().submit(chain(*"abcde")).overview()
        page = overview.tasks(1, limit=2)
        assert ([task["id"] for task in page["tasks"]], page["next"]) == ([12, 14], 14)
        page = overview.tasks(1, after=14, limit=3)
        assert ([task["id"] for task in page["tasks"]], page["next"]) == ([16, 18, 20], 0)

    def test_by_group_and_state(self, story: Story):
        story.session().submit(chain("a/x", "a/y", "b", "a/x")).finished(12).finished(16)
        overview = story.overview()

        def ids(**wanted: str) -> list[int]:
            return [task["id"] for task in overview.tasks(1, **wanted)["tasks"]]

        assert ids(group="a") == [12, 14, 18]
        assert ids(group="a/x") == [12, 18]
        assert ids(state="finished") == [12, 16]
        assert ids(group="a", state="finished") == [12]
        assert ids(group="b", state="waiting") == []

    def test_of_arrays_and_between_them(self, story: Story):
        builder = SubmitBuilder().task(12, [], [13], name="single")
        story.session().submit(builder.array(20, 100, name="many")).submit(
            SubmitBuilder().task(220, [], [221], name="last")
        )
        story.members(120, 20, [0.5] * 10).ended("TaskCancelled", (150, 50))
        overview = story.overview()

        def ids(**wanted: object) -> list[int]:
            return [task["id"] for task in overview.tasks(1, limit=1000, **wanted)["tasks"]]

        assert ids() == [12, *range(120, 220), 220]
        assert ids(group="many", after=130) == list(range(131, 220))
        assert ids(group="last") == [220]
        assert ids(state="finished") == list(range(120, 130))
        assert ids(group="many", state="cancelled") == list(range(150, 200))
        assert overview.session(1)["tasks"] == {
            **NO_TASKS,
            "total": 102,
            "waiting": 42,
            "finished": 10,
            "cancelled": 50,
        }
        assert overview.session(1)["bytes"] == 50

    def test_an_array_submitted_in_blocks(self, story: Story):
        story.session().submit(SubmitBuilder().array(10, 50, per_block=20, name="many"))
        story.started(60).wait(1).members(60, 10, [0.25, 0.5], start=BEGIN, is_announced=True)
        overview = story.overview()
        first, second, third = overview.tasks(1, limit=3)["tasks"]
        assert (first["start"], first["duration"], first["state"]) == (BEGIN, 0.25, "finished")
        assert (second["start"], second["duration"], second["state"]) == (BEGIN + 0.25, 0.5, "finished")
        assert third["state"] == "waiting"
        assert overview.session(1)["tasks"]["total"] == 50
        assert overview.stream(1)["total"] == 2

    def test_members_of_which_one_ran_before(self, story: Story):
        story.session().submit(SubmitBuilder().array(10, 4, name="many")).members(14, 10, [1.0])
        story.wait(1).members(14, 10, [0.5] * 4)
        overview = story.overview()
        assert overview.groups(1)["groups"][0]["sum"] == 2.0
        assert overview.session(1)["tasks"]["finished"] == 4
        assert overview.session(1)["bytes"] == 20

    def test_a_result_that_was_lost_is_computed_again(self, story: Story):
        story.session().submit(chain("a")).finished(12, seconds=2.0, size=10).wait(1).retried(12)
        overview = story.overview()
        assert states(overview) == {12: "waiting"}
        assert overview.groups(1)["groups"][0]["sum"] == 0
        story.wait(5).finished(12, seconds=3.0, worker=W2, size=12)
        overview = story.overview()
        assert overview.groups(1)["groups"][0]["sum"] == 3.0
        assert overview.session(1)["bytes"] == 12
        assert overview.tasks(1)["tasks"][0]["worker"] == W2
        assert overview.stream(1)["total"] == 2


class TestGroups:
    def test_tree(self, story: Story):
        story.session(on_failure="continue").submit(chain("a/x", "a/x", "a/y", "b"))
        story.finished(12, seconds=1.0).finished(14, seconds=3.0).failed(16).finished(18, seconds=4.0)
        overview = story.overview()
        answer = overview.groups(1)
        assert (answer["prefix"], answer["more"]) == ("", 0)
        first, second = sorted(answer["groups"], key=lambda group: group["name"])
        assert first == {
            "name": "a",
            "path": "a",
            "leaf": False,
            "total": 3,
            "waiting": 0,
            "running": 0,
            "finished": 2,
            "failed": 1,
            "cancelled": 0,
            "aborted": 0,
            "mean": 2.0,
            "std": 1.0,
            "sum": 4.0,
            "share": 0.5,
        }
        assert (second["path"], second["leaf"], second["mean"], second["std"]) == ("b", True, 4.0, 0.0)
        below = overview.groups(1, "a")
        assert below["prefix"] == "a"
        assert [(group["path"], group["leaf"], group["mean"]) for group in below["groups"]] == [
            ("a/x", True, 2.0),
            ("a/y", True, None),
        ]
        assert overview.groups(1, "a/x")["groups"] == []

    def test_a_name_that_begins_others(self, story: Story):
        story.session().submit(chain("a", "a/x", "a/y")).finished(12, seconds=2.0).finished(14, seconds=1.0)
        overview = story.overview()
        assert overview.groups(1)["groups"][0]["total"] == 3
        own, *others = overview.groups(1, "a")["groups"]
        assert (own["name"], own["path"], own["leaf"], own["total"], own["sum"]) == ("", "a", True, 1, 2.0)
        assert [group["name"] for group in others] == ["x", "y"]

    def test_unnamed_tasks_go_by_their_type(self, story: Story):
        story.session().submit(SubmitBuilder().task(12, [], [13], task_type="buildin/run"))
        assert story.overview().groups(1)["groups"][0]["path"] == "buildin"
        assert story.overview().groups(1, "buildin")["groups"][0]["path"] == "buildin/run"

    def test_the_largest_of_very_many(self, story: Story):
        builder = SubmitBuilder()
        for k in range(1200):
            builder.task(10 + 2 * k, [], [11 + 2 * k], name=f"task {k}")
        overview = story.session().submit(builder).finished(10 + 2 * 700).overview()
        answer = overview.groups(1)
        assert (len(answer["groups"]), answer["more"]) == (1000, 200)
        assert answer["groups"][0]["name"] == "task 700"

    @pytest.mark.parametrize("name", ["/", "//a/", "a" + "/b" * 40, "/".join("x" * 20)])
    def test_odd_names(self, story: Story, name: str):
        overview = story.session().submit(chain(name)).overview()
        path = ""
        for _ in range(20):
            found = overview.groups(1, path)["groups"]
            if not found:
                break
            path = found[0]["path"]
        assert [task["name"] for task in overview.tasks(1, group=path)["tasks"]] == [name]
        assert [task["name"] for task in overview.tasks(1, group=name)["tasks"]] == [name]


class TestTask:
    def test_all_about_a_finished_one(self, story: Story):
        builder = SubmitBuilder().constant(10, b"x")
        builder.task(12, [10], [13], keep=True, name="load", task_type="py/", labels=["source"], resources={"cpus": 1})
        builder.task(14, [13, 10, 13], [15, 16], name="split", args=b"\xc0")
        builder.objects.append((15, 0, msgpack.packb({"label": "left"}), None))
        builder.objects.append((16, 0, msgpack.packb({"content_type": "json"}), None))
        story.session().submit(builder).wait(2).finished(12, infos=[{"user": {"x": 1}, "debug": "said"}])
        story.wait(2).finished(14, outputs=[15, 16], size=7).unkept(13)
        overview = story.overview()
        load = overview.task(1, 12)
        assert load["spec"]["id"] == [1, 12]
        assert load["spec"]["resources"] == {"cpus": 1}
        assert load["inputs"] == [{"id": 10, "state": "finished", "producer": None, "label": "source", "size": None}]
        assert (load["user"], load["debug"], load["error"], load["attempts"]) == ({"x": 1}, "said", None, 1)
        assert load["outputs"][0]["kept"] is False
        assert load["history"] == [
            {"time": BEGIN, "text": "submitted"},
            {"time": BEGIN + 1, "text": f"started on {W1}"},
            {"time": BEGIN + 2, "text": "finished after 1.0 s"},
        ]
        split = overview.task(1, 14)
        assert [entry["id"] for entry in split["inputs"]] == [13, 10, 13]
        assert split["inputs"][0] == {"id": 13, "state": "finished", "producer": 12, "label": None, "size": 10}
        assert split["outputs"] == [
            {"id": 15, "state": "finished", "size": 7, "label": "left", "kept": False, "content_type": None},
            {"id": 16, "state": "finished", "size": 7, "label": None, "kept": False, "content_type": "json"},
        ]
        assert (split["session"], split["name"], split["user"]) == (1, "split", None)

    def test_failed_after_retries(self, story: Story):
        story.session().submit(chain("a")).wait(1).began(12, story.now).wait(1).retried(12, "failed on W: oops")
        story.wait(1).began(12, story.now, worker=W2).wait(1)
        story.failed(
            12,
            "Traceback\nValueError: oops",
            worker=W2,
            attempts=2,
            debug="said",
            start_time=story.now - 1,
            duration=1.0,
        )
        story.closed(1, "Error", "oops")
        task = story.overview().task(1, 12)
        assert (task["state"], task["attempts"], task["debug"], task["duration"]) == ("failed", 2, "said", 1.0)
        assert task["error"] == "Traceback\nValueError: oops"
        assert [(entry["time"] - BEGIN, entry["text"]) for entry in task["history"]] == [
            (0, "submitted"),
            (1, f"started on {W1}"),
            (2, "runs again: failed on W: oops"),
            (3, f"started on {W2}"),
            (4, "failed: ValueError: oops"),
        ]
        assert task["outputs"][0]["state"] == "aborted"

    def test_cancelled_infeasible_and_ended_with_its_session(self, story: Story):
        story.session().submit(chain("a", "b", "c")).wait(1).ended("TaskCancelled", (12, 1))
        story.event("TaskInfeasible", 1, task=[1, 14], reason="no worker has 99 cpus").wait(1).closed(1, "Error")
        overview = story.overview()
        histories = [[entry["text"] for entry in overview.task(1, task)["history"]] for task in (12, 14, 16)]
        assert histories == [
            ["submitted", "cancelled"],
            ["submitted", "cannot run: no worker has 99 cpus", "aborted"],
            ["submitted", "aborted"],
        ]
        assert [overview.task(1, task)["history"][-1]["time"] - BEGIN for task in (12, 14)] == [1, 2]

    def test_a_member_of_an_array(self, story: Story):
        story.session().submit(SubmitBuilder().constant(10).array(11, 100, [10], per_block=30, name="many"))
        story.members(111 + 40, 11 + 40, [0.5] * 5)
        task = story.overview().task(1, 111 + 42)
        assert (task["spec"]["id"], task["spec"]["count"]) == ([1, 153], 1)
        assert [entry["id"] for entry in task["inputs"]] == [10]
        assert task["outputs"] == [
            {"id": 53, "state": "finished", "size": 5, "label": None, "kept": True, "content_type": None}
        ]

    def test_many_notes_are_bounded(self, story: Story):
        story.session().submit(chain("a"))
        for k in range(50):
            story.wait(1).started(12).wait(1).retried(12, f"try {k}")
        history = story.overview().task(1, 12)["history"]
        assert len(history) <= 18
        assert history[-1]["text"] == "runs again: try 49"


class TestGraph:
    def test_tasks_and_objects(self, story: Story):
        overview = story.session().submit(chain("a", "b")).finished(12).overview()
        graph = overview.graph(1)
        assert graph["mode"] == "tasks"
        about = {node["id"]: (node["kind"], node["label"], node["state"]) for node in graph["nodes"]}
        assert about == {
            "t12": ("task", "a", "finished"),
            "t14": ("task", "b", "waiting"),
            "o10": ("object", "", "finished"),
            "o13": ("object", "", "finished"),
            "o15": ("object", "", "unfinished"),
        }
        assert sorted(graph["edges"]) == [
            ["o10", "t12", 1],
            ["o13", "t14", 1],
            ["t12", "o13", 1],
            ["t14", "o15", 1],
        ]

    def test_tasks_alone(self, story: Story):
        graph = story.session().submit(chain("a", "b", "c")).overview().graph(1, limit=4)
        assert [node["id"] for node in graph["nodes"]] == ["t12", "t14", "t16"]
        assert graph["edges"] == [["t12", "t14", 1], ["t14", "t16", 1]]

    def test_members_of_arrays_are_tasks(self, story: Story):
        builder = SubmitBuilder().array(10, 3, name="many").task(16, [10, 11, 12], [17], name="sum")
        graph = story.session().submit(builder).overview().graph(1)
        assert ["o11", "t16", 1] in graph["edges"]
        assert ["t14", "o11", 1] in graph["edges"]
        assert len(graph["nodes"]) == 8

    def test_groups(self, story: Story):
        story.session().submit(chain("load", "load", "work/a", "work/b", "work/a")).finished(12, 14, 16)
        graph = story.overview().graph(1, limit=4)
        assert graph["mode"] == "groups"
        nodes = {node["id"]: node for node in graph["nodes"]}
        assert nodes["g:load"] == {
            "id": "g:load",
            "kind": "group",
            "label": "load",
            "type": "py/",
            "state": "finished",
            "total": 2,
            "finished": 2,
            "failed": 0,
            "running": 0,
        }
        assert sorted(graph["edges"]) == [
            ["g:load", "g:load", 1],
            ["g:load", "g:work/a", 1],
            ["g:work/a", "g:work/b", 1],
            ["g:work/b", "g:work/a", 1],
        ]

    def test_groups_by_beginnings_of_names(self, story: Story):
        names = [f"{stage}/{part}" for part in range(5) for stage in ("load", "work")]
        graph = story.session().submit(chain(*names)).overview().graph(1, limit=3)
        assert {node["id"]: node["total"] for node in graph["nodes"]} == {"g:load": 5, "g:work": 5}
        assert sorted(graph["edges"]) == [["g:load", "g:work", 5], ["g:work", "g:load", 4]]

    def test_more_groups_than_room(self, story: Story):
        graph = story.session().submit(chain("a", "a", "b", "b", "c", "d", "e")).overview().graph(1, limit=3)
        assert {node["id"]: node["total"] for node in graph["nodes"]} == {"g:a": 2, "g:b": 2, "g:(others)": 3}
        assert sum(count for _, _, count in graph["edges"]) == 6
        assert ["g:(others)", "g:(others)", 2] in graph["edges"]

    def test_groups_of_arrays(self, story: Story):
        story.session().submit(SubmitBuilder().task(10, [], [11], name="f").array(12, 5000, [11], name="many"))
        graph = story.overview().graph(1)
        assert graph["edges"] == [["g:f", "g:many", 5000]]

    def test_follows_new_submits(self, story: Story):
        overview = story.session().submit(chain("a")).overview()
        assert len(overview.graph(1)["nodes"]) == 3
        story.submit(SubmitBuilder().task(20, [], [21], name="late")).write()
        catch_up(overview)
        assert len(overview.graph(1)["nodes"]) == 5


class TestWorkers:
    def test_life(self, story: Story):
        story.worker(W1, 4).worker(W2, 8).session().submit(chain("a", "b")).started(12).started(14, worker=W2)
        story.wait(1).finished(12, announced=[0]).wait(1)
        story.event("WorkerRemoved", worker=W2, governor=W2, error_msg="its connection broke")
        overview = story.overview()
        first, second = overview.workers()["workers"]
        assert (first["id"], first["state"], first["hostname"], first["pid"]) == (W1, "connected", "host", 7)
        assert (first["running"], first["finished"], first["resources"]) == (0, 1, {"cpus": 4})
        assert (second["state"], second["lost"], second["reason"]) == ("lost", BEGIN + 2, "its connection broke")
        status = overview.status()
        assert status["workers"] == {"connected": 1, "lost": 1}
        assert status["cpus"] == 4

    def test_running(self, story: Story):
        story.worker().session().submit(chain("a", "b")).started(12, 14)
        assert story.overview().workers()["workers"][0]["running"] == 2

    def told(self, story: Story, received: int, name: str = W1) -> Story:
        return story.event(
            "Monitoring",
            worker=name,
            governor=name,
            cpu_usage=[10, 30],
            mem_usage=40,
            net_stat={"eth0": [received, 10], "lo": [10**9, 10**9]},
            store={"memory": 100, "disk": 50},
            executors={"idle": 2},
        )

    def test_monitoring(self, story: Story):
        self.told(story.worker(), 1000)
        self.told(story.wait(5), 6000)
        worker = story.overview().workers()["workers"][0]
        assert (worker["cpu"], worker["memory"], worker["executors"]) == (20, 40, {"idle": 2})
        assert worker["store"] == {"memory": 100, "disk": 50}
        assert worker["net"] == {"rx": 1000.0, "tx": 0.0}
        assert worker["history"] == [[BEGIN, 20, 40, 0, 0, 150], [BEGIN + 5, 20, 40, 1000, 0, 150]]

    def test_history_is_bounded(self, story: Story):
        story.worker()
        for _ in range(1000):
            self.told(story.wait(5), 0)
        history = story.overview().workers()["workers"][0]["history"]
        assert 150 <= len(history) <= 400
        assert history[-1][0] == BEGIN + 5000
        assert history[0][0] == BEGIN + 5

    def test_a_worker_that_is_to_end(self, story: Story):
        story.worker(W1).worker(W2).event("WorkerStopping", worker=W1, governor=W1, now=False)
        states = [(worker["id"], worker["state"]) for worker in story.overview().workers()["workers"]]
        assert states == [(W1, "draining"), (W2, "connected")]
        assert story.overview().status()["workers"] == {"connected": 2, "lost": 0}
        story.event("WorkerRemoved", worker=W1, governor=W1, error_msg="stopped").worker(W1)
        states = [(worker["id"], worker["state"]) for worker in story.overview().workers()["workers"]]
        assert states == [(W2, "connected"), (W1, "connected")]

    def test_a_worker_that_came_back(self, story: Story):
        story.worker().event("WorkerRemoved", worker=W1, governor=W1, error_msg="lost").wait(9).worker(cpus=2)
        (worker,) = story.overview().workers()["workers"]
        assert (worker["state"], worker["since"], worker["lost"], worker["reason"]) == (
            "connected",
            BEGIN + 9,
            None,
            "",
        )
        assert worker["resources"] == {"cpus": 2}


class TestEvents:
    def test_newest_first_in_pages(self, story: Story):
        story.session().submit(chain(*"abcd")).finished(12, 14, 16, 18).closed()
        overview = story.overview()
        everything = overview.events(limit=100)
        ids = [entry["id"] for entry in everything["events"]]
        assert ids == list(range(overview.last_event, 0, -1))
        assert everything["next"] == 0
        assert everything["events"][0]["event"]["type"] == "SessionClosed"
        pages, before = [], None
        while before != 0:
            page = overview.events(before, limit=4)
            pages += [entry["id"] for entry in page["events"]]
            before = page["next"]
        assert pages == ids

    def test_filters(self, story: Story):
        story.session().session(2).submit(chain(*"ab"), session=2).finished(12, session=2).failed(
            14, session=2
        ).worker()
        overview = story.overview()

        def types(**wanted: object) -> list[str]:
            return [entry["event"]["type"] for entry in overview.events(**wanted)["events"]]

        assert types(session=1) == ["SessionNew"]
        assert types(session=2, type="TaskFinished") == ["TaskFinished", "TaskFinished"]
        assert types(type="TaskFailed") == ["TaskFinished"]
        assert types(type="GovernorNew") == ["WorkerNew"]
        assert types(type="Nonsense") == []

    def test_far_back_behind_a_large_batch(self, story: Story):
        story.worker().session().submit(SubmitBuilder().array(10, 30_000, name="many"))
        story.members(30_010, 10, [0.001] * 30_000)
        overview = story.overview()
        page = overview.events(type="TaskFinished", limit=2)
        assert [entry["event"]["task"] for entry in page["events"]] == [[1, 60_009], [1, 60_008]]
        page = overview.events(before=page["next"], type="TaskFinished", limit=1000)
        assert [entry["event"]["task"][1] for entry in page["events"]] == list(range(60_007, 59_007, -1))
        assert [entry["id"] for entry in overview.events(type="WorkerNew")["events"]] == [1]


class TestCatchingUp:
    def test_bounded_pieces_give_the_same(self, story: Story):
        story.worker().session().submit(chain(*"abcdef"))
        for task in range(12, 24, 2):
            story.wait(1).started(task).wait(1).finished(task, announced=[0])
        story.wait(1).closed()
        whole = story.overview()
        pieces = Overview(EventReader(story.path))
        assert pieces.is_behind
        turns = 0
        while pieces.is_behind:
            before = pieces.last_event
            assert pieces.catch_up(0.0) > before
            turns += 1
        assert turns == len(story.records)
        for answer in ("status", "sessions", "workers", "stream", "events"):
            assert getattr(pieces, answer)() == getattr(whole, answer)()
        for answer in ("session", "groups", "tasks", "graph", "stream"):
            assert getattr(pieces, answer)(1) == getattr(whole, answer)(1)

    def test_follows_a_growing_log(self, story: Story):
        overview = story.session().submit(chain("a", "b")).overview()
        last = overview.last_event
        assert overview.catch_up() == last
        story.finished(12).write()
        assert overview.catch_up() == last + 3
        assert states(overview) == {12: "finished", 14: "waiting"}

    def test_answers_are_json(self, story: Story):
        story.worker().session().submit(chain("a", "b").array(100, 10, name="m")).finished(12).started(14)
        overview = story.overview()
        for name in ("status", "sessions", "workers", "stream", "events"):
            json.dumps(getattr(overview, name)(), allow_nan=False)
        for name in ("session", "groups", "tasks", "graph", "stream"):
            json.dumps(getattr(overview, name)(1), allow_nan=False)
        json.dumps(overview.task(1, 12), allow_nan=False)


class TestRetention:
    def test_old_sessions_are_reduced_then_forgotten(self, story: Story, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sessions, "MOST_WHOLE", 2)
        monkeypatch.setattr(sessions, "MOST_SUMMARIES", 3)
        for number in range(1, 9):
            story.session(number).submit(chain("a", "b"), session=number).finished(12, session=number)
            if number != 2:
                story.closed(number)
        overview = story.overview()
        assert [session["id"] for session in overview.sessions()["sessions"]] == [8, 7, 6, 5, 4, 2]
        assert overview.status()["sessions"] == {"closed": 7, "open": 1}
        assert overview.status()["tasks"]["finished"] == 8
        assert overview.session(6)["tasks"]["finished"] == 1
        with pytest.raises(UnknownError, match="session 6 is too old"):
            overview.tasks(6)
        assert states(overview, 7) == {12: "finished", 14: "cancelled"}
        assert states(overview, 2) == {12: "finished", 14: "waiting"}
        with pytest.raises(UnknownError):
            overview.session(1)
        story.finished(14, session=1).finished(14, session=6).finished(14, session=2).write()
        catch_up(overview)
        assert overview.session(6)["tasks"]["finished"] == 1
        assert overview.session(2)["tasks"]["finished"] == 2

    @pytest.mark.parametrize(("bound", "value"), [("MOST_TASKS", 250), ("MOST_BYTES", 6000)])
    def test_too_much_is_kept(self, story: Story, monkeypatch: pytest.MonkeyPatch, bound: str, value: int):
        monkeypatch.setattr(sessions, bound, value)
        for number in (1, 2, 3):
            story.session(number).submit(SubmitBuilder().array(10, 100, name="many"), session=number).closed(number)
        overview = story.overview()
        with pytest.raises(UnknownError):
            overview.tasks(1)
        assert overview.tasks(3)["tasks"]
        assert overview.session(1)["tasks"]["cancelled"] == 100
