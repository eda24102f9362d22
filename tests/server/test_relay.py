"""The server hands out constants, and relays values of workers to who cannot reach them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from rain.net.dataclient import DataUnavailable
from rain.protocol.data import NOT_HERE, OK
from rain.server.constants import ConstantStore
from rain.server.core.events import CopyUnreadable
from rain.server.relay import ServerValues


class Core:
    """Knows one small value and the holders of another."""

    def value(self, session: int, obj: int) -> bytes | None:
        return b"small" if (session, obj) == (1, 10) else None

    def holders(self, session: int, obj: int) -> list[tuple[int, str]]:
        return [(1, "dead:1"), (2, "alive:1")] if (session, obj) == (1, 12) else []


class Workers:
    """Reads from workers; one of them is dead."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def fetch_file(self, address: str, session: int, obj: int, path: Path) -> tuple[int, int]:
        self.reads.append(address)
        if address == "dead:1":
            raise DataUnavailable("no", address, "connection")
        path.write_bytes(b"from a worker")
        return 13, 0


async def test_values_of_all_kinds(tmp_path: Path) -> None:
    constants, workers, unreadable = ConstantStore(tmp_path / "constants"), Workers(), []
    constants.write(1, 11, 0, b"large ")
    constants.write(1, 11, 6, b"constant")
    core: Any = Core()
    client: Any = workers
    values = ServerValues(core, constants, tmp_path / "relay", client, unreadable.append)
    assert await values.read(1, 10, 2, 2) == (OK, 0, 5, b"al")
    assert await values.read(1, 11, 6, 0) == (OK, 0, 14, b"constant")
    pieces = await asyncio.gather(*[values.read(1, 12, offset, 4) for offset in (0, 5, 9)])
    assert [piece[3] for piece in pieces] == [b"from", b"a wo", b"rker"]
    assert workers.reads == ["dead:1", "alive:1"], "one transfer for all who ask"
    assert unreadable == [CopyUnreadable(1, 12, 1)]
    assert (await values.read(1, 99, 0, 0))[0] == NOT_HERE
    constants.drop(1, [11])
    assert (await values.read(1, 11, 0, 0))[0] == NOT_HERE
    for timer in values._expiry.values():
        timer.cancel()


def test_constants_of_a_session_go_together(tmp_path: Path) -> None:
    constants = ConstantStore(tmp_path / "constants")
    constants.write(1, 10, 0, b"a")
    constants.write(1, 11, 0, b"b")
    constants.drop(1, None)
    constants.drop(1, None)
    constants.drop(1, [10])
    assert constants.read(1, 10, 0, 0) is None
    assert not (tmp_path / "constants" / "1").exists()


def test_shared_constants_outlive_each_other(tmp_path: Path) -> None:
    constants = ConstantStore(tmp_path / "constants")
    constants.write(1, 10, 0, b"value")
    constants.share(1, 11, 10)
    constants.drop(1, [10])
    assert constants.read(1, 11, 0, 0) == (5, b"value")
