"""Making a cache ready, and opening it elsewhere."""

from __future__ import annotations

import asyncio
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rain.cache.backend import CacheError
from rain.cache.choice import parse_choice
from rain.cache.directory import DirectoryBackend
from rain.cache.opening import MARK, open_backend, prepare
from rain.cache.shared import MemcachedBackend


def opened(told: dict[str, Any]) -> tuple[Any, bytes]:
    async def main() -> tuple[Any, bytes]:
        backend, secret = await open_backend(told, threads)
        await backend.close()
        return backend, secret

    with ThreadPoolExecutor(1) as threads:
        return asyncio.run(main())


def test_no_cache(tmp_path: Path):
    assert prepare(parse_choice("none", tmp_path)) == {}


def test_a_directory(tmp_path: Path):
    told = prepare(parse_choice("dir", tmp_path))
    place = tmp_path / "cache"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert told[MARK] == (place / MARK).read_text()
    backend, secret = opened(told)
    assert isinstance(backend, DirectoryBackend)
    assert secret == b""
    assert prepare(parse_choice("dir", tmp_path)) == told


def test_a_directory_that_is_not_here_or_another_one(tmp_path: Path):
    told = prepare(parse_choice("dir", tmp_path))
    with pytest.raises(CacheError, match=r"another cache is there.*shared file system"):
        opened({**told, MARK: "other"})
    with pytest.raises(CacheError, match="No such file"):
        opened({**told, "directory": str(tmp_path / "elsewhere")})


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_a_directory_in_which_others_can_write(tmp_path: Path, mode: int):
    told = prepare(parse_choice("dir", tmp_path))
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(CacheError, match=r"others can write.*chmod go-w"):
        opened(told)
    with pytest.raises(CacheError, match="others can write"):
        prepare(parse_choice("dir", tmp_path))


def test_memcached(tmp_path: Path):
    key = tmp_path / "key"
    told = prepare(parse_choice(f"memcached://127.0.0.1:1?key_file={key}", tmp_path))
    backend, secret = opened(told)
    assert isinstance(backend, MemcachedBackend)
    assert secret == key.read_text().strip().encode()
    key.chmod(0o644)
    with pytest.raises(CacheError, match="chmod 600"):
        opened(told)


def test_a_wrong_address_of_memcached(tmp_path: Path):
    told = prepare(parse_choice(f"memcached://a:99999?key_file={tmp_path / 'key'}", tmp_path))
    with pytest.raises(CacheError, match="memcached://a:99999"):
        opened(told)


@pytest.mark.parametrize(
    "told", [{"x": 1}, {"directory": None}, {"directory": 5, "servers": 1, "key_file": "", "size": 0}]
)
def test_a_server_of_another_version(told: dict[str, Any]):
    with pytest.raises(CacheError, match="does not understand"):
        opened(told)
