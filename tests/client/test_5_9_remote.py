"""Remote functions: declaring, calling, packing of arguments."""

import pickle
import threading

import msgpack
import pytest

from rain.client import (
    Input,
    InputDir,
    Output,
    OutputDir,
    RainException,
    Remote,
    Task,
    blob,
    directory,
    pickled,
    remote,
)
from rain.client.pycode import MAX_PICKLE
from rain.common import LabeledList
from rain.common.packing import unpack_args
from rain.executor import executor


@pytest.fixture
def references(monkeypatch):
    """Data objects in unpickled arguments become the arguments of their unpickling call."""

    def unpickle_input_object(*arguments):
        return ("input", *arguments)

    unpickle_input_object.__module__ = executor.__name__
    unpickle_input_object.__qualname__ = "unpickle_input_object"
    monkeypatch.setattr(executor, "unpickle_input_object", unpickle_input_object)


def arguments_of(task):
    return unpack_args(task._args)


def test_bare_and_called(graph):
    @remote
    def bare(ctx, a):
        """Doc."""

    @remote(outputs=2, name="given", cpus=3)
    def called(ctx, a):
        pass

    assert isinstance(bare, Remote)
    assert isinstance(called, Remote)
    assert (bare.default_name, bare.cpus, len(bare.outputs), bare.__doc__) == ("bare", 1, 1, "Doc.")
    assert (called.default_name, called.cpus, len(called.outputs)) == ("given", 3, 2)
    assert bare.fn.__name__ == "bare"
    task = called(1)
    assert (task.name, task.spec.resources, task.task_type) == ("given", {"cpus": 3}, "py/")
    assert Remote(bare.fn, outputs=0)(1).outputs == LabeledList()


def test_ids_and_function_blob(graph):
    @remote
    def f(ctx):
        pass

    first, second = f(), f()
    function = first.inputs[0]
    assert [function.id.id, first.output.id.id, first.id.id] == [10, 11, 12]
    assert [second.output.id.id, second.id.id] == [13, 14]
    assert second.inputs[0] is function
    assert graph._static_data == {f.fn: function}
    assert (function.label, function.content_type, function.is_kept()) == ("f", "cloudpickle", True)
    assert callable(pickle.loads(function.data))
    assert first._shape is second._shape


def test_outputs_by_argument(graph):
    def f(ctx):
        pass

    assert Remote(f).outputs.outputs.labels == ["out0"]
    assert Remote(f, outputs=["a", Output("b"), OutputDir()])().outputs.labels == ["a", "b", "out2"]
    labelled = Remote(f, outputs=LabeledList(pairs=[("x", Output(encode="json"))]))()
    assert labelled.outputs["x"].content_type == "json"
    assert labelled.spec.config["encode_outputs"] == ["json"]
    assert Remote(f, outputs=Output("one"))().output.label == "one"


def test_outputs_by_annotation(graph):
    def none(ctx) -> 0:
        pass

    def two(ctx) -> 2:
        pass

    def several(ctx) -> ("a", Output("b", content_type="json")):  # noqa: F821
        pass

    def one(ctx) -> OutputDir("d"):
        pass

    def ordinary(ctx) -> bytes:
        pass

    assert len(Remote(none).outputs) == 0
    assert Remote(two)().outputs.labels == ["out0", "out1"]
    assert Remote(several)().outputs["b"].content_type == "json"
    assert Remote(one)().output.is_directory()
    assert len(Remote(ordinary).outputs) == 1
    with pytest.raises(ValueError, match="twice"):
        Remote(two, outputs=2)


def test_annotations_that_cannot_be_evaluated(graph):
    def f(ctx, a):
        pass

    f.__annotations__["a"] = "OnlyForTypeCheckers"
    assert Remote(f)(1).name == "f"


def test_inputs(graph):
    def f(ctx, a: Input(load=True, content_type="json"), b, *args: Input(load=False), **kwargs: Input(load=True)):
        pass

    one = Remote(f, inputs={"b": Input(content_type="text")}, auto_load=True)
    assert set(one.inputs) == {"a", "b", "args", "kwargs"}
    assert [one.inputs[name].load for name in ("a", "b", "args", "kwargs")] == [True, True, False, True]
    with pytest.raises(ValueError, match="declared twice"):
        Remote(f, inputs={"a": Input()})
    with pytest.raises(ValueError, match="does not have"):
        Remote(f, inputs={"c": Input()})


def test_declared_inputs_are_not_changed(graph):
    shared = Input()
    Remote(lambda ctx, a: None, inputs={"a": shared}, auto_load=True)
    assert shared.load is None


def test_auto_encode(graph):
    outputs = [Output("a"), Output("b", encode="json"), OutputDir("d")]
    f = Remote(lambda ctx: None, outputs=outputs, auto_encode="pickle")
    task = f()
    assert [output.content_type for output in task.outputs] == ["pickle", "json", None]
    assert task.spec.config["encode_outputs"] == ["pickle", "json", None]


def test_plain_arguments(graph):
    f = Remote(lambda ctx, *args, **kwargs: None)
    args = (1, 2.5, "text", b"bytes", True, None, 1 << 63)
    assert arguments_of(f(*args, k=-1)) == (list(args), {"k": -1})
    large = (1 << 70, -(1 << 64), "\ud800")
    assert arguments_of(f(*large)) == (list(large), {})
    containers = ([1], (2,), {"a": {3}}, bytearray(b"x"))
    assert arguments_of(f(*containers)) == (list(containers), {})
    assert type(arguments_of(f(True))[0][0]) is bool


def test_simple_signature_with_large_int(graph):
    f = Remote(lambda ctx, a: None)
    assert arguments_of(f(1 << 70)) == ([1 << 70], {})
    assert arguments_of(f("\ud800")) == (["\ud800"], {})


def test_config_in_the_spec(graph):
    import base64

    task = Remote(lambda ctx, a, b: None)(1, b=[2])
    config = task.spec.config
    assert [pickle.loads(base64.b64decode(one)) for one in config["args"]] == [1, [2]]
    assert config["encode_outputs"] == [None]


def test_keyword_arguments_are_bound(graph):
    f = Remote(lambda ctx, a, b=2, *, c=3: None)
    assert arguments_of(f(b=5, a=1)) == ([1, 5], {})
    assert arguments_of(f(1, c=4)) == ([1], {"c": 4})


def test_data_objects_as_arguments(graph, references):
    f = Remote(lambda ctx, a, b, *args, **kwargs: None, inputs={"b": Input(load=True, content_type="json")})
    source, task = blob("x"), Task("a/b", outputs=1)
    call = f(source, task, 3, source, k=task)
    args, kwargs = arguments_of(call)
    assert args == [
        ("input", "a{0}", 1, None, None),
        ("input", "b{0}", 2, True, "json"),
        3,
        ("input", "args[1]{0}", 3, None, None),
    ]
    assert kwargs == {"k": ("input", "k{0}", 4, None, None)}
    assert call.inputs.labels == [None, "a{0}", "b{0}", "args[1]{0}", "k{0}"]
    assert list(call.inputs)[1:] == [source, task.output, source, task.output]


def test_data_objects_inside_arguments(graph, references):
    f = Remote(lambda ctx, a, b=None: None)
    x, y = blob("x"), pickled(1)

    class Holder:
        def __init__(self, value):
            self.value = value

    holder = Holder({"deep": (y,)})
    call = f([x, {"k": Task("a/b", outputs=1)}, x, holder], lambda: x)
    args, _ = arguments_of(call)
    assert args[0][0] == args[0][2] == ("input", "a{0}", 1, None, None)
    assert args[0][1] == {"k": ("input", "a{1}", 2, None, None)}
    assert args[0][3].value == {"deep": (("input", "a{2}", 3, None, None),)}
    assert args[1]() == ("input", "b{0}", 4, None, None)
    assert call.inputs.labels == [None, "a{0}", "a{1}", "a{2}", "b{0}"]


def test_load_of_keyword_arguments(graph, references):
    def f(ctx, **kwargs: Input(load=True)):
        pass

    assert arguments_of(Remote(f)(k=blob("x")))[1] == {"k": ("input", "k{0}", 1, True, None)}


def test_handmade_reference_equals_the_pickled_one(graph):
    from rain.client.embedding import InputCollector, collecting, reference_pickle
    from rain.executor.executor import unpickle_input_object

    source = blob("x")
    collector = InputCollector()
    collector.begin("a", True, "json")
    with collecting(collector):
        pickled_one = pickle.dumps(source, 5)
    arguments = ("a{0}", 1, True, "json")
    assert reduced(pickled_one) == reduced(reference_pickle(*arguments)) == (unpickle_input_object, arguments)


def reduced(blob_):
    """Function and arguments of a pickle that is one call."""
    calls = []

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            import importlib

            function = getattr(importlib.import_module(module), name)
            return lambda *arguments: calls.append((function, arguments))

    import io

    Unpickler(io.BytesIO(blob_)).load()
    return calls[0]


def test_outputs_at_call_time(graph):
    f = Remote(lambda ctx: None, outputs=[Output("a", size_hint=2), Output("b", encode="json")])
    task = f(outputs=["renamed", None])
    assert task.outputs.labels == ["renamed", "b"]
    assert task.outputs[0].spec.size_hint == 2
    one = Remote(lambda ctx: None)
    assert one(output="x").output.label == "x"
    assert one(output=Output(encode="pickle")).output.content_type == "pickle"
    assert one().output.label == "out0"
    with pytest.raises(RainException, match="3 outputs given, 2 are declared"):
        f(outputs=[None, None, None])
    with pytest.raises(KeyError, match="Duplicate"):
        f(outputs=["b", None])
    with pytest.raises(TypeError, match="together"):
        one(output="a", outputs=["b"])


def test_reserved_keywords_that_are_parameters(graph):
    f = Remote(lambda ctx, name, output=None: None)
    task = f(name="for the function", output=3)
    assert task.name == "<lambda>"
    assert arguments_of(task)[0] == ["for the function", 3]
    assert f.options(name="n")(1).name == "n"
    assert Remote(lambda ctx: None)(name="call").name == "call"


def test_options(graph):
    f = Remote(lambda ctx: None, retries=1, cpus=2)
    changed = f.options(retries=3, priority=4, name="new", session=graph)
    assert (f().spec.retries, f.cpus) == (1, 2)
    spec = changed().spec
    assert (spec.retries, spec.priority, spec.name, spec.resources) == (3, 4, "new", {"cpus": 2})
    with pytest.raises(TypeError):
        f.options(wrong=1)


def test_failed_call_leaves_nothing(graph):
    f = Remote(lambda ctx, a: None)
    with pytest.raises(TypeError):
        f()
    with pytest.raises(RainException, match="cannot be pickled"):
        f(threading.Lock())
    assert not graph._things
    assert not graph._static_data


def test_largest_argument(graph):
    f = Remote(lambda ctx, a: None)
    assert f(b"x" * MAX_PICKLE).name == "<lambda>"


def test_objects_of_main_go_by_value(graph):
    f = Remote(lambda ctx, a: None)

    class Local:
        pass

    Local.__module__ = "__main__"
    value = arguments_of(f(Local()))[0][0]
    assert type(value).__name__ == "Local"


def test_arguments_are_packed_as_the_contract_says(graph):
    task = Remote(lambda ctx, a, b: None)(1, (2,))
    args, kwargs = msgpack.unpackb(task._args)
    assert args[0] == 1
    assert (args[1].code, pickle.loads(args[1].data)) == (1, (2,))
    assert kwargs == {}


def test_kinds_of_declared_inputs(graph):
    def f(ctx, a: InputDir, b: Input, c):
        pass

    made = Remote(f, inputs={})
    x, d = blob("x"), directory()
    before = len(graph._things)
    for arguments in ((x, x, x), (d, d, x), ([d, x], x, x), (d, {"k": d}, x)):
        with pytest.raises(TypeError, match="needs a"):
            made(*arguments)
    assert len(graph._things) == before
    task = made([d, 1], x, d)
    assert task.inputs.labels == [None, "a{0}", "b{0}", "c{0}"]
    assert len(made(d, x, x).inputs) == 4


def test_outputs_as_labelled_list(graph):
    outputs = LabeledList(pairs=[("a", Output(content_type="json")), (None, OutputDir()), ("c", "given")])
    for f in (Remote(lambda ctx: None, outputs=outputs),):
        task = f()
        assert task.outputs.labels == ["a", "out1", "given"]
        assert [output.is_directory() for output in task.outputs] == [False, True, False]
    assert outputs[0].label is None

    def annotated(ctx) -> LabeledList(pairs=[("x", Output()), ("y", OutputDir())]):
        pass

    assert Remote(annotated)().outputs.labels == ["x", "y"]


def test_directory_outputs_of_a_call(graph):
    f = Remote(lambda ctx: None, outputs=[OutputDir("d"), "b"])
    task = f(outputs=["renamed", None])
    assert (task.outputs.labels, task.outputs[0].is_directory()) == (["renamed", "b"], True)
    with pytest.raises(TypeError, match="blob and directory"):
        f(outputs=[Output("x"), None])
