"""Return values: what each kind becomes, by a real executor for the whole and by the encoder for the rules."""

import os
from collections import UserList

import pytest

from rain.common import DataInstance, DataType, RainException, fs, spares
from rain.common.attributes import ObjectInfo, ObjectSpec
from rain.common.content_type import decode_value, encode_value
from rain.common.ids import ID
from rain.common.packing import unpack
from rain.executor.context import Context
from rain.executor.results import ResultEncoder
from rain.executor.templates import Template
from rain.executor.workspace import Workspace

LIMIT = 64 << 10


@pytest.fixture
def workspace(tmp_path):
    here = os.getcwd()
    workspace = Workspace(tmp_path / "work")
    workspace.values = str(tmp_path / "values")
    os.mkdir(workspace.values)
    workspace.reset_task()
    yield workspace
    os.chdir(here)


@pytest.fixture
def encoder(workspace):
    return ResultEncoder(workspace)


@pytest.fixture
def context(workspace):
    return Context(lambda: None, None, 1, workspace)


def outputs(*specs, encode=()):
    return Template({"config": {"encode_outputs": list(encode)}, "outputs": list(specs)})


ONE = outputs({"label": "x"})


def type_of(info):
    return unpack(info).get("content_type") if info else None


class TestPlain:
    @pytest.mark.parametrize("value", [5, None, "text", b"bytes", [1]])
    def test_a_directory_is_no_plain_value(self, encoder, value):
        with pytest.raises(RainException, match="Output 'd' is a directory: return what ctx"):
            encoder.plain(outputs({"label": "d", "data_type": "dir"}), value, [])

    @pytest.mark.parametrize(
        ("value", "content_type"),
        [
            (5, "pickle5"), (2**3000, "pickle5"), (1.5, "pickle5"), (True, "pickle5"), (None, "pickle5"),
            ("text", "text"), ("", "text"), ("\ud800", "pickle5"), (b"raw", None), ((1, "a"), "pickle5"),
            ([], "pickle5"),
        ],
    )  # fmt: skip
    def test_kinds(self, encoder, value, content_type):
        ((data, info, size),) = encoder.plain(ONE, value, [])
        assert type_of(info) == content_type
        assert size == len(data)
        assert (decode_value(data, content_type) if content_type else data) == value
        if content_type == "pickle5":
            assert data == encode_value(value, "pickle5")

    def test_buffers(self, encoder):
        assert encoder.plain(ONE, bytearray(b"a"), []) == [(b"a", None, 1)]
        assert encoder.plain(ONE, memoryview(b"a"), []) == [(b"a", None, 1)]

    def test_large_values_become_files(self, encoder, workspace):
        numpy = pytest.importorskip("numpy")
        for value in (b"x" * LIMIT, "y" * LIMIT, numpy.arange(LIMIT)):
            ((path, info, size),) = encoder.plain(ONE, value, [])
            assert os.path.dirname(path) == workspace.values
            with open(path, "rb") as file:
                data = file.read()
            assert len(data) == size >= LIMIT
            loaded = decode_value(data, type_of(info)) if info else data
            assert (loaded == value).all() if hasattr(value, "all") else loaded == value
        assert isinstance(encoder.plain(ONE, b"x" * (LIMIT - 1), [])[0][0], bytes)

    def test_no_room_for_large_values_in_the_first_place(self, encoder, workspace):
        os.rmdir(workspace.values)
        ((path, _, _),) = encoder.plain(ONE, b"x" * LIMIT, [])
        assert path.startswith(workspace.root)

    def test_several(self, encoder):
        assert [entry[0] for entry in encoder.plain(outputs({}, {}), (b"a", b"b"), [])] == [b"a", b"b"]
        with pytest.raises(RainException, match="2 outputs, but returned 3"):
            encoder.plain(outputs({}, {}), (1, 2, 3), [])
        with pytest.raises(RainException, match="must return a sequence or a mapping"):
            encoder.plain(outputs({}, {}), "ab", [])

    def test_no_outputs(self, encoder):
        assert encoder.plain(outputs(), object(), []) == []

    def test_what_cannot_be_pickled(self, encoder):
        with pytest.raises(RainException, match="Cannot pickle the result of type 'generator'"):
            encoder.plain(ONE, (x for x in ()), [])


class TestRemote:
    def test_bytes_and_text(self, encoder):
        assert encoder.returned(ONE, b"x", []) == [(b"x", None, 1)]
        ((data, info, _),) = encoder.returned(ONE, "ř", [])
        assert (data, type_of(info)) == ("ř".encode(), "text")

    def test_text_with_a_static_type(self, encoder):
        assert encoder.returned(outputs({"content_type": "text-utf-16-le"}), "a", []) == [(b"a\0", None, 2)]
        assert encoder.returned(outputs({"content_type": "json"}), "1", []) == [(b"1", None, 1)]

    @pytest.mark.parametrize("encode", ["pickle", "cloudpickle", "pickle5", "json"])
    @pytest.mark.parametrize("value", [[1, None], {"a": 1}, "text", 0, None])
    def test_encode(self, encoder, encode, value):
        ((data, info, _),) = encoder.returned(outputs({}, encode=[encode]), value, [])
        assert type_of(info) == encode
        assert decode_value(data, encode) == value

    def test_no_outputs(self, encoder):
        for value in (None, (), []):
            assert encoder.returned(outputs(), value, []) == []
        with pytest.raises(RainException, match="has no outputs"):
            encoder.returned(outputs(), 5, [])

    @pytest.mark.parametrize(
        "value", [(b"1", b"2"), [b"1", b"2"], UserList([b"1", b"2"]), {"b": b"2", "a": b"1"}]
    )
    def test_several(self, encoder, value):
        template = outputs({"label": "a"}, {"label": "b"})
        assert [entry[0] for entry in encoder.returned(template, value, [])] == [b"1", b"2"]

    @pytest.mark.parametrize("value", [b"12", "12", 5, None, (b"1",), {"a": b"1"}, {"a": b"", "b": b"", "c": b""}])
    def test_wrong_numbers_and_labels(self, encoder, value):
        with pytest.raises(RainException, match="The function"):
            encoder.returned(outputs({"label": "a"}, {"label": "b"}), value, [])

    @pytest.mark.parametrize("value", [5, None, [b""], {"x": b""}, bytearray(b"")])
    def test_other_values_need_encode(self, encoder, value):
        with pytest.raises(RainException, match="declare how to encode"):
            encoder.returned(ONE, value, [])

    def test_values_that_cannot_be_encoded(self, encoder):
        with pytest.raises(RainException, match="Cannot encode"):
            encoder.returned(outputs({}, encode=["json"]), {1, 2}, [])

    def test_instances_of_the_context_win_over_encode(self, encoder, context):
        template = outputs({}, encode=["pickle"])
        ((data, info, _),) = encoder.returned(template, context.blob([1], encode="json"), [])
        assert (data, type_of(info)) == (b"[1]", "json")

    def test_static_types_are_kept(self, encoder, context):
        template = outputs({"content_type": "text"})
        blob = context.blob(b"x", content_type="text-latin-1")
        ((_, info, _),) = encoder.returned(template, blob, [])
        assert type_of(info) == "text-latin-1"
        with pytest.raises(RainException, match="has content type 'text'"):
            encoder.returned(template, context.blob(b"x", content_type="json"), [])

    def test_user_data_of_an_instance(self, encoder, context):
        blob = context.blob(b"x")
        blob.info.user["a"] = [False]
        blob.attributes["b"] = 2
        ((_, info, _),) = encoder.returned(ONE, blob, [])
        assert unpack(info) == {"user": {"a": [False], "b": 2}}

    def test_data_types_must_agree(self, encoder, context):
        directory = outputs({"label": "d", "data_type": "dir"})
        with pytest.raises(RainException, match="Output 'd' is a directory"):
            encoder.returned(directory, b"x", [])
        with pytest.raises(RainException, match="Output 'd' is a directory"):
            encoder.returned(directory, context.blob(b"x"), [])
        os.mkdir("tree")
        with pytest.raises(RainException, match="Output 'x' is a blob"):
            encoder.returned(ONE, context.stage_directory("tree"), [])


class TestPassedThrough:
    def instance(self, **spec):
        return DataInstance(
            DataType.BLOB,
            data=b"value",
            spec=ObjectSpec(id=ID(1, 11), user={"in": 1, "_testing": 0}, **spec),
            info=ObjectInfo(size=5, user={"info": 2}),
            object_id=ID(1, 11),
        )

    @pytest.mark.parametrize("kind", ["plain", "returned"])
    def test_an_input_makes_no_copy(self, encoder, kind):
        instance = self.instance(content_type="text")
        instance.info.user["added"] = 3
        ((value, info, size),) = getattr(encoder, kind)(ONE, instance, [10, 11])
        assert (value, size) == (11, 5)
        assert unpack(info) == {"content_type": "text", "user": {"in": 1, "info": 2, "added": 3}}

    def test_an_instance_of_another_call_is_copied(self, encoder):
        assert encoder.returned(ONE, self.instance(), [10])[0][0] == b"value"


class TestStaged:
    def test_small_files_are_inline(self, encoder, context, workspace):
        with open("f", "wb") as file:
            file.write(b"12")
        instance = context.stage_file("f", "text")
        assert os.listdir() == []
        ((data, info, size),) = encoder.returned(ONE, instance, [])
        assert (data, type_of(info), size) == (b"12", "text", 2)
        workspace.drop_staged()
        assert os.listdir(workspace.stage) == []

    def test_large_files_are_handed_over_also_twice(self, encoder, context, workspace):
        with open("f", "wb") as file:
            file.write(b"1" * LIMIT)
        instance = context.stage_file("f")
        two = encoder.returned(outputs({}, {}), [instance, instance], [])
        workspace.drop_staged()
        paths = {entry[0] for entry in two}
        assert len(paths) == 2
        for path in paths:
            assert os.path.getsize(path) == LIMIT

    def test_directories(self, encoder, context, workspace, tmp_path):
        os.makedirs("tree/sub")
        with open("tree/sub/f", "wb") as file:
            file.write(b"123")
        instance = context.stage_directory("tree")
        ((data, _, size),) = encoder.returned(outputs({"data_type": "dir"}), instance, [])
        fs.unpack_directory(data, tmp_path / "out")
        assert size == 3
        assert (tmp_path / "out" / "sub" / "f").read_bytes() == b"123"
        workspace.drop_staged()

    def test_large_directories_are_trees(self, encoder, workspace, context):
        os.makedirs("tree/sub")
        with open("tree/sub/f", "wb") as file:
            file.write(b"1" * LIMIT)
        os.symlink("/nothing", "tree/dangling")
        instance = context.stage_directory("tree")
        plans = outputs({"data_type": "dir"}, {"data_type": "dir"})
        (first, _, size), (second, _, second_size) = encoder.returned(plans, [instance, instance], [])
        workspace.drop_staged()
        assert (size, second_size) == (LIMIT, LIMIT)
        assert first != second
        for path in (first, second):
            assert os.listdir(path) == ["sub"]
            assert [os.stat(f"{path}/{name}").st_mode & 0o777 for name in ("sub", "sub/f")] == [0o500, 0o400]
            assert os.path.getsize(f"{path}/sub/f") == LIMIT
        assert os.listdir(workspace.stage) == []

    def test_what_cannot_be_staged(self, context):
        os.mkdir("tree")
        open("f", "w").close()
        for path in ("../x", "/etc/passwd", ".", "tree/../.."):
            with pytest.raises(RainException, match="Only a relative path"):
                (context.stage_directory if os.path.isdir(path) else context.stage_file)(path)
        with pytest.raises(FileNotFoundError):
            context.stage_file("missing")
        with pytest.raises(FileNotFoundError):
            context.stage_directory("missing")
        with pytest.raises(IsADirectoryError):
            context.stage_file("tree")
        with pytest.raises(NotADirectoryError):
            context.stage_directory("f")

    def test_links_are_followed(self, encoder, context, tmp_path):
        (tmp_path / "stored").write_bytes(b"kept")
        os.symlink(tmp_path / "stored", "link")
        assert encoder.returned(ONE, context.stage_file("link"), [])[0][0] == b"kept"
        assert (tmp_path / "stored").exists()


def test_many_outputs_do_not_exceed_a_frame(encoder):
    count = 400
    entries = encoder.returned(outputs(*[{}] * count), [b"x" * 60_000] * count, [])
    inline = sum(len(value) for value, _, _ in entries if isinstance(value, bytes))
    assert inline <= 16 << 20
    assert sum(size for _, _, size in entries) == count * 60_000


class TestWorkspace:
    @pytest.mark.parametrize("spare", [900_000, 1_000_000, 3_000_000])
    def test_large_values_take_memory_that_is_there(self, workspace, spare):
        directory = os.path.join(os.path.dirname(workspace.values), spares.DIRECTORY)
        os.mkdir(directory)
        path = os.path.join(directory, f"{spare}.1")
        with open(path, "wb") as file:
            file.write(b"x" * spare)
        inode = os.stat(path).st_ino
        value = workspace.write_value([b"a" * 10, b"b" * 999_990])
        assert os.stat(value).st_ino == inode
        with open(value, "rb") as file:
            assert file.read() == b"a" * 10 + b"b" * 999_990
        assert os.listdir(directory) == []
        assert os.stat(workspace.write_value([b"c" * 1_000_000])).st_ino != inode

    def test_the_task_directory_is_emptied(self, workspace):
        os.makedirs("a/b")
        open("a/b/f", "w").close()
        os.chmod("a/b", 0o500)
        os.chdir("/")
        workspace.reset_task()
        assert os.getcwd() == workspace.task
        assert os.listdir() == []

    def test_a_removed_task_directory_is_made_again(self, workspace):
        os.rmdir(workspace.task)
        workspace.reset_task()
        assert os.getcwd() == workspace.task
        os.rmdir(workspace.task)
        os.symlink("/", workspace.task)
        workspace.reset_task()
        assert os.listdir(workspace.task) == []
