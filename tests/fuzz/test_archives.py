"""Fuzzers of the archives in which directories travel: refused or unpacked, never outside of the target, never more
than they are."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rain.common import fs
from rain.common.errors import RainException
from tests.fuzz.fuzzing import check_growth, cpu_limit, fuzz

GROWTH = (4 << 20, 100)
"""Copying a file takes a buffer of a mebibyte."""


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", link: str = "", **headers: str) -> Any:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.linkname = link
    info.pax_headers = headers
    return info, data


def archive(*entries: Any, form: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


GOOD = [
    entry(".", tarfile.DIRTYPE),
    entry("./a", data=b"content"),
    entry("./b", tarfile.DIRTYPE),
    entry("./b/" + "long" * 40, data=b"x" * 700),
    entry("./b/link", tarfile.SYMTYPE, link="../a"),
    entry("./\udcff\udcfe", data=b"name that is not UTF-8"),
]
CORPUS = [
    archive(*GOOD),
    archive(*GOOD, form=tarfile.GNU_FORMAT),
    archive(*GOOD[:3], *GOOD[4:], form=tarfile.USTAR_FORMAT),
    archive(entry("a", data=b"x", comment="hello")),
    fs.empty_directory(),
    b"\0" * 1024,
]


def unpacker(room: Path) -> Callable[[bytes], None]:
    """Unpacks below `room` and checks what came out."""
    outer = room / "outer"

    def unpack(data: bytes) -> None:
        target = outer / "target"
        try:
            fs.unpack_directory(data, target)
        except (RainException, OSError):
            pass
        else:
            check_tree(target, len(data))
            fs.settle_tree(target)
        assert os.listdir(outer) == ["target"]
        fs.remove_tree(outer)

    return unpack


def check_tree(target: Path, limit: int) -> None:
    """Files, directories and links that stay inside; no more bytes than the archive had."""
    root = os.path.realpath(target)
    total = 0
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            assert os.path.realpath(path) == root or os.path.realpath(path).startswith(root + os.sep), path
            status = os.lstat(path)
            assert not status.st_mode & 0o7000
            if os.path.islink(path):
                continue
            assert os.path.isdir(path) or os.path.isfile(path)
            assert status.st_nlink == 1 or os.path.isdir(path)
            total += status.st_size if os.path.isfile(path) else 0
    assert total <= limit


def test_unpacking(inputs: int, room: Path) -> None:
    fuzz("archives", unpacker(room), CORPUS, inputs, growth=GROWTH)


def packed_size(data: bytes) -> None:
    try:
        size = fs.packed_size(data)
    except RainException:
        return
    assert 0 <= size <= len(data)


def test_size_of_what_is_packed(inputs: int) -> None:
    fuzz("archives", packed_size, CORPUS, inputs, growth=GROWTH)


# --- made by hand -----------------------------------------------------------------------------------


def header(name: str, size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header whose size field holds these 12 bytes."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def negative(size: int) -> bytes:
    return b"\xff" + (256**11 - size).to_bytes(11, "big")


SPARSE = header("sparse", b"00000000000\0", tarfile.GNUTYPE_SPARSE)

HOSTILE = {
    "absolute path": archive(entry("/etc/passwd", data=b"x")),
    "upward path": archive(entry("../x", data=b"x")),
    "upward path within": archive(entry("a/../../x", data=b"x")),
    "upward directory": archive(entry("..", tarfile.DIRTYPE)),
    "name with a zero": archive(entry("a", data=b"x", path="b\0c")),
    "absolute link": archive(entry("a", tarfile.SYMTYPE, link="/etc")),
    "upward link": archive(entry("a", tarfile.SYMTYPE, link="../outside")),
    "link with a zero": archive(entry("a", tarfile.SYMTYPE, link="x", linkpath="x\0y")),
    "chain of links": archive(
        entry("a", tarfile.DIRTYPE),
        entry("a/b", tarfile.SYMTYPE, link=".."),
        entry("c", tarfile.SYMTYPE, link="a/b/.."),
    ),
    "file behind a link": archive(entry("a", tarfile.SYMTYPE, link="b"), entry("a/x", data=b"x")),
    "hard link": archive(entry("a", tarfile.LNKTYPE, link="/etc/passwd")),
    "device": archive(entry("a", tarfile.CHRTYPE)),
    "block device": archive(entry("a", tarfile.BLKTYPE)),
    "pipe": archive(entry("a", tarfile.FIFOTYPE)),
    "unknown kind": archive(entry("a", b"Z")),
    "twice": archive(entry("a", data=b"1"), entry("a", data=b"2")),
    "file as a directory": archive(entry("a", data=b"1"), entry("a/b", data=b"2")),
    "very deep": archive(entry("a/" * 1500 + "x", data=b"x")),
    "deep": archive(entry("a/" * 300 + "x", data=b"x")),
    "long name": archive(entry("n" * 300, data=b"x")),
    "very long name": archive(entry("n" * 100_000, data=b"x")),
    "negative size": header("a", negative(512)) + bytes(2048),
    "very negative size": header("a", negative(1 << 70)) + bytes(2048),
    "size zero minus a block": header("a", b"00000000000\0") + header("b", negative(1024)) + bytes(2048),
    "huge size": header("a", b"77777777777\0") + bytes(2048),
    "size beyond all files": header("a", b"\x80" + b"\xff" * 11) + bytes(2048),
    "size that is no number": header("a", b"notanumber!\0") + bytes(2048),
    "size in words": archive(entry("a", data=b"x", size="many")),
    "huge size in words": archive(entry("a", data=b"x", size=str(1 << 62))),
    "size of ten thousand digits": archive(entry("a", data=b"x", size="9" * 10_000)),
    "sparse": archive(
        entry(
            "a",
            data=b"1\n0\n1\n",
            **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)},
        )
    ),
    "sparse of version 0.1": archive(
        entry("a", data=b"x", **{"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)})
    ),
    "old sparse": SPARSE[:483] + b"77777777777\0" + SPARSE[495:] + bytes(2048),
    "many extended headers": (header("h", b"00000000011\0", tarfile.XHDTYPE) + b"9 path=a\n".ljust(512, b"\0")) * 2000,
    "many long names": (header("h", b"00000000004\0", tarfile.GNUTYPE_LONGNAME) + b"abc\0".ljust(512, b"\0")) * 2000,
    "huge extended header": header("h", b"\x80" + bytes(5) + b"\x7f" * 6, tarfile.XHDTYPE) + bytes(2048),
    "cut in a header": archive(*GOOD)[:700],
    "cut in a file": archive(entry("a", data=b"x" * 5000))[:3000],
    "cut at a header": archive(entry("a", data=b"x" * 512), entry("b", data=b"x"))[:1024],
    "damaged second header": archive(entry("a", data=b"x" * 512), entry("b", data=b"x")).replace(b"b\0", b"c\0", 1),
    "text": b"not an archive at all" * 100,
    "compressed": b"\x1f\x8b\x08" + bytes(1000),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file"])
def test_hostile_archive(name: str, as_file: bool, room: Path) -> None:
    """Refused as a whole; it takes no more room than it has bytes."""
    data = HOSTILE[name]
    outer = room / "outer"
    outer.mkdir()
    (outer / "outside").mkdir()
    file = room / "archive"
    file.write_bytes(data)

    def unpack(data: bytes) -> None:
        shutil.rmtree(outer / "target", ignore_errors=True)
        with pytest.raises((RainException, OSError)), open(file, "rb") as opened:
            fs.unpack_directory(opened if as_file else data, outer / "target")

    with cpu_limit():
        check_growth(unpack, data, GROWTH)
        check_tree(outer / "target", len(data))
        assert set(os.listdir(outer)) == {"outside", "target"}
        assert not os.listdir(outer / "outside")
        fs.remove_tree(outer)
        check_growth(packed_size, data, GROWTH)


@pytest.mark.parametrize("count", [10, 1000])
def test_many_members(count: int, room: Path) -> None:
    """Memory for the list of members is in proportion to the archive."""
    data = archive(*[entry(f"d{number}", tarfile.DIRTYPE) for number in range(count)])
    with cpu_limit():
        check_growth(unpacker(room), data, GROWTH)
