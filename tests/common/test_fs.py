import io
import os
import stat
import tarfile

import pytest

from rain.common import RainException, fs


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "a").write_bytes(b"alpha")
    (root / "sub" / "run").write_bytes(b"#!")
    (root / "sub" / "run").chmod(0o755)
    (root / "inside").symlink_to("sub/run")
    outside = tmp_path / "outside"
    outside.write_bytes(b"out")
    (root / "link").symlink_to(outside)
    return root


def content(root):
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = "dir"
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


EXPECTED = {
    "a": (b"alpha", False),
    "inside": ("link", "sub/run"),
    "link": (b"out", False),
    "sub": "dir",
    "sub/empty": "dir",
    "sub/run": (b"#!", True),
}


def test_packing_and_unpacking(tree, tmp_path):
    data = fs.pack_directory(tree)
    fs.unpack_directory(data, tmp_path / "copy")
    assert content(tmp_path / "copy") == EXPECTED
    assert fs.packed_size(data) == 5 + 2 + 3


def test_equal_trees_have_equal_bytes(tree, tmp_path):
    fs.copy_tree(tree, tmp_path / "copy")
    assert content(tmp_path / "copy") == EXPECTED
    os.utime(tmp_path / "copy" / "a", (1, 1))
    assert fs.pack_directory(tmp_path / "copy") == fs.pack_directory(tree)


def test_the_empty_directory(tmp_path):
    (tmp_path / "empty").mkdir()
    assert fs.pack_directory(tmp_path / "empty") == fs.empty_directory()
    with tarfile.open(fileobj=io.BytesIO(fs.empty_directory())) as archive:
        assert archive.getnames() == ["."]


def test_a_dangling_link_that_leads_outside_is_left_out(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    (root / "gone").symlink_to("/nowhere/at/all")
    assert fs.pack_directory(root) == fs.empty_directory()


def test_files_are_not_directories(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        fs.pack_directory(tmp_path / "file")


def archive_with(**fields):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        member = tarfile.TarInfo()
        for name, value in fields.items():
            setattr(member, name, value)
        archive.addfile(member)
    return target.getvalue()


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../escape"},
        {"name": "/absolute"},
        {"name": "a/../../b"},
        {"name": "l", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"name": "l", "type": tarfile.SYMTYPE, "linkname": "../x"},
        {"name": "l", "type": tarfile.LNKTYPE, "linkname": "x"},
        {"name": "l", "type": tarfile.FIFOTYPE},
        {"name": "l", "type": tarfile.CHRTYPE},
    ],
)
def test_evil_archives(fields, tmp_path):
    with pytest.raises(RainException):
        fs.unpack_directory(archive_with(**fields), tmp_path / "target")
    assert not (tmp_path / "escape").exists()


def test_garbage_is_told(tmp_path):
    with pytest.raises(RainException, match="Damaged archive"):
        fs.unpack_directory(b"x" * 1000, tmp_path / "target")
    with pytest.raises(RainException, match="Damaged archive"):
        fs.packed_size(b"x" * 1000)


def test_nothing_is_written_through_a_link(tmp_path):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        link = tarfile.TarInfo("d")
        link.type, link.linkname = tarfile.SYMTYPE, "."
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("d/file"))
    with pytest.raises(FileExistsError):
        fs.unpack_directory(target.getvalue(), tmp_path / "t")


def test_read_only_trees_can_be_removed(tree):
    fs.make_read_only(tree)
    assert not stat.S_IMODE((tree / "sub").stat().st_mode) & 0o222
    fs.remove_tree(tree)
    assert not tree.exists()
    fs.remove_tree(tree)


def test_tree_size(tree):
    assert fs.tree_size(tree) == 7


def tar_of(*members):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, link in members:
            entry = tarfile.TarInfo(name)
            if link is None:
                entry.type = tarfile.DIRTYPE
            else:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    return target.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [("a", "."), ("a/b", "sub")],  # behind a link
        [("d", None), ("x", "."), ("y", "x/..")],  # a chain that leads to the parent
        [("d/e/f", None), ("d/e/l", "../.."), ("m", "d/e/l/../x")],
    ],
)
def test_chains_of_links_do_not_lead_outside(tmp_path, members):
    target = tmp_path / "target"
    with pytest.raises(RainException, match=r"symlink|outside"):
        fs.unpack_directory(tar_of(*members), target)
    assert not any(path.is_symlink() for path in target.rglob("*"))


def test_settled_trees(tree, tmp_path):
    (tree / "dangling").symlink_to("nothing")
    packed = fs.pack_directory(tree)
    summary = fs.settle_tree(tree)
    assert summary.size == len(b"alpha" + b"#!" + b"out")
    assert 0 < summary.packed <= len(packed) + 10240
    assert fs.pack_directory(tree) == packed
    assert content(tree) == EXPECTED
    assert stat.S_IMODE((tree / "sub" / "run").stat().st_mode) == 0o500
    assert fs.settle_tree(tree) == summary
    fs.remove_tree(tree)


@pytest.mark.parametrize("what", ["pipe", "loop"])
def test_what_cannot_be_settled(tmp_path, what):
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    if what == "pipe":
        os.mkfifo(root / "sub" / "pipe")
    else:
        (root / "sub" / "up").symlink_to(tmp_path)
    with pytest.raises(RainException, match="cannot be part of a data object"):
        fs.settle_tree(root)
    with pytest.raises(RainException, match="cannot be part of a data object"):
        fs.pack_directory(root)
