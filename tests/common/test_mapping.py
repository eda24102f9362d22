"""Mappings that hold no descriptor."""

from __future__ import annotations

import os

import pytest

from rain.common import DataInstance, DataType, mapping
from rain.common.mapping import map_descriptor

VALUE = b"value" * 30_000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "value"
    path.write_bytes(VALUE)
    return path


def map_file(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return map_descriptor(descriptor, len(VALUE))
    finally:
        os.close(descriptor)


def test_what_is_mapped(file):
    view = map_file(file)
    file.unlink()
    assert (bytes(view), view.readonly) == (VALUE, True)


def test_mappings_hold_no_descriptors(file):
    before = len(os.listdir("/proc/self/fd"))
    views = [map_file(file) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(view[-5:] == b"value" for view in views)


def test_mappings_end_with_their_last_view(file):
    def mapped():
        with open("/proc/self/maps") as maps:
            return sum(str(file) in line for line in maps)

    view = map_file(file)
    part = view[100:]
    del view
    assert mapped() == 1
    assert part[:5] == b"value"
    del part
    assert mapped() == 0


def test_what_cannot_be_mapped_is_told(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="No such device"):
        map_descriptor(descriptor, 4096)
    os.close(descriptor)


def test_a_process_with_too_many_mappings_reads(file, monkeypatch):
    def refuse(descriptor, size):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mapping, "map_descriptor", refuse)
    assert DataInstance(DataType.BLOB, path=file)._buffer() == VALUE
