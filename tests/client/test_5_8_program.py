"""`Program`: tasks by label."""

from __future__ import annotations

import pytest

from rain.client import Input, InputDir, Output, OutputDir, Program, RainException, blob, directory, tasks
from rain.client.session import Session


def test_needs_no_session():
    program = Program("true")
    with Session(None, 1).bind_only():
        assert isinstance(program(), tasks.Execute)
    with pytest.raises(RainException, match="No active session"):
        program()


def test_everything(graph):
    program = Program(
        ("prog", Input("x"), Output(), Input()),
        stdout="out",
        stdin="in",
        input_paths=["y", InputDir("d", path="sub/d")],
        output_paths=[OutputDir("made")],
        name="n",
        cpus=2,
        env={"A": "B"},
    )
    a, b, c, d, e = blob("a"), blob("b"), blob("c"), tasks.concat([]), directory()
    task = program(**{"in": a}, x=b, y=c, arg3=d, d=e, unknown="ignored")
    assert list(task.inputs) == [a, c, e, b, d.output]
    assert task.inputs.labels == ["in", "y", "d", "x", "arg3"]
    assert task.outputs.labels == ["out", "made", "arg2"]
    assert task.spec.config == {
        "args": ["prog", "x", "out_arg2", "arg3"],
        "in_paths": [{"path": path, "write": False} for path in ("+in", "y", "sub/d", "x", "arg3")],
        "out_paths": ["+out", "made", "out_arg2"],
        "shell": False,
    }
    assert (task.name, task.spec.resources, task.spec.env) == ("n", {"cpus": 2}, {"A": "B"})
    assert [output.id.id for output in task.outputs] == [task.id.id - 3, task.id.id - 2, task.id.id - 1]


def test_spellings():
    Program("true", input_files=["a"], output_files=["b"])
    with pytest.raises(TypeError, match="one parameter"):
        Program("true", input_files=["a"], input_paths=["a"])


def test_name_and_session_of_a_call(graph):
    other = Session(None, 2)
    program = Program("true", name="default")
    assert program(name="mine").name == "mine"
    assert program().name == "default"
    assert Program("true")().name is None
    assert program(session=other).session is other


def test_outputs_of_a_call(graph):
    program = Program(["prog", Output("a", content_type="text"), Output()], stdout=True)
    task = program(outputs=["s", Output(content_type="text-latin1"), Output("z", path="given")])
    assert task.outputs.labels == ["s", "a", "z"]
    assert [output.content_type for output in task.outputs] == [None, "text-latin1", None]
    assert task.spec.config["out_paths"] == ["+out", "out_a", "given"]
    assert task.spec.config["args"] == ["prog", "out_a", "given"]
    assert program(outputs=[None, "b", None]).outputs.labels == ["stdout", "b", "arg2"]
    assert program().outputs.labels == ["stdout", "a", "arg2"]
    assert Program("true", stdout=True)(output="one").output.label == "one"
    one_path = Program("true", output_paths=["result.txt"])(output="renamed")
    assert (one_path.output.label, one_path.spec.config["out_paths"]) == ("renamed", ["result.txt"])


def test_wrong_outputs_of_a_call(graph):
    program = Program(["prog", Output("a"), Output("b")])
    for outputs, error in (
        (["x"], RainException),
        (["b", None], KeyError),
        ([Output(encode="json"), None], ValueError),
        ([OutputDir("x"), None], TypeError),
        ([Output(path="/x"), None], ValueError),
        ([Output(path="out_b"), None], ValueError),
    ):
        with pytest.raises(error):
            program(outputs=outputs)
    with pytest.raises(TypeError):
        program(output="x", outputs=["x", "y"])
    assert not graph._things


def test_a_label_that_is_a_keyword(graph):
    source = blob("x")
    program = Program(["cat", Input("name"), Input("outputs")], stdout=True, name="default")
    task = program(name=source, outputs=source, output="out")
    assert (task.name, len(task.inputs), task.output.label) == ("default", 2, "out")


def test_one_input_at_two_paths(graph):
    program = Program(["cat", Input("a"), Input("a", path="copy", write=True)], stdin="a")
    task = program(a=blob("x"))
    assert len(task.inputs) == 3
    assert task.inputs.labels == ["a", None, None]
    assert task.spec.config["in_paths"][2] == {"path": "copy", "write": True}


def test_wrong_values_of_a_call(graph):
    program = Program(["ls", InputDir("d"), Input("x")])
    x, d = blob("x"), directory()
    before = len(graph._things)
    with pytest.raises(KeyError, match="'x'"):
        program(d=d)
    with pytest.raises(TypeError, match="directory"):
        program(d=x, x=x)
    with pytest.raises(TypeError, match="blob"):
        program(d=d, x=d)
    with pytest.raises(RainException, match="blob\\(\\)"):
        program(d=d, x="text")
    assert len(graph._things) == before


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"args": ["cat", Input("a", load=True)]}, ValueError, "load="),
        ({"args": ["cat", Output("a", encode="json")]}, ValueError, "encode="),
        ({"args": "cat", "stdin": Input()}, ValueError, "label"),
        ({"args": "cat", "input_paths": [Input(path="p")]}, ValueError, "label"),
        ({"args": "cat", "output_paths": [Output(path="p")]}, ValueError, "label"),
        ({"args": ["cat", 1]}, TypeError, "argument of a program"),
        ({"args": "cat", "stdin": 1}, TypeError, "label"),
        ({"args": "cat", "input_paths": "abc"}, TypeError, "sequence"),
        ({"args": "cat", "stdin": InputDir("d")}, TypeError, "must be a blob"),
        ({"args": ["cat", Input("a"), Input("b", path="a")]}, ValueError, "Two inputs"),
        ({"args": ["cat", Input("/a")]}, ValueError, "relative"),
        ({"args": ["cat", Output("a")], "stdout": "a"}, KeyError, "Duplicate"),
        ({"args": "cat", "retries": -1}, ValueError, "retries"),
    ],
)
def test_refusals(arguments, error, match):
    with pytest.raises(error, match=match):
        Program(**arguments)


def test_data_objects_are_refused(graph):
    source = blob("x")
    with pytest.raises(ValueError, match="has a data object"):
        Program(["cat", Input("a", dataobj=source)])
    with pytest.raises(TypeError):
        Program(["cat", source])
    with pytest.raises(TypeError):
        Program("cat", stdin=source)


def test_options(graph):
    program = Program("true", name="a", cpus=3)
    changed = program.options(name="b", retries=2, cpus=1)
    assert isinstance(changed, Program)
    assert [made().name for made in (program, changed)] == ["a", "b"]
    assert (changed().spec.retries, changed().spec.resources, changed(name="c").spec.retries) == (2, {"cpus": 1}, 2)
    assert (program().spec.retries, program().spec.resources) == (0, {"cpus": 3})
    other = Session(None, 2)
    assert program.options(session=other)().session is other
    with pytest.raises(TypeError):
        program.options(unknown=1)


def test_given_inputs_and_outputs_are_not_changed(graph):
    source, output = Input(), Output()
    program = Program(["cp", source, output], stdout=output)
    for _ in range(2):
        program(arg1=blob("x"), outputs=["a", "b"])
    assert (source.label, source.path, output.label, output.path) == (None, None, None, None)


def test_shell(graph):
    task = Program(["cat", "<", Input("a")], shell=True)(a=blob("x"))
    assert (task.spec.config["args"], task.spec.config["shell"]) == (["cat", "<", "a"], True)
