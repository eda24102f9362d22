"""Access files: private, atomic, found by address (spec 11.10)."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from rain.common.errors import AuthenticationError
from rain.net import access as access_module
from rain.net.access import (
    AccessFile,
    newest_access_file,
    read_access_file,
    remove_access_file,
    write_access_file,
)
from rain.net.address import Address

HOST = socket.gethostname()


def access(**changes) -> AccessFile:
    fields = {
        "server_id": "one",
        "hostname": HOST,
        "addresses": ["127.0.0.1"],
        "port": 7210,
        "http_port": 7222,
        "token": "secret",
        "tls_fingerprint": None,
        "pid": 1,
        "created": 100.0,
    }
    return AccessFile(**{**fields, **changes})


@pytest.fixture
def environ(tmp_path):
    return {"RAIN_ACCESS_DIR": str(tmp_path / "deep" / "access"), "HOME": str(tmp_path / "home")}


def test_written_and_read(environ):
    path = write_access_file(access(), environ)
    assert path == Path(environ["RAIN_ACCESS_DIR"]) / f"{HOST}-7210.json"
    assert read_access_file(path) == access()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_keys_are_those_of_the_specification(environ):
    content = json.loads(write_access_file(access(), environ).read_text())
    assert set(content) == {
        "version", "server_id", "hostname", "addresses", "port", "http_port", "token", "tls_fingerprint", "pid",
        "created",
    }  # fmt: skip
    assert content["version"] == 1


def test_home_is_the_default(tmp_path):
    path = write_access_file(access(), {"HOME": str(tmp_path)})
    assert path.parent == tmp_path / ".rain" / "access"


def test_unusable_home_falls_back(tmp_path, monkeypatch):
    fallback = tmp_path / "rain-1" / "access"
    monkeypatch.setattr(access_module, "_shared_fallback", lambda: fallback)
    blocked = tmp_path / "file"
    blocked.write_text("")
    environ = {"HOME": str(blocked)}
    assert write_access_file(access(), environ).parent == fallback
    found = newest_access_file(environ)
    assert found is not None
    assert found[1] == access()
    assert write_access_file(access(), {}).parent == fallback


def test_directory_of_another_user_is_refused(tmp_path, monkeypatch, environ, caplog):
    write_access_file(access(), environ)
    monkeypatch.setattr(access_module.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(AuthenticationError, match="belongs to another user"):
        write_access_file(access(), environ)
    with pytest.raises(AuthenticationError, match="belongs to another user"):
        newest_access_file(environ)
    (tmp_path / ".rain" / "access").mkdir(parents=True)
    assert newest_access_file({"HOME": str(tmp_path)}) is None
    assert "belongs to another user" in caplog.text


def test_planted_link_in_the_shared_directory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine" / "access").mkdir(parents=True)
    (tmp_path / "rain-1").symlink_to(tmp_path / "mine")
    monkeypatch.setattr(access_module, "_shared_fallback", lambda: tmp_path / "rain-1" / "access")
    with pytest.raises(AuthenticationError, match="not a directory"):
        write_access_file(access(), {})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_readable_by_others_is_refused(environ, mode):
    path = write_access_file(access(), environ)
    path.chmod(mode)
    with pytest.raises(AuthenticationError, match="readable by others"):
        read_access_file(path)
    assert newest_access_file(environ) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 2}', '{"version": 1, "port": "x", "hostname": "h"}', "\x00"],
)
def test_malformed_files_are_refused_and_skipped(environ, text):
    good = write_access_file(access(), environ)
    bad = good.with_name("bad-1.json")
    bad.write_text(text)
    bad.chmod(0o600)
    with pytest.raises(AuthenticationError, match="is not an access file"):
        read_access_file(bad)
    found = newest_access_file(environ)
    assert found is not None
    assert found[0] == good


def test_missing_file(tmp_path):
    with pytest.raises(AuthenticationError, match="No such file"):
        read_access_file(tmp_path / "none.json")
    with pytest.raises(AuthenticationError, match=r"directory|plain file"):
        read_access_file(tmp_path)


def test_own_path(environ, tmp_path):
    path = write_access_file(access(), environ, tmp_path / "mine.json")
    assert read_access_file(path) == access()
    with pytest.raises(AuthenticationError, match="cannot write"):
        write_access_file(access(), environ, tmp_path / "missing" / "mine.json")


def test_removed_only_by_its_server(environ):
    path = write_access_file(access(), environ)
    write_access_file(access(server_id="two"), environ)
    assert not remove_access_file(path, "one")
    assert path.exists()
    assert remove_access_file(path, "two")
    assert not path.exists()
    assert not remove_access_file(path, "two")


def test_newest_of_those_that_match(environ):
    write_access_file(access(port=1, created=1.0), environ)
    write_access_file(
        access(port=2, created=3.0, hostname="elsewhere", addresses=["10.0.0.1", "node.example"]), environ
    )
    write_access_file(access(port=2, created=2.0), environ)

    def port_and_time(address):
        found = newest_access_file(environ, address)
        return None if found is None else (found[1].port, found[1].created)

    assert port_and_time(None) == (2, 3.0)
    assert port_and_time(Address("127.0.0.1", 1)) == (1, 1.0)
    assert port_and_time(Address("127.0.0.1", 2)) == (2, 2.0)
    assert port_and_time(Address("10.0.0.1", 2)) == (2, 3.0)
    assert port_and_time(Address("Node.Example", 2)) == (2, 3.0)
    assert port_and_time(Address("elsewhere", 2)) == (2, 3.0)
    assert port_and_time(Address("10.0.0.1", 1)) is None
    assert port_and_time(Address("127.0.0.1", 3)) is None


def test_address_to_connect_to():
    assert access().address == Address("127.0.0.1", 7210)
    assert access(addresses=["10.0.0.1", "127.0.0.1"]).address == Address("127.0.0.1", 7210)
    assert access(addresses=["10.0.0.1"]).address == Address("10.0.0.1", 7210)
    assert access(hostname="elsewhere", addresses=["10.0.0.1", "127.0.0.1"]).address == Address("10.0.0.1", 7210)
    assert access(hostname="elsewhere", addresses=[]).address == Address("elsewhere", 7210)


def test_token_is_not_in_the_repr():
    assert "secret" not in repr(access())
