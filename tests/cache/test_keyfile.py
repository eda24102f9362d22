"""The key file."""

import stat
from pathlib import Path

import pytest

from rain.cache.backend import CacheError
from rain.cache.keyfile import make_key_file, read_key_file


def test_a_fresh_key_is_private_and_stays(tmp_path: Path):
    path = tmp_path / "deep" / "cache.key"
    make_key_file(path)
    first = read_key_file(path)
    assert len(first) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    make_key_file(path)
    assert read_key_file(path) == first
    assert [entry.name for entry in path.parent.iterdir()] == ["cache.key"]


def test_keys_differ(tmp_path: Path):
    make_key_file(tmp_path / "a")
    make_key_file(tmp_path / "b")
    assert read_key_file(tmp_path / "a") != read_key_file(tmp_path / "b")


def test_the_home_directory_is_known(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_key_file(Path("~/.rain/cache.key"))
    assert read_key_file(Path("~/.rain/cache.key"))
    assert (tmp_path / ".rain" / "cache.key").exists()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path):
    path = tmp_path / "key"
    make_key_file(path)
    path.chmod(0o644)
    with pytest.raises(CacheError, match="readable by others; run: chmod 600"):
        read_key_file(path)


def test_a_missing_or_short_key_is_refused(tmp_path: Path):
    with pytest.raises(CacheError, match="cannot read the key file"):
        read_key_file(tmp_path / "none")
    path = tmp_path / "short"
    path.write_text("abc")
    path.chmod(0o600)
    with pytest.raises(CacheError, match="less than 32 characters"):
        read_key_file(path)


def test_two_servers_at_once(tmp_path: Path, monkeypatch):
    path = tmp_path / "key"
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: False if self == path else exists(self))
    make_key_file(path)
    first = read_key_file(path)
    make_key_file(path)
    assert read_key_file(path) == first
    assert len(list(tmp_path.iterdir())) == 1
