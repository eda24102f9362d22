"""The context and the inputs of remote functions, in a real executor."""

import os

import pytest

from rain.common import RainException
from rain.common.failure import Failure
from rain.common.packing import pack, unpack
from rain.executor.context import MAX_DEBUG, Context, get_context
from rain.executor.executor import unpickle_input_object
from tests.executor.driver import Input, plain, remote


def json_of(row):
    assert len(row) == 6, row[4]["message"]
    import json

    return json.loads(row[5][0][0])


def message_of(row):
    return Failure.from_map(row[4]).message


JSON = {"encode": ["json"]}


@pytest.fixture
def context(tmp_path):
    return Context(lambda: None, None, 3, None)


def test_spec(executor):
    template = remote(
        {"label": "out"},
        **JSON,
        name="n",
        user={"u": {"zero": 0}},
        resources={"cpus": 2},
        labels=["", "first"],
    )

    def function(ctx, a):
        spec = ctx.spec
        return [
            list(spec.id), spec.task_type, spec.name, spec.user, spec.resources, spec.config, ctx.attempt,
            [[i.id.id, i.label] for i in spec.inputs], len(spec.outputs), ctx.function is not None,
        ]  # fmt: skip

    row = executor.call(template, function, Input(1), inputs=[[11, None, None, b""]], run=2)
    assert json_of(row) == [
        [1, row[0]], "py/", "n", {"u": {"zero": 0}}, {"cpus": 2}, {"encode_outputs": ["json"]}, 2,
        [[10, ""], [11, "first"]], 1, True,
    ]  # fmt: skip


def test_info_debug_and_attributes(executor):
    def function(ctx):
        ctx.debug("one")
        ctx.debug("two {} {x}", 2, x=3)
        ctx.info.user["a"] = {"b": [False, 0]}
        ctx.attributes["c"] = 1
        return ctx.attributes["given"]

    row = executor.call(remote(**JSON, user={"given": "g"}), function)
    assert json_of(row) == "g"
    assert unpack(row[4]) == {"user": {"a": {"b": [False, 0]}, "c": 1}, "debug": "one\ntwo 2 3"}


def test_a_failure_keeps_the_debug_stream(executor):
    def function(ctx):
        ctx.debug("before")
        raise ValueError("x")

    assert executor.call(remote(), function)[4]["debug"] == "before"


def test_get_context_is_the_same_anywhere(executor):
    def function(ctx):
        import threading

        from rain.executor.context import get_context

        found = []
        thread = threading.Thread(target=lambda: found.append(get_context() is ctx))
        thread.start()
        thread.join()
        return found

    assert json_of(executor.call(remote(**JSON), function)) == [True]


def test_get_context_in_plain_functions(executor):
    def function():
        from rain.executor.context import get_context

        context = get_context()
        context.debug("seen")
        return context.attempt

    row = executor.call(plain(), function, run=6)
    assert unpack(row[4]) == {"debug": "seen"}
    row = executor.call(plain(), None)
    assert unpack(row[4]) == {"debug": "seen"}


def test_outside_of_a_task():
    with pytest.raises(RainException, match="running task only"):
        get_context()
    with pytest.raises(RainException, match="in an executor only"):
        unpickle_input_object("a", 1, False, None)


def test_inputs_are_instances_with_spec_and_info(executor):
    spec = pack({"label": "l", "content_type": "text", "user": {"s": 1}})
    info = pack({"content_type": "text-latin-1", "user": {"i": 2}})

    def function(ctx, a):
        return [
            a.get_bytes().hex(), a.content_type, a.spec.label, a.spec.user, a.info.user, a.size, a.info.size,
            list(a.object_id), a.attributes["s"], a.load(), type(a).__module__,
        ]  # fmt: skip

    row = executor.call(remote(**JSON), function, Input(1), inputs=[[11, spec, info, b"\xe9"]])
    assert json_of(row) == [
        "e9", "text-latin-1", "l", {"s": 1}, {"i": 2}, 1, 1, [1, 11], 1, "é", "rain.common.data_instance",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_load_and_content_types(executor, tmp_path, kind):
    value = b'{"a": 1}'
    if kind == "file":
        (tmp_path / "f").write_bytes(value)
        value = str(tmp_path / "f")
    rows = {
        "typed": [11, None, pack({"content_type": "json"}), value],
        "untyped": [12, None, None, value],
    }
    function = lambda ctx, a: a if isinstance(a, dict) else [a.content_type, a.size]  # noqa: E731

    def call(name, **more):
        executor.drop_function()
        return executor.call(remote(**JSON), function, Input(1, name="p", **more), inputs=[rows[name]])

    assert json_of(call("typed", load=True)) == {"a": 1}
    assert json_of(call("typed", content_type="json")) == ["json", 8]
    assert json_of(call("untyped", load=True, content_type="json")) == {"a": 1}
    assert json_of(call("untyped")) == [None, 8]
    message = message_of(call("typed", content_type="text"))
    assert "Argument 'p' must have content type 'text'" in message
    assert "1/11 has 'json'" in message
    assert "content type is not known" in message_of(call("untyped", load=True))


def test_passing_an_input_through(executor):
    info = pack({"content_type": "json", "user": {"k": 1}})

    def function(ctx, a):
        a.info.user["added"] = True
        return a

    row = executor.call(remote({}), function, Input(1), inputs=[[11, None, info, b"[]"]])
    ((value, out_info, size),) = row[5]
    assert (value, size) == (11, 2)
    assert unpack(out_info) == {"content_type": "json", "user": {"k": 1, "added": True}}


def test_directories(executor, tmp_path):
    from rain.common import fs

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"123")
    spec = pack({"data_type": "dir"})
    tar = fs.pack_directory(tmp_path / "tree")

    def function(ctx, a):
        import os

        a.write("copy")
        with open("copy/f", "ab") as file:
            file.write(b"4")
        os.mkdir("copy/empty")
        return ctx.stage_directory("copy")

    row = executor.call(remote({"data_type": "dir"}), function, Input(1), inputs=[[11, spec, None, tar]])
    ((data, _, size),) = row[5]
    assert size == 4
    fs.unpack_directory(data, tmp_path / "out")
    assert (tmp_path / "out" / "f").read_bytes() == b"1234"
    assert (tmp_path / "out" / "empty").is_dir()


def test_the_cwd_is_fresh_for_every_call(executor):
    def function(ctx):
        import os

        found = os.listdir()
        os.makedirs("a/b")
        open("f", "w").close()
        ctx.stage_file("f")
        where = os.getcwd()
        os.chdir("/")
        return [found, where]

    executor.batch(remote(**JSON), function, [()] * 3)
    rows, _ = executor.results(3)
    assert [json_of(row) for row in rows] == [[[], str(executor.root / "task")]] * 3
    assert os.listdir(executor.root / "stage") == []


def test_links_never_reach_the_store(executor, tmp_path):
    stored = tmp_path / "stored"
    stored.write_bytes(b"kept")
    stored.chmod(0o444)

    def function(ctx, a):
        a.link("x")
        try:
            with open("x", "ab") as file:
                file.write(b"!")
        except PermissionError:
            return "refused"
        return "written"

    row = executor.call(remote(**JSON), function, Input(1), inputs=[[11, None, None, str(stored)]])
    assert json_of(row) == ("written" if os.geteuid() == 0 else "refused")
    assert stored.read_bytes() == b"kept"


def test_debug_takes_text_and_is_bounded(context):
    with pytest.raises(TypeError):
        context.debug(b"x")
    context.debug("{}")
    assert context.info.debug == "{}"
    for _ in range(3):
        context.debug("x" * (MAX_DEBUG // 2))
    assert len(context.info.debug) < MAX_DEBUG + 100
    assert context.info.debug.endswith("cut at 1 MiB)")


def test_blob(context):
    assert context.blob(b"x").content_type is None
    assert context.blob("x").content_type == "text"
    assert context.blob(b"x", content_type="json").content_type == "json"
    assert context.blob([1], encode="json").load() == [1]
    assert context.pickled((1,)).load() == (1,)
    for args in (([1],), ("x", "text"), ([1], "json"), (b"x", "json", "json")):
        with pytest.raises(RainException):
            context.blob(*args)
    with pytest.raises(ValueError, match="Unknown content type"):
        context.blob(b"x", content_type="nothing")
