"""Values that are mapped instead of sent: what a client accepts as the place of a value, and from whom."""

from __future__ import annotations

import os
import socket

import pytest

from rain.net import dataserver
from rain.net.dataclient import DataClient, DataUnavailable
from rain.net.dataserver import DataServer
from rain.net.loopdata import LoopDataClient
from rain.net.places import map_place, pack_place
from rain.net.secret import generate_secret
from rain.net.sockets import is_same_machine
from rain.protocol.data import NOT_HERE, OK, PLACE, UNREADABLE
from rain.protocol.limits import MAX_PLACE, ProtocolError

SECRET = generate_secret()
VALUE = b"value" * 30_000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "value"
    path.write_bytes(VALUE)
    path.chmod(0o400)
    return path


class Source:
    """Values by object number: 1 lies in a file; 2 in none; of 3 the file is another one; 5 is damaged."""

    def __init__(self, path):
        self.path = str(path)
        self.places = 0
        self.pieces = 0

    def read(self, session, object_id, offset, length):
        self.pieces += 1
        if object_id > 3:
            return NOT_HERE, 0, 0, b""
        return OK, 0, len(VALUE), VALUE[offset : offset + length]

    def place(self, session, object_id):
        self.places += 1
        if object_id == 5:
            return UNREADABLE, 0, 0, b""
        if object_id == 6:
            return OK, PLACE, len(VALUE), b"nonsense"
        if object_id > 3:
            return NOT_HERE, 0, 0, b""
        place = pack_place(self.path, os.stat(self.path).st_ino + (object_id == 3))
        return OK, PLACE, len(VALUE), b"" if object_id == 2 else place


@pytest.fixture
def source(file):
    return Source(file)


@pytest.fixture
def port(source):
    server = DataServer("127.0.0.1:0", SECRET, source, place=source.place)
    yield server.address
    server.close()


class Blocking:
    """The blocking client, by the methods of the other one."""

    def __init__(self, maps=True):
        self.client = DataClient(SECRET, maps=maps)

    async def fetch_bytes(self, address, number):
        return self.client.fetch_bytes(address, 1, number)[0]

    async def close(self):
        self.client.close()


class InLoop:
    """The client of an event loop."""

    def __init__(self, maps=True):
        self.client = LoopDataClient(SECRET, maps=maps)

    async def fetch_bytes(self, address, number):
        return await self.client.fetch_bytes(address, 1, number)

    async def close(self):
        await self.client.closed()


kinds = pytest.mark.parametrize("kind", [Blocking, InLoop])


@kinds
async def test_a_file_on_this_machine_is_mapped(kind, port, source):
    client = kind()
    found = await client.fetch_bytes(port, 1)
    assert (bytes(found), found.readonly, source.pieces) == (VALUE, True, 0)
    await client.close()
    os.unlink(source.path)
    assert bytes(found) == VALUE


@kinds
@pytest.mark.parametrize("number", [2, 3])
async def test_other_values_are_sent(kind, number, port, source):
    client = kind()
    for _ in range(2):
        assert bytes(await client.fetch_bytes(port, number)) == VALUE
    assert source.places == 2
    assert source.pieces == 2
    await client.close()


@kinds
async def test_who_does_not_ask_gets_values_sent(kind, port, source):
    client = kind(maps=False)
    assert bytes(await client.fetch_bytes(port, 1)) == VALUE
    assert (source.places, source.pieces) == (0, 1)
    await client.close()


@kinds
@pytest.mark.parametrize(("number", "reason"), [(4, "missing"), (5, "unreadable"), (6, "connection")])
async def test_what_is_not_there(kind, number, reason, port):
    client = kind()
    with pytest.raises(DataUnavailable) as caught:
        await client.fetch_bytes(port, number)
    assert caught.value.reason == reason
    assert bytes(await client.fetch_bytes(port, 1)) == VALUE
    await client.close()


@kinds
async def test_a_port_that_tells_no_places_is_asked_once(kind, source):
    server = DataServer("127.0.0.1:0", SECRET, source)
    client = kind()
    for _ in range(3):
        assert bytes(await client.fetch_bytes(server.address, 1)) == VALUE
    assert (source.places, source.pieces) == (0, 3)
    await client.close()
    server.close()


@kinds
async def test_other_machines_are_told_nothing(kind, port, source, monkeypatch):
    monkeypatch.setattr(dataserver, "is_same_machine", lambda sock: False)
    client = kind()
    assert bytes(await client.fetch_bytes(port, 1)) == VALUE
    assert (source.places, source.pieces) == (0, 1)
    await client.close()


def test_same_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far = socket.create_connection(server.getsockname(), source_address=("127.0.0.2", 0))
        assert (is_same_machine(near), is_same_machine(far)) == (True, False)
        near.close()
        assert not is_same_machine(near)
        far.close()


@kinds
async def test_a_kept_connection_that_is_dead_is_replaced(kind, source):
    server = DataServer("127.0.0.1:0", SECRET, source, place=source.place)
    client = kind()
    assert bytes(await client.fetch_bytes(server.address, 1)) == VALUE
    address = server.address
    server.close()
    server = DataServer(address, SECRET, source, place=source.place)
    assert bytes(await client.fetch_bytes(address, 1)) == VALUE
    await client.close()
    server.close()


def test_a_mapped_value_is_written_to_a_file(port, source, tmp_path):
    client = DataClient(SECRET, maps=True)
    path = tmp_path / "copy"
    path.write_bytes(b"something longer" * 60_000)
    assert client.fetch_file(port, 1, 1, path) == (len(VALUE), 0)
    assert path.read_bytes() == VALUE
    assert source.pieces == 0
    with pytest.raises(FileNotFoundError):
        client.fetch_file(port, 1, 1, "/nonexistent/file")
    client.close()


def place_of(path):
    return pack_place(str(path), os.lstat(path).st_ino)


def test_only_the_very_file_is_accepted(file, tmp_path):
    size = len(VALUE)
    assert bytes(map_place(place_of(file), size)) == VALUE
    link = tmp_path / "link"
    link.symlink_to(file)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o400)
    refused = [
        (place_of(file), size - 1),
        (place_of(file), size + 1),
        (place_of(file), 0),
        (pack_place(str(file), 1), size),
        (place_of(link), size),
        (pack_place(str(link), os.stat(file).st_ino), size),
        (place_of(pipe), 0),
        (place_of(tmp_path), size),
        (pack_place("/nonexistent", 5), size),
    ]
    assert [map_place(place, told) for place, told in refused] == [None] * len(refused)


def test_a_file_that_may_change_is_refused(file):
    file.chmod(0o600)
    assert map_place(place_of(file), len(VALUE)) is None


def test_files_of_others_are_refused(file, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(file).st_uid + 1)
    assert map_place(place_of(file), len(VALUE)) is None


@pytest.mark.parametrize("place", [b"", b"12345678", b"x" * (MAX_PLACE + 1), b"12345678/a\0b"])
def test_what_is_no_place(place):
    with pytest.raises(ProtocolError):
        map_place(place, 10)
