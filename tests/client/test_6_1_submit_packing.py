"""How a submit is cut into messages."""

from __future__ import annotations

import pytest

from rain.client import DataObject, InvalidRequestError, Output, Remote, Task, blob, submit as submit_module, tasks
from rain.client.session import Session
from rain.client.submit import SubmitPacker
from rain.common.packing import unpack
from rain.protocol.messages import INLINE, KEEP, SAME, UPLOADED, ConstantPiece, SubmitChunk


def messages(session, templates=None):
    return list(SubmitPacker(session, {} if templates is None else templates).messages(session._things))


def test_columns(graph):
    a = blob("a")
    one = tasks.concat([a, a])
    two = Task("a/b", {"k": 0}, [one], 2)
    two.outputs[1].keep()
    (chunk,) = messages(graph)
    assert chunk.session == 1
    assert list(chunk.tasks) == [one.id.id, two.id.id]
    assert list(chunk.task_templates) == [0, 1]
    assert [chunk.args[0], unpack(chunk.args[1])] == [None, {"k": 0}]
    assert (list(chunk.input_counts), list(chunk.inputs)) == ([2, 1], [10, 10, 11])
    assert (list(chunk.output_counts), list(chunk.outputs)) == ([1, 2], [11, 13, 14])
    assert chunk.output_flags == bytes([0, 0, KEEP])
    assert (list(chunk.objects), chunk.object_flags, chunk.values) == ([10], bytes([INLINE]), [b"a"])
    assert unpack(chunk.object_specs[0]) == {"label": "const", "content_type": "text"}
    assert unpack(chunk.templates[0]) == {
        "task_type": "buildin/concat",
        "resources": {"cpus": 1},
        "outputs": [{}],
    }
    assert unpack(chunk.templates[1])["outputs"] == [{"label": "out0"}, {"label": "out1"}]


def test_equal_calls_share_a_template(graph):
    f = Remote(lambda ctx, a: None)
    for i in range(500):
        f(i)
    for _ in range(3):
        tasks.sleep(0.1, blob("x"))
    tasks.sleep(0.2, blob("x"))
    (chunk,) = messages(graph)
    assert len(chunk.templates) == 2
    assert set(chunk.task_templates) == {0, 1}


def test_templates_are_interned_by_content(graph):
    for _ in range(3):
        Task("a/b", user_spec={"k": 1})
    Task("a/b", user_spec={"k": 2})
    (chunk,) = messages(graph)
    assert list(chunk.task_templates) == [0, 0, 0, 1]


def test_known_templates_are_not_sent_again(graph):
    tasks.concat([])
    packer = SubmitPacker(graph, {})
    list(packer.messages(graph._things))
    packer = SubmitPacker(graph, packer.new_templates)
    Task("a/b")
    (chunk,) = packer.messages(graph._things)
    assert list(chunk.task_templates) == [0, 1]
    assert [unpack(one)["task_type"] for one in chunk.templates] == ["a/b"]


def test_labels_and_options_in_the_template(graph):
    Task(
        "a/b",
        inputs=[("x", blob("a")), blob("b")],
        outputs=[Output("o", content_type="json", size_hint=5)],
        name="n",
        retries=1,
        timeout=2,
        priority=3,
        env={"A": None},
    )
    (chunk,) = messages(graph)
    template = unpack(chunk.templates[0])
    assert template == {
        "task_type": "a/b",
        "labels": ["x", None],
        "outputs": [{"label": "o", "content_type": "json", "size_hint": 5}],
        "name": "n",
        "retries": 1,
        "timeout": 2.0,
        "priority": 3,
        "env": {"A": None},
        "resources": {"cpus": 1},
    }


def test_config_of_python_tasks_is_in_the_template(graph):
    Remote(lambda ctx: None, outputs=Output(encode="json"))()
    (chunk,) = messages(graph)
    assert unpack(chunk.templates[0])["config"] == {"encode_outputs": ["json"]}
    assert unpack(chunk.args[0]) == [[], {}]


def test_edited_specs(graph):
    task = tasks.concat([])
    task.spec.user["mine"] = [0]
    task.spec.retries = 2
    task.spec.resources["cpus"] = 4
    task.output.spec.user["size"] = 1
    plain = tasks.concat([])
    assert plain.spec.retries == 0
    (chunk,) = messages(graph)
    edited = unpack(chunk.templates[0])
    assert (edited["user"], edited["retries"], edited["resources"]) == ({"mine": [0]}, 2, {"cpus": 4})
    assert list(chunk.task_templates) == [0, 1]
    assert list(chunk.objects) == [task.output.id.id]
    assert (chunk.object_flags, chunk.values) == (b"\0", [])
    assert unpack(chunk.object_specs[0]) == {"user": {"size": 1}}


def test_wrongly_edited_spec(graph):
    tasks.concat([]).spec.resources["cpus"] = -1
    with pytest.raises(ValueError, match="cpus"):
        messages(graph)


def test_declared_objects(graph):
    used, orphan = DataObject("used"), DataObject("orphan")
    Task("a/b", outputs=[used])
    (chunk,) = messages(graph)
    assert list(chunk.outputs) == [used.id.id]
    assert list(chunk.objects) == [orphan.id.id]
    assert unpack(chunk.templates[0])["outputs"] == [{"label": "used"}]


def test_chunks_by_nodes(graph, monkeypatch):
    monkeypatch.setattr(submit_module, "MAX_NODES", 10)
    for _ in range(25):
        tasks.concat([])
    chunks = messages(graph)
    assert [len(chunk.tasks) for chunk in chunks] == [5, 5, 5, 5, 5]
    assert [len(chunk.templates) for chunk in chunks] == [1, 0, 0, 0, 0]


def test_chunks_by_size(graph, monkeypatch):
    monkeypatch.setattr(submit_module, "MAX_CHUNK", 1000)
    for _ in range(5):
        blob(b"x" * 400)
    f = Remote(lambda ctx, a: None)
    for _ in range(3):
        f(b"x" * 600)
    chunks = messages(graph)
    assert all(isinstance(chunk, SubmitChunk) for chunk in chunks)
    assert [len(chunk.objects) for chunk in chunks][:3] == [2, 2, 1]
    assert sum(len(chunk.tasks) for chunk in chunks) == 3
    assert max(len(chunk.tasks) for chunk in chunks) == 1


def test_large_constants_go_in_pieces(graph, monkeypatch):
    monkeypatch.setattr(submit_module, "MAX_INLINE", 10)
    monkeypatch.setattr(submit_module, "PIECE", 8)
    data = bytes(range(20))
    constant = blob(data)
    constant.keep()
    blob(b"x" * 10)
    *pieces, chunk = messages(graph)
    assert all(isinstance(piece, ConstantPiece) for piece in pieces)
    assert [(piece.object_id, piece.total) for piece in pieces] == [(10, 20)] * 3
    assert [piece.offset for piece in pieces] == [0, 8, 16]
    assert b"".join(piece.data for piece in pieces) == data
    assert chunk.object_flags == bytes([UPLOADED | KEEP, INLINE])
    assert chunk.values == [b"x" * 10]


def test_empty_constant_is_sent(graph):
    blob(b"")
    (chunk,) = messages(graph)
    assert chunk.values == [b""]


def test_foreign_output(graph):
    with Session(None, 2).bind_only():
        foreign = DataObject("x")
    Task("a/b", outputs=[foreign])
    with pytest.raises(InvalidRequestError, match="output 2/10"):
        messages(graph)


def test_packed_specs_of_many_objects_are_equal_bytes(graph):
    blob("a")
    blob("b")
    (chunk,) = messages(graph)
    assert len(set(chunk.object_specs)) == 1


def test_equal_large_constants_are_sent_once(graph):
    large, small = b"x" * (64 << 10), b"y" * 100
    for value in (large, large, small, small, large):
        blob(value)
    (chunk,) = messages(graph)
    assert chunk.object_flags == bytes([INLINE, SAME, INLINE, INLINE, SAME])
    assert chunk.values == [large, (10).to_bytes(4, "little"), small, small, (10).to_bytes(4, "little")]
