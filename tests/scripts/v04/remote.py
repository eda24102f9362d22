"""Python functions whose inputs and outputs are told by annotations."""

import sys

from rain.client import Client, Input, Output, OutputDir, TaskException, blob, remote
from rain.common import LabeledList
from rain.executor.context import get_context


@remote
def plain(ctx) -> Output(content_type="json"):
    """Bare decorator; the output's type is declared."""
    return b'{"plain": 1}'


@remote()
def scale(ctx, data: Input(load=True), factor=2) -> Output("scaled", encode="pickle"):
    """Loaded input, encoded output."""
    return [factor * number for number in data]


@remote(name="two", cpus=2)
def spread(ctx, numbers: Input(load=True)) -> LabeledList(pairs=[("low", Output(encode="json")), ("high", Output())]):
    """Two labelled outputs."""
    return {"low": min(numbers), "high": ctx.blob(str(max(numbers)))}


@remote()
def nothing(ctx, *args: Input(load=True), **kwargs: Input(load=True)) -> 0:
    """No output; all arguments are checked."""
    assert args == (1, [2]), args
    assert kwargs == {"three": 3, "four": "x"}, kwargs


@remote(auto_load=True)
def nested(ctx, structure):
    """Data objects in the middle of a structure."""
    return f"{structure['a'][0]}-{structure['b']()}"


@remote(outputs=["a", OutputDir("tree")])
def files(ctx, text):
    """A file and a directory."""
    import os

    os.mkdir("d")
    text.write("d/written")
    text.link("linked")
    with open("linked") as file:
        read = file.read()
    ctx.debug("read {} in {name}", len(read), name=get_context().spec.name)
    return read, ctx.stage_directory("d")


@remote()
def cached(ctx):
    """The function object is one and the same in all calls of its process."""
    function = ctx.function
    function.calls = getattr(function, "calls", 0) + 1
    return str(function.calls)


@remote()
def fails(ctx, kind):
    """Raises."""
    raise {"value": ValueError, "key": KeyError}[kind]("wrong argument")


with Client(sys.argv[1], int(sys.argv[2])) as client:
    with client.new_session() as session:
        data = blob([1, 2, 3], encode="json")
        first = plain()
        second = scale(data)
        third = spread(second, name="spread/low")
        fourth = nothing(blob(1, encode="json"), [2], three=blob(3, encode="pickle"), four="x")
        low = third.outputs["low"]
        fifth = nested({"a": [second], "b": lambda: low})
        sixth = files(blob("text of the file"), outputs=["renamed", None])
        typed = scale(data, factor=3, output=Output("other", encode="cloudpickle"))
        print(first.output.content_type, second.output.label, [o.label for o in sixth.outputs], typed.output.label)
        print(third.name, third.spec.resources, list(fourth.outputs), first.task_type, [o.label for o in first.inputs])
        session.keep_all()
        session.submit()
        session.wait_all()
        print(first.output.fetch().load(), second.output.fetch().load(), typed.output.fetch().load())
        print(third.outputs["low"].fetch().load(), third.outputs["high"].fetch().get_str())
        print(fifth.output.fetch().get_str())
        print(sixth.outputs["renamed"].fetch().get_str(), sixth.outputs["tree"].fetch().size)
        sixth.update()
        print(sixth.info.debug)

    with client.new_session() as session:
        previous = [cached()]
        for _ in range(4):
            previous.append(cached())
        session.keep_all()
        session.submit()
        session.wait_all()
        print(sum(int(task.output.fetch().get_str()) >= 1 for task in previous))

    for kind in ("value", "key"):
        with client.new_session() as session:
            task = fails(kind)
            session.submit()
            try:
                task.wait()
            except TaskException as error:
                print(type(error.cause).__name__, "in fails" in error.message, error.task.name)

    with client.new_session() as session:
        for call in (lambda: scale(), lambda: scale(data, wrong=1), lambda: remote(5), lambda: plain(output=[1])):
            try:
                call()
            except Exception as error:
                print(type(error).__name__)
