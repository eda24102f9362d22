"""concat and sleep, in both vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest

from rain.client import Output, OutputDir, RainException, Session, Task, blob, directory, tasks
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


def test_sleep_by_a_text(graph):
    source = blob("x")
    assert tasks.sleep("250 ms", source).spec.config == 0.25
    assert tasks.Sleep(source, "1 min").spec.config == 60.0
    for call in (lambda: tasks.sleep("soon", source), lambda: tasks.Sleep(source, "-1 s")):
        with pytest.raises(ValueError, match="is not a duration"):
            call()
    with pytest.raises(TypeError, match="a number of seconds or a str"):
        tasks.sleep(None, source)
    with pytest.raises(TypeError, match="takes the data object first"):
        tasks.Sleep("1 s", source)


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
        tasks.Sleep(source, b"1")
    with pytest.raises(RainException, match="blob\\(\\)"):
        tasks.sleep(1, "text")
    assert blob("y").id.id == source.id.id + 1


def test_type_strings_of_the_first_vocabulary(graph):
    task = Task("!sleep", 1000, [blob("x")], 1)
    assert (task.task_type, task.spec.task_type, task.spec.config) == ("!sleep", "!sleep", 1000)


def entries(task):
    """Type, config, labels of the outputs, and whether these are directories."""
    return (
        task.task_type,
        task.spec.config,
        [output.label for output in task.outputs],
        [output.is_directory() for output in task.outputs],
    )


def test_load(graph):
    assert entries(tasks.Load("/a/b")) == ("buildin/open", {"path": "/a/b"}, [None], [False])
    assert entries(tasks.open("relative")) == ("buildin/open", {"path": "relative"}, [None], [False])
    assert entries(tasks.Load(Path("/a"), "label")) == ("buildin/open", {"path": "/a"}, ["label"], [False])
    assert tasks.Load("/a", Output("x", content_type="json")).output.content_type == "json"
    with pytest.raises(TypeError, match="blob is expected"):
        tasks.Load("/a", OutputDir())
    with pytest.raises(TypeError):
        tasks.open(5)


def test_load_dir(graph):
    assert entries(tasks.LoadDir("/a")) == ("buildin/open_dir", {"path": "/a"}, [None], [True])
    assert entries(tasks.open_dir("/a")) == ("buildin/open_dir", {"path": "/a"}, [None], [True])
    assert entries(tasks.LoadDir("/a", "x"))[2:] == (["x"], [True])
    assert entries(tasks.LoadDir("/a", OutputDir("x")))[2:] == (["x"], [True])
    with pytest.raises(TypeError, match="directory is expected"):
        tasks.LoadDir("/a", Output("x"))


def test_store(graph):
    for source in (blob("x"), directory()):
        for task in (tasks.Store(source, "/a"), tasks.export(source, "/a")):
            assert isinstance(task, tasks.Store)
            assert entries(task) == ("buildin/export", {"path": "/a"}, [], [])
            assert list(task.inputs) == [source]
    with pytest.raises(RainException, match="0 outputs"):
        _ = tasks.Store(blob("x"), "/a").output
    with pytest.raises(RainException, match="blob"):
        tasks.Store("text", "/a")


def test_make_directory(graph):
    a, d = blob("a"), directory()
    for given in ([("x/a", a), ("d", d), ("again", a)], {"x/a": a, "d": d, "again": a}):
        for make in (tasks.MakeDirectory, tasks.make_directory):
            task = make(given)
            assert isinstance(task, tasks.MakeDirectory)
            assert entries(task) == ("buildin/make_directory", {"paths": ["x/a", "d", "again"]}, [None], [True])
            assert list(task.inputs) == [a, d, a]
    assert tasks.make_directory([]).spec.config == {"paths": []}
    assert tasks.make_directory((("c", tasks.concat([a])),)).inputs[0].is_blob()


@pytest.mark.parametrize("wrong", ["ab", 5, None, ["ab"], [("a",)], [(1, 2)], [("a", 1, 2)]])
def test_make_directory_of_something_else(graph, wrong):
    with pytest.raises(TypeError):
        tasks.MakeDirectory(wrong)
    with pytest.raises(RainException, match="blob"):
        tasks.make_directory([("a", "text")])
    assert not graph._things


def test_slice_directory(graph):
    d = directory()
    for make in (tasks.SliceDirectory, tasks.slice_directory):
        assert entries(make(d, "a/f")) == ("buildin/slice_directory", {"path": "a/f"}, ["a/f"], [False])
        assert entries(make(d, "a/")) == ("buildin/slice_directory", {"path": "a/"}, ["a/"], [True])
        with pytest.raises(TypeError, match="directory is expected"):
            make(blob("x"), "a")
    assert entries(tasks.SliceDirectory(d, "a/", "x"))[2:] == (["x"], [True])
    assert entries(tasks.SliceDirectory(d, "a", Output(content_type="json")))[2:] == (["a"], [False])
    assert tasks.slice_directory(d, "a", "json").output.content_type == "json"
    assert tasks.slice_directory(tasks.make_directory({"a": d}), "a/").output.is_directory()
    for path, output in (("a", OutputDir()), ("a/", Output())):
        with pytest.raises(TypeError):
            tasks.SliceDirectory(d, path, output)


def test_registration_order(graph):
    a, d = blob("a"), directory()
    for task_first, made in (
        (True, [tasks.Load("/a"), tasks.LoadDir("/a"), tasks.MakeDirectory({"a": a}), tasks.SliceDirectory(d, "a")]),
        (False, [tasks.open("/a"), tasks.open_dir("/a"), tasks.make_directory({}), tasks.slice_directory(d, "a")]),
    ):
        for task in made:
            assert task.output.id.id - task.id.id == (1 if task_first else -1)


def test_options_of_all(graph):
    a, d = blob("a"), directory()
    options = {"name": "n", "cpus": 0, "retries": 2, "priority": -1, "env": {"A": "B"}, "user_spec": {"u": [0, False]}}
    for task in (
        tasks.Concat([a], **options),
        tasks.Sleep(a, 0, **options),
        tasks.Load("/a", **options),
        tasks.LoadDir("/a", **options),
        tasks.Store(a, "/a", **options),
        tasks.MakeDirectory({}, **options),
        tasks.SliceDirectory(d, "a", **options),
        tasks.Execute("true", **options),
        tasks.concat([a], **options),
        tasks.sleep(0, a, **options),
        tasks.open("/a", **options),
        tasks.open_dir("/a", **options),
        tasks.export(a, "/a", **options),
        tasks.make_directory({}, **options),
        tasks.slice_directory(d, "a", **options),
        tasks.execute("true", **options),
    ):
        spec = task.spec
        assert (spec.name, spec.resources, spec.retries, spec.priority) == ("n", {"cpus": 0}, 2, -1)
        assert (spec.env, spec.user) == ({"A": "B"}, {"u": [0, False]})


def test_session_of_all(graph):
    other = Session(None, 2)
    with other.bind_only():
        a, d = blob("a"), directory()
    for task in (
        tasks.open("/a", session=other),
        tasks.LoadDir("/a", session=other),
        tasks.export(a, "/a", session=other),
        tasks.MakeDirectory({"a": a}, session=other),
        tasks.slice_directory(d, "a", session=other),
        tasks.Concat([a], session=other),
        tasks.sleep(0, a, session=other),
    ):
        assert task.session is other
        assert all(output.session is other for output in task.outputs)
    assert not graph._things


def test_loaded_files_are_not_cached(graph):
    for make in (lambda: tasks.Load("/a", cache=True), lambda: tasks.open_dir("/a", cache=True)):
        with pytest.raises(ValueError, match="cache"):
            make()
