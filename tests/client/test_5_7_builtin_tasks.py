"""concat and sleep, in both vocabularies."""

from __future__ import annotations

import pytest

from rain.client import OutputDir, RainException, Task, blob, tasks
from rain.client.submit import SubmitPacker
from rain.common.packing import unpack


def test_concat(graph):
    a = blob("a")
    for make in (tasks.concat, tasks.Concat):
        task = make([a, a, tasks.concat([])])
        assert isinstance(task, tasks.Concat)
        assert task.task_type == "buildin/concat"
        assert task.spec.config is None
        assert len(task.inputs) == 3
        assert task.output.content_type is None


def test_concat_of_a_generator(graph):
    assert len(tasks.concat(blob(str(i)) for i in range(3)).inputs) == 3


def test_concat_of_a_directory(graph):
    with pytest.raises(TypeError, match="blob is expected"):
        tasks.concat([OutputDir("d").create_data_object()])


def test_sleep(graph):
    source = blob([1], encode="json")
    for task in (tasks.sleep(0.5, source), tasks.Sleep(source, 0.5)):
        assert isinstance(task, tasks.Sleep)
        assert task.task_type == "buildin/sleep"
        assert task.spec.config == 0.5
        assert task.output.content_type == "json"
    directory = OutputDir("d").create_data_object()
    assert tasks.sleep(0, directory).output.is_directory()


def test_sleep_config_is_float_seconds(graph):
    tasks.sleep(0, blob("x"))
    (chunk,) = SubmitPacker(graph, {}).messages(graph._things)
    assert unpack(chunk.args[0]) == 0.0
    assert type(unpack(chunk.args[0])) is float


def test_sleep_options(graph):
    task = tasks.sleep(1, blob("x"), 2, name="n", retries=1)
    assert (task.spec.resources, task.name, task.spec.retries, task.spec.timeout) == ({"cpus": 2}, "n", 1, None)
    task.spec.timeout = 5.0
    assert task.spec.config == 1.0
    assert tasks.Sleep(blob("x"), timeout=2).spec.config == 2.0


def test_swapped_arguments(graph):
    source = blob("x")
    with pytest.raises(TypeError, match="sleep\\(timeout, dataobj\\)"):
        tasks.Sleep(1, source)
    with pytest.raises(TypeError, match="Sleep\\(input, timeout\\)"):
        tasks.sleep(source, 1)
    with pytest.raises(TypeError, match="other order"):
        tasks.sleep(1, 2)


def test_wrong_times(graph):
    source = blob("x")
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="from 0 on"):
            tasks.sleep(wrong, source)
    with pytest.raises(TypeError):
        tasks.Sleep(source, "1")
    with pytest.raises(RainException, match="blob\\(\\)"):
        tasks.sleep(1, "text")
    assert blob("y").id.id == source.id.id + 1


def test_type_strings_of_the_first_vocabulary(graph):
    task = Task("!sleep", 1000, [blob("x")], 1)
    assert (task.task_type, task.spec.task_type, task.spec.config) == ("!sleep", "!sleep", 1000)
