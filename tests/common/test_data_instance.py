import os

import pytest

from rain.common import DataInstance, DataType, RainException, fs
from rain.common.attributes import ObjectInfo, ObjectSpec
from rain.common.content_type import encode_value
from rain.common.pickle5 import read_plain_bytes


def blob(data=None, **kwargs):
    return DataInstance(DataType.BLOB, data=data, **kwargs)


def test_exactly_one_of_data_and_path():
    with pytest.raises(ValueError, match="exactly one"):
        blob()
    with pytest.raises(ValueError, match="exactly one"):
        blob(b"", path="/x")


def test_bytes_and_text(tmp_path):
    (tmp_path / "f").write_text("\u0159")
    for instance in (blob("\u0159".encode()), blob(path=tmp_path / "f"), blob(memoryview("\u0159".encode()))):
        assert instance.get_str() == "\u0159"
        assert type(instance.get_bytes()) is bytes
        assert instance.size == 2
    assert repr(blob(b"abc")) == "<DataInstance size=3>"
    assert repr(blob(path=tmp_path / "f")) == f"<DataInstance path={str(tmp_path / 'f')!r}>"


def test_content_type_is_that_of_the_info_if_set():
    assert blob(b"").content_type is None
    assert blob(b"", content_type="text").content_type == "text"
    spec = ObjectSpec(content_type="text")
    assert blob(b"", spec=spec).content_type == "text"
    assert blob(b"", spec=spec, info=ObjectInfo(content_type="text-x")).content_type == "text-x"


def test_load():
    instance = blob(b"[1]", content_type="json")
    assert instance.load() == [1]
    assert instance.load() is not instance.load()
    assert instance.load(cache=True) is instance.load(cache=True)
    with pytest.raises(RainException, match="not known"):
        blob(b"x").load()
    with pytest.raises(RainException, match="content type 'json'"):
        blob(b"", content_type="json").load()


def test_load_maps_large_files(tmp_path):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000)
    (tmp_path / "f").write_bytes(encode_value(array, "pickle5"))
    loaded = blob(path=tmp_path / "f", content_type="pickle5").load()
    assert (loaded == array).all()
    assert not loaded.flags.writeable


@pytest.mark.parametrize(
    "value",
    [bytes(range(256)) * 256, bytes(64 << 10), b"x" * 100_001, b"short", bytearray(64 << 10), [bytes(64 << 10)], None],
)
def test_load_reads_bytes_from_files_as_they_were(tmp_path, value):
    (tmp_path / "f").write_bytes(encode_value(value, "pickle5"))
    loaded = blob(path=tmp_path / "f", content_type="pickle5").load()
    assert (type(loaded), loaded) == (type(value), value)
    plain = type(value) is bytes and len(value) >= 64 << 10
    assert read_plain_bytes(os.fspath(tmp_path / "f")) == (value if plain else None)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:60], lambda data: b"x" + data])
def test_load_refuses_damaged_files_of_bytes(tmp_path, damage):
    (tmp_path / "f").write_bytes(damage(encode_value(bytes(100_000), "pickle5")))
    with pytest.raises(RainException, match="Damaged pickle5"):
        blob(path=tmp_path / "f", content_type="pickle5").load()


def test_write_replaces_a_file_and_never_writes_through_a_link(tmp_path):
    stored = tmp_path / "stored"
    stored.write_bytes(b"kept")
    (tmp_path / "target").symlink_to(stored)
    blob(b"new").write(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"new"
    assert stored.read_bytes() == b"kept"
    stored.chmod(0o444)
    blob(path=stored).write(tmp_path / "copy")
    with open(tmp_path / "copy", "ab") as copy:
        copy.write(b"!")
    assert stored.read_bytes() == b"kept"


def test_link(tmp_path):
    stored = tmp_path / "stored"
    stored.write_bytes(b"kept")
    instance = blob(path=stored)
    instance.link(tmp_path / "copy")
    assert not os.path.islink(tmp_path / "copy")
    instance._linkable = True
    instance.link(tmp_path / "link")
    assert os.readlink(tmp_path / "link") == str(stored)


def test_directories(tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "f").write_bytes(b"12345")
    tar = fs.pack_directory(tree)
    (tmp_path / "stored.tar").write_bytes(tar)
    ways = {"tree": {"path": tree}, "tar": {"data": tar}, "tarfile": {"path": tmp_path / "stored.tar"}}
    for name, where in ways.items():
        instance = DataInstance(DataType.DIRECTORY, **where)
        assert instance.size == 5
        assert instance.get_bytes() == tar
        target = tmp_path / f"copy-{name}"
        instance.write(target)
        assert (target / "sub" / "f").read_bytes() == b"12345"
        with pytest.raises(FileExistsError):
            instance.write(target)


def test_attributes():
    instance = blob(b"abc", spec=ObjectSpec(label="x", user={"a": 1}))
    instance.attributes["b"] = 2
    assert instance.attributes["a"] == 1
    assert instance.info.user == {"b": 2}
    assert instance.attributes["info"]["size"] == 3
