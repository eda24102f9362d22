"""`Execute`: arguments, paths, configs, refusals."""

from __future__ import annotations

import pytest

from rain.client import Input, InputDir, Output, OutputDir, RainException, Task, blob, directory, tasks
from rain.client.submit import SubmitPacker
from rain.common.packing import unpack


def config(task):
    return task.spec.config


def in_paths(task):
    return [entry["path"] for entry in config(task)["in_paths"]]


def test_least(graph):
    for make in (tasks.Execute, tasks.execute):
        task = make("echo 'a b' c")
        assert isinstance(task, tasks.Execute)
        assert task.task_type == "buildin/run"
        assert config(task) == {"args": ["echo", "a b", "c"], "in_paths": [], "out_paths": [], "shell": False}
        assert (len(task.inputs), len(task.outputs), task.name) == (0, 0, None)


def test_order_of_inputs_and_outputs(graph):
    a, b, c, d = (blob(name, name) for name in "abcd")
    task = tasks.Execute(
        ("prog", Input("x", dataobj=c), Output("o"), d, Output(size_hint=3, content_type="json")),
        stdout=Output(content_type="text"),
        stdin=a,
        input_paths=[Input("y", dataobj=b, path="sub/y", write=True)],
        output_paths=["made", OutputDir("d", path="deep/d")],
    )
    assert list(task.inputs) == [a, b, c, d]
    assert task.inputs.labels == [None, "y", "x", None]
    assert task.outputs.labels == ["stdout", "made", "d", "o", "arg4"]
    assert config(task) == {
        "args": ["prog", "x", "out_o", "input-3", "out_arg4"],
        "in_paths": [
            {"path": "+in", "write": False},
            {"path": "sub/y", "write": True},
            {"path": "x", "write": False},
            {"path": "input-3", "write": False},
        ],
        "out_paths": ["+out", "made", "deep/d", "out_o", "out_arg4"],
        "shell": False,
    }
    assert [output.content_type for output in task.outputs] == ["text", None, None, None, "json"]
    assert [output.is_directory() for output in task.outputs] == [False, False, True, False, False]
    assert task.outputs["arg4"].spec.size_hint == 3


def test_outputs_are_registered_before_the_task(graph):
    for make in (tasks.Execute, tasks.execute):
        task = make("true", stdout=True)
        assert task.output.id.id + 1 == task.id.id


def test_config_is_sent(graph):
    tasks.Execute("true")
    (chunk,) = SubmitPacker(graph, {}).messages(graph._things)
    assert unpack(chunk.args[0]) == {"args": ["true"], "in_paths": [], "out_paths": [], "shell": False}


@pytest.mark.parametrize("spelling", ["paths", "files"])
def test_both_spellings(graph, spelling):
    given = {f"input_{spelling}": [Input("x", dataobj=blob("x"))], f"output_{spelling}": ["y"]}
    task = tasks.execute("cp x y", **given)
    assert (in_paths(task), config(task)["out_paths"]) == (["x"], ["y"])


@pytest.mark.parametrize("kind", ["input", "output"])
def test_both_spellings_at_once(graph, kind):
    with pytest.raises(TypeError, match=f"{kind}_paths and {kind}_files"):
        tasks.Execute("true", **{f"{kind}_paths": ["a"], f"{kind}_files": []})


@pytest.mark.parametrize(
    ("stdout", "label"), [(True, "stdout"), ("x", "x"), (Output(), "stdout"), (Output("y", path="z"), "y")]
)
def test_stdout(graph, stdout, label):
    task = tasks.Execute("true", stdout=stdout)
    assert task.outputs.labels == [label]
    assert config(task)["out_paths"] == ["+out"]


def test_stdin(graph):
    source = blob("x")
    produced = tasks.concat([source])
    for stdin, dataobj in ((source, source), (produced, produced.output), (Input("i", dataobj=source), source)):
        task = tasks.Execute("cat", stdin=stdin)
        assert list(task.inputs) == [dataobj]
        assert in_paths(task) == ["+in"]


def test_generated_names_step_over_given_ones(graph):
    source = blob("x")
    task = tasks.Execute(
        ["cat", source, Input("input-1", dataobj=source), Input(path="./input-2", dataobj=source), source],
        input_paths=[Input(dataobj=source)],
    )
    assert in_paths(task) == ["input-0", "input-3", "input-1", "./input-2", "input-4"]
    many = tasks.Execute(["cat", *[source] * 50])
    assert len(set(in_paths(many))) == 50
    assert config(many)["args"] == ["cat", *in_paths(many)]


def test_directories_as_inputs(graph):
    tree = directory()
    task = tasks.Execute(["ls", tree, InputDir("d", dataobj=tree)])
    assert config(task)["args"] == ["ls", "input-0", "d"]


def test_one_object_twice_under_a_label(graph):
    source, other = blob("x"), blob("y")
    task = tasks.Execute("true", input_paths=[Input("a", dataobj=source), Input("a", dataobj=source, path="b")])
    assert task.inputs.labels == ["a", None]
    with pytest.raises(KeyError, match="Duplicate label"):
        tasks.Execute("true", input_paths=[Input("a", dataobj=source), Input("a", dataobj=other, path="b")])


def test_shell(graph):
    source = blob("x")
    assert config(tasks.Execute("a '$B' | c", shell=True))["args"] == ["a '$B' | c"]
    task = tasks.Execute(("echo", "$HOME", source), shell=True)
    assert (config(task)["args"], config(task)["shell"]) == (["echo", "$HOME", "input-0"], True)


def test_inputs_and_outputs_are_not_changed(graph):
    source = Input(dataobj=blob("x"))
    output = Output()
    for _ in range(2):
        task = tasks.Execute(["cp", source, output, Output("o")], stdout=output)
        assert task.outputs.labels == ["stdout", "arg2", "o"]
    assert (source.label, source.path, output.label, output.path) == (None, None, None, None)


def test_an_output_may_be_an_input(graph):
    task = tasks.Execute("true", input_paths=[Input("x", dataobj=blob("x"))], output_paths=["x", "./y"])
    assert (in_paths(task), config(task)["out_paths"]) == (["x"], ["x", "./y"])


def test_options(graph):
    task = tasks.Execute("true", cpus=2, name="n", env={"A": None}, timeout="1 min", retries=3, user_spec={"u": 1})
    spec = task.spec
    assert (spec.resources, spec.name, spec.env, spec.timeout) == ({"cpus": 2}, "n", {"A": None}, 60.0)
    assert (spec.retries, spec.user) == (3, {"u": 1})


def test_session_option(graph):
    from rain.client.session import Session

    other = Session(None, 2)
    task = tasks.execute("true", stdout=True, session=other)
    assert task.session is task.output.session is other


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda x: {"args": "true", "output_paths": [Output("a", encode="json")]}, ValueError, "encode="),
        (lambda x: {"args": "true", "stdout": Output("a", encode="json")}, ValueError, "encode="),
        (lambda x: {"args": ["true", Input("a", dataobj=x, load=True)]}, ValueError, "load="),
        (lambda x: {"args": ["true", Input("a", dataobj=x, load=False)]}, ValueError, "load="),
        (lambda x: {"args": "true", "output_paths": [Output(path="p")]}, ValueError, "label"),
        (lambda x: {"args": ["true", Input("a")]}, ValueError, "needs a data object"),
        (lambda x: {"args": "true", "stdin": Input("a")}, ValueError, "needs a data object"),
        (lambda x: {"args": "true", "input_paths": [Input("a")]}, ValueError, "needs a data object"),
        (
            lambda x: {"args": ["true", Input("a", dataobj=x), Input("b", path="./a", dataobj=x)]},
            ValueError,
            "Two inputs",
        ),
        (lambda x: {"args": "true", "output_paths": ["a", Output("b", path="a")]}, ValueError, "Two outputs"),
        (lambda x: {"args": "true", "output_paths": ["/a"]}, ValueError, "relative"),
        (lambda x: {"args": "true", "output_paths": ["a/../../b"]}, ValueError, "leads out"),
        (lambda x: {"args": ["cat", Input("../a", dataobj=x)]}, ValueError, "leads out"),
        (lambda x: {"args": ["cat", Input("a", path="/a", dataobj=x)]}, ValueError, "relative"),
        (lambda x: {"args": ["cat", Input("a", path=".", dataobj=x)]}, ValueError, "sandbox itself"),
        (lambda x: {"args": ["cat", Input("+in", dataobj=x)]}, ValueError, "reserved"),
        (lambda x: {"args": "true", "output_paths": ["+out"]}, ValueError, "reserved"),
        (lambda x: {"args": "true", "output_paths": ["+err/x"]}, ValueError, "reserved"),
        (lambda x: {"args": "true", "output_paths": [""]}, ValueError, "not a path"),
        (lambda x: {"args": ""}, ValueError, "no program"),
        (lambda x: {"args": [], "shell": True}, ValueError, "no program"),
        (lambda x: {"args": ["sleep", 1]}, TypeError, "must be a str, an input or an output"),
        (lambda x: {"args": ["cat", b"a"]}, TypeError, "must be a str, an input or an output"),
        (lambda x: {"args": ["cat", None]}, TypeError, "must be a str, an input or an output"),
        (lambda x: {"args": x}, TypeError, "args must be"),
        (lambda x: {"args": 5}, TypeError, "args must be"),
        (lambda x: {"args": "true", "output_paths": "abc"}, TypeError, "must be a sequence"),
        (lambda x: {"args": "true", "input_paths": Input("a", dataobj=x)}, TypeError, "must be a sequence"),
        (lambda x: {"args": "true", "output_paths": [1]}, TypeError, "Output"),
        (lambda x: {"args": "true", "stdout": OutputDir("d")}, TypeError, "blob is expected"),
        (lambda x: {"args": "true", "stdin": directory()}, TypeError, "must be a blob"),
        (lambda x: {"args": "true", "stdin": "text"}, RainException, "blob"),
        (lambda x: {"args": "true", "input_paths": ["text"]}, RainException, "blob"),
        (lambda x: {"args": ["true", Output("a")], "stdout": "a"}, KeyError, "Duplicate label"),
        (lambda x: {"args": "true", "unknown": 1}, TypeError, "unknown"),
    ],
)
def test_refusals_leave_nothing_behind(graph, make, error, match):
    arguments = make(blob("x"))
    before = len(graph._things)
    with pytest.raises(error, match=match):
        tasks.Execute(**arguments)
    assert len(graph._things) == before


def test_generic_form(graph):
    task = Task("!run", {"args": ["true"]})
    assert (task.task_type, task.spec.task_type) == ("!run", "!run")
