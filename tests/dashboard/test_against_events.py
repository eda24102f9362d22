"""The overview, which takes batches as columns, against a naive reading of the single events of the same log."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rain.dashboard.overview import Overview
from rain.eventlog.criteria import Criteria
from rain.eventlog.reader import EventReader
from rain.testing.server_builders import SubmitBuilder
from tests.dashboard.stories import W1, W2, Story

NAMES = ("a", "a/x", "a/y", "b", None)
UNFINISHED = ("waiting", "running")


class Naive:
    """States of tasks and sizes of objects, event by event."""

    def __init__(self) -> None:
        self.states: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.workers: dict[int, str | None] = {}
        self.seconds: dict[int, float] = {}
        self.sizes: dict[int, int] = {}
        self.runs = 0
        self.status = "open"

    def take(self, event: dict[str, Any]) -> None:
        task = event["task"][1] if "task" in event else -1
        match event["type"]:
            case "ClientSubmit":
                for spec in event["tasks"]:
                    for member in range(spec["id"][1], spec["id"][1] + spec.get("count", 1)):
                        self.states[member] = "waiting"
                        self.names[member] = spec.get("name") or spec["task_type"]
            case "TaskStarted":
                self.states[task], self.workers[task] = "running", event["worker"]
                self.runs += 1
            case "TaskFinished":
                self.states[task] = "failed" if event["info"].get("error") else "finished"
                self.workers[task] = event["info"]["governor"]
                self.seconds[task] = event["info"]["duration"]
            case "DataObjectFinished":
                self.sizes[event["dataobject"][1]] = event["size"]
            case "TaskRetried":
                self.states[task] = "waiting"
            case "TaskCancelled":
                self.states[task] = "cancelled"
            case "TaskAborted":
                self.states[task] = "aborted"
            case "SessionClosed":
                self.status = {"Error": "error", "ClientClose": "closed"}[event["reason"]]
                fate = "aborted" if self.status == "error" else "cancelled"
                self.states = {task: fate if state in UNFINISHED else state for task, state in self.states.items()}


class Writer:
    """Makes things happen that may happen."""

    def __init__(self, data: st.DataObject, story: Story) -> None:
        self.data = data
        self.story = story.session()
        self.next_id = 10
        self.states: dict[int, str] = {}
        self.output: dict[int, int] = {}
        self.member: set[int] = set()

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def choose(self, *states: str) -> list[int]:
        """Some tasks in these states, rising."""
        found = [task for task, state in self.states.items() if state in states]
        return sorted(self.draw(st.lists(st.sampled_from(found), unique=True, max_size=6))) if found else []

    def step(self) -> None:
        self.story.wait(self.draw(st.sampled_from([0.0, 0.5, 2.0])))
        self.draw(st.sampled_from([self.submit, self.start, self.finish, self.finish_members, self.retry, self.end]))()

    def submit(self) -> None:
        builder = SubmitBuilder()
        made = list(self.output.values())
        for _ in range(self.draw(st.integers(0, 4))):
            task, output = self.next_id, self.next_id + 1
            self.next_id += 2
            inputs = self.draw(st.lists(st.sampled_from(made), max_size=3)) if made else []
            builder.task(task, inputs, [output], name=self.draw(st.sampled_from(NAMES)), task_type="py/f")
            self.states[task], self.output[task] = "waiting", output
        count = self.draw(st.integers(0, 8))
        if count:
            first = self.next_id
            self.next_id += 2 * count
            builder.array(first, count, name=self.draw(st.sampled_from(NAMES)), per_block=3, task_type="py/g")
            for member in range(count):
                task = first + count + member
                self.states[task], self.output[task] = "waiting", first + member
                self.member.add(task)
        self.submit_linked(builder, made)
        self.story.submit(builder)

    def submit_linked(self, builder: SubmitBuilder, made: list[int]) -> None:
        count = self.draw(st.integers(0, 6))
        first = self.next_id
        self.next_id += 2 * count
        inputs = [
            self.draw(st.lists(st.sampled_from([*made, *range(first, first + k), 5]), max_size=3)) for k in range(count)
        ]
        names = [self.draw(st.sampled_from(NAMES[:4])) for _ in inputs]
        builder.linked(first, [[7, *own] for own in inputs], names=names, per_block=4, task_type="py/g")
        for member in range(count):
            task = first + count + member
            self.states[task], self.output[task] = "waiting", first + member
            self.member.add(task)

    def start(self) -> None:
        tasks = self.choose("waiting")
        if tasks:
            self.story.started(*tasks, worker=self.draw(st.sampled_from([W1, W2])))
            self.states.update(dict.fromkeys(tasks, "running"))

    def finish(self) -> None:
        tasks = self.choose(*UNFINISHED)
        if tasks:
            known = [place for place, task in enumerate(tasks) if self.states[task] == "running"]
            outputs = [self.output[task] for task in tasks]
            worker, seconds = self.draw(st.sampled_from([W1, W2])), self.draw(st.sampled_from([0.25, 1.5]))
            size = self.draw(st.sampled_from([0, 7, 1 << 33]))
            self.story.finished(*tasks, outputs=outputs, announced=known, worker=worker, seconds=seconds, size=size)
            self.states.update(dict.fromkeys(tasks, "finished"))

    def finish_members(self) -> None:
        begins = sorted(task for task in self.member if self.states[task] in UNFINISHED)
        if not begins:
            return
        first = self.draw(st.sampled_from(begins))
        count = 1
        while first + count in self.member and self.states[first + count] == "waiting" and count < 5:
            if self.output[first + count] != self.output[first] + count:
                break
            count += 1
        is_announced = self.states[first] == "running"
        self.story.members(first, self.output[first], [0.5] * count, worker=W1, is_announced=is_announced)
        self.states.update(dict.fromkeys(range(first, first + count), "finished"))

    def retry(self) -> None:
        for task in self.choose("running", "finished"):
            self.story.retried(task)
            self.states[task] = "waiting"

    def end(self) -> None:
        tasks = self.choose(*UNFINISHED)
        kind = self.draw(st.sampled_from(["TaskCancelled", "TaskAborted", "failed"]))
        if kind == "failed":
            for task in tasks[:1]:
                if self.states[task] == "waiting":
                    self.story.began(task, self.story.now)
                self.story.failed(task, duration=0.5, start_time=self.story.now - 0.5)
                self.states[task] = "failed"
        elif tasks:
            stretches: list[tuple[int, int]] = []
            for task in tasks:
                first, count = stretches[-1] if stretches else (0, 0)
                if first + count == task:
                    stretches[-1] = first, count + 1
                else:
                    stretches.append((task, 1))
            self.story.ended(kind, *stretches)
            self.states.update(dict.fromkeys(tasks, "cancelled" if kind == "TaskCancelled" else "aborted"))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_columns_say_what_the_events_say(data: st.DataObject):
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder))
        writer = Writer(data, story)
        for _ in range(data.draw(st.integers(1, 12))):
            writer.step()
        if data.draw(st.booleans()):
            story.closed(1, data.draw(st.sampled_from(["Error", "ClientClose"])))
        overview = story.overview()
        reader = EventReader(story.path)
        naive = Naive()
        for entry in reader.events(Criteria()):
            naive.take(entry.event)
        reader.close()
        compare(overview, naive)
        overview._reader.close()


def compare(overview: Overview, naive: Naive) -> None:
    session = overview.session(1)
    counts = Counter(naive.states.values())
    assert session["status"] == naive.status
    assert {state: count for state, count in session["tasks"].items() if count and state != "total"} == counts
    assert session["bytes"] == sum(naive.sizes.values())
    assert session["unprocessed"][-1][1] == sum(counts[state] for state in UNFINISHED)
    tasks = overview.tasks(1, limit=1000)["tasks"]
    assert {task["id"]: task["state"] for task in tasks} == naive.states
    assert {task["id"]: task["name"] for task in tasks} == naive.names
    for task in tasks:
        if task["state"] in ("finished", "running", "failed"):
            assert task["worker"] == naive.workers[task["id"]]
        if task["state"] == "waiting":
            assert task["worker"] is task["start"] is None
        if task["state"] == "finished":
            assert task["duration"] == pytest.approx(naive.seconds[task["id"]])
    for group in overview.groups(1)["groups"]:
        below = [task for task, name in naive.names.items() if (name + "/").startswith(group["path"] + "/")]
        assert group["total"] == len(below)
        finished = [naive.seconds[task] for task in below if naive.states[task] == "finished"]
        assert group["finished"] == len(finished)
        assert group["sum"] == pytest.approx(sum(finished))
    for state in set(naive.states.values()):
        found = overview.tasks(1, state=state, limit=1000)["tasks"]
        assert [task["id"] for task in found] == sorted(task for task, own in naive.states.items() if own == state)
    assert overview.stream(1, width=10_000)["total"] == naive.runs
    workers = {task: worker for task, worker in naive.workers.items() if naive.states[task] == "running"}
    running = {worker["id"]: worker["running"] for worker in overview.workers()["workers"] if worker["running"]}
    assert running == Counter(workers.values())
