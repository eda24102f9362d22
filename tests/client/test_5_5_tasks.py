"""Tasks: both call forms, ids, options."""

from __future__ import annotations

import threading

import pytest

from rain.client import DataObject, Output, OutputDir, RainException, Task, blob, tasks
from rain.client.task import TaskMeta
from rain.common import ID, LabeledList


def test_ids_of_the_lower_case_function(graph):
    task = tasks.sleep(1, blob("x"))
    assert (task.inputs[0].id, task.output.id, task.id) == ((1, 10), (1, 11), (1, 12))


def test_ids_of_the_class(graph):
    task = tasks.Sleep(blob("x"), 1)
    assert (task.inputs[0].id, task.id, task.output.id) == ((1, 10), (1, 11), (1, 12))


def test_ids_of_the_generic_forms(graph):
    typed = Task("a/b", None, (), 2)
    assert [output.id.id for output in typed.outputs] == [10, 11]
    assert typed.id.id == 12
    classic = Task((), 2, task_type="a/b")
    assert classic.id.id == 13
    assert [output.id.id for output in classic.outputs] == [14, 15]


def test_typed_form(graph):
    source = blob("x")
    task = Task("a/b", {"zero": 0}, [source], 2, graph, 3, name="n", user_spec={"k": [1]})
    assert task.task_type == "a/b"
    assert task.outputs.labels == ["out0", "out1"]
    assert task.spec.config == {"zero": 0}
    assert (task.spec.resources, task.name, task.spec.user) == ({"cpus": 3}, "n", {"k": [1]})
    assert task.session is graph


def test_classic_form(graph):
    source = blob("x")
    task = Task([source], 2, task_type="a/b", config=0, cpus=2, name="n", user_spec={"k": 1})
    assert task.outputs.labels == [None, None]
    assert (task.spec.config, task.spec.resources, task.name) == (0, {"cpus": 2}, "n")
    assert task.spec.inputs[0].id == source.id
    assert task.spec.outputs == [output.id for output in task.outputs]
    assert task.spec.id == task.id


@pytest.mark.parametrize("config", [0, 0.0, False, "", [], {}, {"a": [0, False, ""]}, None])
def test_config_values(graph, config):
    assert Task("a/b", config).spec.config == config
    assert type(Task("a/b", config).spec.config) is type(config)


def test_config_must_be_plain(graph):
    with pytest.raises(RainException, match="plain data"):
        Task("a/b", {"x": object()})
    assert Task("a/b").id == (1, 10)


def test_subclass_with_type(graph):
    class Mine(Task):
        TASK_TYPE = "mine/do"

    assert Mine((), 1).task_type == "mine/do"
    assert Mine(task_type="other/do").task_type == "other/do"
    assert TaskMeta.classes["mine/do"] is Mine


def test_inputs(graph):
    a, one = blob("x"), Task("a/b", outputs=1)
    task = Task("a/b", inputs=[a, ("name", one), (None, a), a])
    assert task.inputs == LabeledList([a, one.output, a, a], labels=[None, "name", None, None])
    assert task.inputs["name"] is one.output
    labelled = Task("a/b", inputs=LabeledList(pairs=[("p", a)]))
    assert labelled.inputs.labels == ["p"]


def test_outputs(graph):
    given = DataObject("given")
    task = Task("a/b", outputs=["label", Output("out", content_type="json"), OutputDir("dir"), given])
    assert task.outputs.labels == ["label", "out", "dir", "given"]
    assert task.outputs["given"] is given
    assert task.outputs["dir"].is_directory()
    assert task.outputs["out"].content_type == "json"
    assert Task("a/b").outputs == LabeledList()
    with pytest.raises(ValueError, match="twice"):
        Task("a/b", outputs=[given, given])


def test_failed_constructor_consumes_no_id(graph):
    before = blob("x")
    for arguments in (
        {"inputs": ["text"]},
        {"outputs": ["a", "a"]},
        {"outputs": [3]},
        {"cpus": -1},
        {"retries": "many"},
        {"wrong": 1},
    ):
        with pytest.raises((RainException, TypeError, ValueError, KeyError)):
            Task("a/b", **arguments)
    assert blob("y").id.id == before.id.id + 1


def test_options(graph):
    task = Task(
        "a/b",
        resources={"gpus": 1, "memory": "2 GiB", "licence": 1},
        retries=2,
        timeout="2 min",
        priority=-3,
        env={"A": "b", "C": None},
    )
    spec = task.spec
    assert spec.resources == {"gpus": 1, "memory": 2 << 30, "licence": 1, "cpus": 1}
    assert (spec.retries, spec.timeout, spec.priority, spec.cache) == (2, 120.0, -3, None)
    assert spec.env == {"A": "b", "C": None}
    assert Task("a/b", cpus=None).spec.resources == {}
    assert Task("a/b", resources={"cpus": 2}).spec.resources == {"cpus": 2}
    assert Task("a/b", cpus=0).spec.resources == {"cpus": 0}
    assert Task("a/b").spec.resources == {"cpus": 1}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cpus": 1, "resources": {"cpus": 2}}, ValueError),
        ({"cpus": -1}, ValueError),
        ({"resources": {"a b": 1}}, ValueError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
        ({"timeout": "soon"}, ValueError),
        ({"priority": 1 << 31}, ValueError),
        ({"priority": "high"}, TypeError),
        ({"cache": 3}, TypeError),
        ({"env": {"RAIN_X": "1"}}, ValueError),
        ({"env": {"A": 1}}, TypeError),
        ({"name": 3}, TypeError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_wrong_options(graph, options, error):
    with pytest.raises(error):
        Task("a/b", **options)


def test_repr_and_identity(graph):
    a, b = Task("a/b"), Task("a/b", name="n")
    assert repr(a) == "<Task id=1/10 a/b>"
    assert repr(b) == "<Task id=1/11 a/b 'n'>"
    assert a != b
    assert len({a, b, a}) == 2
    assert a.id == ID(1, 10)


def test_stack_of_the_creation(graph):
    from rain.client.site import format_site

    text = format_site(Task("a/b")._stack)
    assert "test_5_5_tasks.py" in text
    assert "rain/client" not in text
    assert text.count("File ") <= 5
    assert "test_stack_of_the_creation" in text.splitlines()[-2]


def test_edited_spec_and_attributes(graph):
    task = Task("a/b", {"k": 1})
    task.attributes["resources"]["cpus"] = 3
    task.attributes["mine"] = 4
    task.spec.user["other"] = [False]
    assert task.spec.resources == {"cpus": 3}
    assert task.spec.user == {"mine": 4, "other": [False]}
    assert task.attributes["config"] == {"k": 1}
    assert "info" not in task.attributes


def test_ids_from_many_threads(graph):
    def build():
        for _ in range(200):
            tasks.concat([])

    threads = [threading.Thread(target=lambda: build_in(graph)) for _ in range(4)]

    def build_in(session):
        with session.bind_only():
            build()

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [thing.id.id for thing in graph._things]
    assert numbers == list(range(10, 10 + 2 * 800))
    for thing in graph._things:
        if isinstance(thing, Task):
            assert thing.output.id.id == thing.id.id - 1
