"""Values that do not come inline: holders are tried in order, then the server is asked for others."""

from __future__ import annotations

from array import array

import pytest

from rain.client import RainConnectionError, blob, directory, tasks
from rain.client.fetch import MAX_ROUNDS
from rain.net.dataclient import DataUnavailable
from rain.protocol.messages import FetchObjects, ObjectsFetched


class Holders:
    """A data client: knows what each address gives."""

    def __init__(self, values):
        self.values = values
        self.asked = []

    def fetch_bytes(self, address, session, number):
        self.asked.append(address)
        if address not in self.values:
            raise DataUnavailable(f"cannot reach {address}", address, "connection")
        return bytearray(self.values[address]), 0

    def fetch_file(self, address, session, number, path):
        value, flags = self.fetch_bytes(address, session, number)
        path.write_bytes(value)
        return len(value), flags

    def close(self):
        """Nothing to close."""


@pytest.fixture
def kept(session, server):
    """A submitted object that is at w1 or w2; without these the server relays it."""
    task = tasks.concat([blob("x")])
    task.keep_outputs()
    session.submit()
    answer = server._answer

    def holders(message):
        if not isinstance(message, FetchObjects):
            return answer(message)
        places = [holder for holder in ("w1:1", "w2:1", "server:1") if holder not in message.unreachable]
        return [ObjectsFetched(message.seq, array("Q", [5]), [], [], [None], [places])]

    server._answer = holders
    return task.output


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({"w1:1": b"value"}, ["w1:1"]),
        ({"w2:1": b"value"}, ["w1:1", "w2:1"]),
        ({"server:1": b"value"}, ["w1:1", "w2:1", "server:1"]),
    ],
)
def test_holders_in_order(client, kept, values, asked):
    client._blocking_front.data = Holders(values)
    assert kept.fetch().get_bytes() == b"value"
    assert client._blocking_front.data.asked == asked
    assert kept.size == 5


def test_no_holder(client, kept, server):
    client._blocking_front.data = Holders({})
    with pytest.raises(RainConnectionError, match="could not be read from any holder") as raised:
        kept.fetch()
    assert "cannot reach w1:1" in str(raised.value)
    rounds = server.all(FetchObjects)
    assert len(rounds) == MAX_ROUNDS
    assert rounds[0].unreachable == []
    assert rounds[1].unreachable == ["w1:1", "w2:1", "server:1"]


def test_to_a_file(client, kept, tmp_path):
    client._blocking_front.data = Holders({"w2:1": b"value"})
    target = tmp_path / "value"
    instance = kept.fetch(to=target)
    assert target.read_bytes() == b"value"
    assert instance.get_bytes() == b"value"
    client._blocking_front.data = Holders({})
    with pytest.raises(RainConnectionError):
        kept.fetch(to=target)
    assert [path.name for path in tmp_path.iterdir()] == ["value"]
    assert target.read_bytes() == b"value"


@pytest.fixture
def kept_directory(session, kept, tmp_path):
    """A submitted directory that is where `kept` is, and its tar."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("text")
    task = tasks.make_directory([("f", blob("text"))])
    task.keep_outputs()
    value = directory(tree).data
    session.submit()
    return task.output, value


def test_directory(client, kept_directory, tmp_path):
    dataobj, value = kept_directory
    client._blocking_front.data = Holders({"w1:1": value})
    instance = dataobj.fetch()
    assert instance.get_bytes() == value
    instance.write(tmp_path / "new")
    assert (tmp_path / "new" / "f").read_text() == "text"
    with pytest.raises(FileExistsError):
        instance.write(tmp_path / "new")


def test_directory_to_a_path(client, kept_directory, tmp_path):
    dataobj, value = kept_directory
    client._blocking_front.data = Holders({"w2:1": value})
    instance = dataobj.fetch(to=tmp_path / "a" / "new")
    assert (tmp_path / "a" / "new" / "f").read_text() == "text"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert instance.get_bytes() == value
    (tmp_path / "empty").mkdir()
    dataobj.fetch(to=tmp_path / "empty")
    assert (tmp_path / "empty" / "f").read_text() == "text"


def test_directory_to_a_path_that_is_taken(client, kept_directory, server, tmp_path):
    dataobj, value = kept_directory
    client._blocking_front.data = Holders({"w1:1": value})
    (tmp_path / "file").touch()
    for taken in ("tree", "file"):
        with pytest.raises(FileExistsError):
            dataobj.fetch(to=tmp_path / taken)
    assert client._blocking_front.data.asked == []
    assert not server.all(FetchObjects)


def test_sizes_of_constant_directories(client, session, server, tmp_path):
    (tmp_path / "f").write_text("text")
    made = directory(tmp_path)
    made.keep()
    session.submit()
    assert made.fetch().size == 4
    assert made.size == 4
    server.infos[made.id.id] = b"\x81\xa4size\xcd\x28\x00"
    made.update()
    assert made.size == 4
