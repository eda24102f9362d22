"""Linked blocks in the dashboard: each member has a name, inputs and a place in the graph of its own."""

from __future__ import annotations

import pytest

from rain.testing.server_builders import SubmitBuilder
from tests.dashboard.stories import Story


@pytest.fixture
def tree(story: Story) -> Story:
    """Two leaves and their sum in one block, which is doubled in the next; functions 7 and 8, outputs 20 to 23, tasks
    24 to 27."""
    builder = SubmitBuilder().constant(7).constant(8).task(10, [], [11], name="load")
    inputs = [[7, 11], [7, 11], [8, 20, 21], [7, 22, 22]]
    return story.session().submit(
        builder.linked(20, inputs, keep=[2, 3], names=["leaf", "leaf", "sum/up", "double"], per_block=3)
    )


def test_names_and_states(tree: Story):
    tree.members(24, 20, [0.5, 0.25])
    overview = tree.overview()
    tasks = {task["id"]: (task["name"], task["state"]) for task in overview.tasks(1)["tasks"]}
    assert tasks == {
        10: ("load", "waiting"),
        24: ("leaf", "finished"),
        25: ("leaf", "finished"),
        26: ("sum/up", "waiting"),
        27: ("double", "waiting"),
    }
    groups = {group["path"]: (group["total"], group["finished"]) for group in overview.groups(1)["groups"]}
    assert groups == {"load": (1, 0), "leaf": (2, 2), "sum": (1, 0), "double": (1, 0)}
    assert overview.session(1)["objects"] == 7


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"group": "leaf"}, [24, 25]),
        ({"group": "sum"}, [26]),
        ({"group": "double"}, [27]),
        ({"group": "load"}, [10]),
        ({"state": "finished"}, [24, 25]),
        ({"group": "leaf", "state": "waiting"}, []),
        ({"after": 24}, [25, 26, 27]),
        ({"after": 25, "group": "leaf"}, []),
    ],
)
def test_lists(tree: Story, wanted: dict[str, object], found: list[int]):
    tree.members(24, 20, [0.5, 0.25])
    assert [task["id"] for task in tree.overview().tasks(1, **wanted)["tasks"]] == found


@pytest.mark.parametrize(
    ("task", "name", "inputs", "output", "kept"),
    [
        (24, "leaf", [7, 11], 20, False),
        (25, "leaf", [7, 11], 21, False),
        (26, "sum/up", [8, 20, 21], 22, True),
        (27, "double", [7, 22, 22], 23, True),
    ],
)
def test_details_of_a_member(tree: Story, task: int, name: str, inputs: list[int], output: int, kept: bool):
    about = tree.overview().task(1, task)
    assert about["spec"]["name"] == about["name"] == name
    assert [entry["id"] for entry in about["inputs"]] == inputs
    producers = {11: 10, 20: 24, 21: 25, 22: 26}
    assert [entry["producer"] for entry in about["inputs"]] == [producers.get(number) for number in inputs]
    assert [(entry["id"], entry["kept"]) for entry in about["outputs"]] == [(output, kept)]


def test_graph_of_tasks(tree: Story):
    graph = tree.overview().graph(1, limit=5)
    assert sorted(graph["edges"]) == [
        ["t10", "t24", 1],
        ["t10", "t25", 1],
        ["t24", "t26", 1],
        ["t25", "t26", 1],
        ["t26", "t27", 2],
    ]


def test_graph_of_groups(tree: Story):
    graph = tree.overview().graph(1, limit=4)
    assert graph["mode"] == "groups"
    assert sorted(graph["edges"]) == [
        ["g:leaf", "g:sum/up", 2],
        ["g:load", "g:leaf", 2],
        ["g:sum/up", "g:double", 2],
    ]
