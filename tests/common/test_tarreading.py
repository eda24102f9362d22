"""Reading tars: every form that packers write."""

from __future__ import annotations

import io
import tarfile

import pytest

from rain.common.errors import RainException
from rain.common.tarreading import Member, TarReader

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def packed(*members: tuple[str, bytes, str, bytes], form: int = tarfile.PAX_FORMAT, mode: int = 0o644) -> bytes:
    """A tar of these names, types, link targets and contents."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for name, kind, link, data in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size, entry.mode = kind, link, len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def read(data: bytes, *, offset: int = 0) -> list[tuple[Member, bytes]]:
    source = io.BytesIO(bytes(offset) + data)
    source.seek(offset)
    reader = TarReader(source)
    found = []
    for member in reader.members():
        content = io.BytesIO()
        if member.kind == "file":
            reader.copy_to(content)
        found.append((member, content.getvalue()))
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_all_kinds(form):
    data = packed(
        ("d", tarfile.DIRTYPE, "", b""),
        ("d/file", tarfile.REGTYPE, "", b"x" * 1000),
        ("old", tarfile.AREGTYPE, "", b"y"),
        ("packed", tarfile.CONTTYPE, "", b""),
        ("link", tarfile.SYMTYPE, "d/file", b""),
        form=form,
    )
    expected = [
        (Member("d", "directory", 0, False, ""), b""),
        (Member("d/file", "file", 1000, False, ""), b"x" * 1000),
        (Member("old", "file", 1, False, ""), b"y"),
        (Member("packed", "file", 0, False, ""), b""),
        (Member("link", "link", 0, False, "d/file"), b""),
    ]
    found = [(Member(m.name.rstrip("/"), m.kind, m.size, m.executable, m.link), content) for m, content in read(data)]
    assert found == expected
    assert read(data, offset=100) == read(data)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", ["a" * 99, "b" * 100, "d" * 60 + "/" + "f" * 80, "\N{GREEK SMALL LETTER ALPHA}/x"])
def test_names(form, name):
    ((member, content),) = read(packed((name, tarfile.REGTYPE, "", b"content"), form=form))
    assert member.name == name
    assert content == b"content"


@pytest.mark.parametrize("form", ["gnu", "pax"])
@pytest.mark.parametrize("name", ["n" * 5000, "d/" * 400 + "x", "not \udcff UTF-8", "both \N{SNOWMAN} and \udcff"])
def test_names_that_need_more_than_a_header(form, name):
    link = name.replace("x", "y")
    ((member, _),) = read(packed((name, tarfile.SYMTYPE, link, b""), form=FORMS[form]))
    assert (member.name, member.link) == (name, link)


def test_executable_bit():
    for mode, executable in ((0o755, True), (0o700, True), (0o644, False), (0o011, False)):
        ((member, _),) = read(packed(("a", tarfile.REGTYPE, "", b""), mode=mode))
        assert member.executable is executable


def test_sizes_in_extended_and_binary_form():
    source = io.BytesIO()
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        entry = tarfile.TarInfo(f"huge {number}")
        entry.size = 1 << 34
        source.write(entry.tobuf(form))
        with pytest.raises(RainException, match="it ends at"):
            read(source.getvalue())


def test_an_empty_archive_is_nothing_but_its_end_mark():
    assert read(bytes(512)) == []
    for data in (b"", bytes(511), b"x" * 100):
        with pytest.raises(RainException, match="without an end mark"):
            read(data)


def test_an_archive_that_was_cut():
    data = packed(("a", tarfile.REGTYPE, "", b"x" * 600), ("b", tarfile.REGTYPE, "", b"y"))
    for length in (512, 1000, 1536, 2048, 2560):
        with pytest.raises(RainException, match="Damaged archive"):
            read(data[:length])


def test_what_is_not_understood_is_named():
    with pytest.raises(RainException, match="Archive member 'pipe' is neither file, directory nor symlink"):
        read(packed(("pipe", tarfile.FIFOTYPE, "", b"")))
