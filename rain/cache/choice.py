"""Which cache a server uses: `--cache URL` and `--cache-size SIZE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from rain.common.structs import dataclass

DEFAULT_SIZE = 1 << 30
DEFAULT_KEY_FILE = "~/.rain/cache.key"
_MEMCACHED = "memcached://"


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """Where results are kept.

    Attributes:
        directory: of the backend `dir`, None for Memcached.
        servers: of Memcached, as its URL names them, None for `dir`.
        key_file: of a cache in Memcached.
        size: most bytes of the backend `dir`.
    """

    directory: Path | None = None
    servers: str | None = None
    key_file: Path = Path(DEFAULT_KEY_FILE)
    size: int = DEFAULT_SIZE

    def to_map(self) -> dict[str, Any]:
        """For workers."""
        return {
            "directory": None if self.directory is None else str(self.directory),
            "servers": self.servers,
            "key_file": str(self.key_file),
            "size": self.size,
        }

    @classmethod
    def from_map(cls, data: dict[str, Any]) -> CacheChoice:
        """What a server told.

        Raises:
            KeyError, TypeError: it is something else.
        """
        directory = data["directory"]
        return cls(
            None if directory is None else Path(directory), data["servers"], Path(data["key_file"]), int(data["size"])
        )


def parse_choice(text: str, workdir: Path, size: int = DEFAULT_SIZE) -> CacheChoice | None:
    """Read the value of `--cache`.

    Args:
        text: `dir`, `dir:PATH`, `memcached://HOST:PORT[,HOST:PORT..][?key_file=PATH]` or `none`.
        workdir: of the server, where `dir` without a path is.
        size: most bytes of the backend `dir`.

    Returns:
        The choice, None for `none`.

    Raises:
        ValueError: it is none of these.
    """
    if text == "none":
        return None
    if text == "dir":
        return CacheChoice(workdir / "cache", size=size)
    if text.startswith("dir:") and len(text) > len("dir:"):
        return CacheChoice(Path(text.removeprefix("dir:")).absolute(), size=size)
    if text.startswith(_MEMCACHED):
        return _memcached(text, size)
    raise ValueError(f"--cache is dir, dir:PATH, memcached://HOST:PORT[,HOST:PORT..] or none, not {text!r}")


def _memcached(text: str, size: int) -> CacheChoice:
    servers, _, query = text.partition("?")
    options = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    unknown = sorted(options.keys() - {"key_file"})
    if unknown:
        raise ValueError(f"--cache {text!r}: unknown option {unknown[0]!r}; the only one is key_file")
    if servers == _MEMCACHED:
        raise ValueError(f"--cache {text!r} names no server")
    key_file = options.get("key_file", [DEFAULT_KEY_FILE])[-1]
    return CacheChoice(None, servers, Path(key_file), size)
