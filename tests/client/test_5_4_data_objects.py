"""Data objects and constants."""

from __future__ import annotations

import pickle

import cloudpickle
import pytest

from rain.client import DataObject, Output, OutputDir, RainException, Task, blob, data, directory, pickled
from rain.client.data import to_data, to_dataobj
from rain.client.submit import SubmitPacker
from rain.common import DataInstance, DataType
from rain.common.ids import ID
from rain.common.packing import unpack


def test_data_object(graph):
    made = DataObject("name", content_type="json")
    assert made.id == (1, 10)
    assert isinstance(made.id, ID)
    assert (made.label, made.content_type, made.data, made.size, made.info, made.state) == (
        "name",
        "json",
        None,
        None,
        None,
        None,
    )
    assert made.session is graph
    assert made._session is graph
    assert made.spec is made._spec
    assert repr(made) == "<DObj name id=1/10>"
    assert DataObject().content_type is None
    assert DataObject(None, None, DataType.DIRECTORY).is_directory()


def test_keep(graph):
    made = blob("x")
    assert not made.is_kept()
    made.keep()
    assert made.is_kept()
    assert made._keep
    made.unkeep()
    assert not made.is_kept()
    with pytest.raises(RainException, match="not kept"):
        made.unkeep()


@pytest.mark.parametrize(
    ("arguments", "bytes_", "content_type"),
    [
        ({"value": b"x"}, b"x", None),
        ({"value": bytearray(b"x")}, b"x", None),
        ({"value": b"[1]", "content_type": "json"}, b"[1]", "json"),
        ({"value": "\u017elu\u0165"}, "\u017elu\u0165".encode(), "text"),
        ({"value": [1], "encode": "json"}, b"[1]", "json"),
        ({"value": "\u017e", "encode": "text-latin2"}, "\u017e".encode("latin2"), "text-latin2"),
        ({"value": "\u017e", "encode": "text:latin2"}, "\u017e".encode("latin2"), "text:latin2"),
        ({"value": b""}, b"", None),
    ],
)
def test_blob(graph, arguments, bytes_, content_type):
    made = blob(**arguments)
    assert (made.data, made.content_type, made.label) == (bytes_, content_type, "const")
    assert made._data == bytes_


def test_pickled(graph):
    made = pickled({"a": 1})
    assert pickle.loads(made.data) == {"a": 1}
    assert (made.content_type, made.label) == ("pickle", "pickle")


def test_equality_is_identity(graph):
    a, b = blob("x"), blob("x")
    assert a != b
    assert len({a, b}) == 2


def test_pickling_is_refused(graph):
    made, task = blob("x"), Task("a/b", outputs=1)
    for thing in (made, task):
        for dumps in (pickle.dumps, cloudpickle.dumps):
            with pytest.raises(RainException, match="cannot be pickled"):
                dumps([thing])


def test_to_dataobj(graph):
    made = blob("x")
    assert to_dataobj(made) is made
    one = Task("a/b", outputs=1)
    assert to_dataobj(one) is one.output
    assert to_data is to_dataobj
    assert data.to_data is to_dataobj


def test_expectations(graph):
    made = blob("x")
    made.expect_blob()
    assert made.is_blob()
    with pytest.raises(TypeError):
        made.expect_dir()
    directory = OutputDir("d").create_data_object()
    directory.expect_dir()
    assert repr(directory) == "<DObj d id=1/11 [D]>"
    with pytest.raises(TypeError):
        directory.expect_blob()


def test_create_data_object(graph):
    made = Output("out", content_type="json", size_hint=3).create_data_object(graph)
    assert (made.label, made.content_type, made.spec.size_hint) == ("out", "json", 3)
    assert made.id == (1, 10)


def test_attributes(graph):
    made = blob("x")
    made.attributes["__test"] = {"workers": ["a"]}
    made.attributes["mine"] = {"deep": [False]}
    assert made.spec.user == {"_testing": {"workers": ["a"]}, "mine": {"deep": [False]}}
    assert made.attributes["spec"] == {"content_type": "text", "label": "const", "data_type": "blob"}
    assert "info" not in made.attributes


def test_directory(graph, tmp_path):
    (tmp_path / "sub" / "empty").mkdir(parents=True)
    (tmp_path / "sub" / "f").write_text("text")
    for path in (tmp_path, str(tmp_path)):
        made = directory(path)
        assert (made.label, made.content_type, made.is_directory(), made.spec.data_type) == (
            "const_dir",
            None,
            True,
            DataType.DIRECTORY,
        )
        assert made.data == directory(tmp_path, "other").data
        DataInstance(DataType.DIRECTORY, data=made.data).write(tmp_path.with_name(f"copy-{made.id.id}"))
    copy = tmp_path.with_name("copy-10")
    assert (copy / "sub" / "f").read_text() == "text"
    assert (copy / "sub" / "empty").is_dir()
    assert directory(label="x").label == "x"
    assert repr(directory(label="x")).endswith(" [D]>")


def test_empty_directory(graph, tmp_path):
    instance = DataInstance(DataType.DIRECTORY, data=directory().data)
    assert instance.size == 0
    instance.write(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_directory_that_cannot_be_packed(graph, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(RainException, match="cannot be packed") as caught:
            directory(path)
        assert isinstance(caught.value.__cause__, OSError)
    assert not graph._things


def test_directory_in_a_submit(graph):
    made = directory()
    (chunk,) = SubmitPacker(graph, {}).messages(graph._things)
    assert unpack(chunk.object_specs[0]) == {"label": "const_dir", "data_type": "dir"}
    assert chunk.values == [made.data]


def test_placement_aid_in_both_spellings(graph):
    wish = {"workers": ["127.0.0.1:5000"], "size": 7}
    first, second = blob("a"), blob("b")
    first.attributes["__test"] = wish
    second.spec.user["_testing"] = {"governors": ["127.0.0.1:5000"], "size": 7}
    assert first.spec.user == {"_testing": wish}
    assert first.attributes["__test"] == wish
    assert second.attributes["__test"]["size"] == 7
    (chunk,) = SubmitPacker(graph, {}).messages(graph._things)
    assert [unpack(spec)["user"]["_testing"]["size"] for spec in chunk.object_specs] == [7, 7]
