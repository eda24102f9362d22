"""The comparison of Memcached clients, with short loads."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import memcache, memcache_client
from rain.memcache.testing import MemcachedServer, missing_program

pytestmark = pytest.mark.skipif(missing_program() is not None, reason=str(missing_program()))
RIVALS = [name for name in memcache_client.CLIENTS if name != "rain"]


@pytest.mark.parametrize("client", memcache_client.CLIENTS)
def test_each_client(client: str):
    """The rivals are among what the tests need."""
    if client.startswith("emcache"):
        pytest.importorskip("emcache", reason="emcache has no wheel for this Python")
    with MemcachedServer() as server:
        figures = memcache.measure(client, sys.executable, server.address, 0.001)
        assert int(server.stats()["cmd_set"]) > len(memcache_client.KEYS)
    assert figures["client"] == client
    loads = [load.name for load in memcache_client.LOADS if client != "pymemcache" or load.callers == 1]
    assert list(figures["loads"]) == loads
    assert all(entry["calls_per_second"] > 0 for entry in figures["loads"].values())


def test_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Turns, medians, ratios and levels, of figures made up."""
    factors = {"rain": 12, "emcache": 1, "emcache_autobatching": 8, "pymemcache": 2}
    before = os.sched_getaffinity(0)
    measured = []

    def measure(client: str, python: str, address: object, seconds: float) -> memcache.Figures:
        measured.append((client, len(os.sched_getaffinity(0))))
        entry = {"calls_per_second": 1000.0 * factors[client] + len(measured), "cpu_us_per_call": 5.0}
        loads = {load.name: dict(entry) for load in memcache_client.LOADS}
        loads["set_each, 100 B, 1 callers"]["calls_per_second"] /= 20
        return {"client": client, "version": "1", "python": "3.11.7", "loads": loads}

    monkeypatch.setattr(memcache, "measure", measure)
    path = tmp_path / "results" / "memcache.json"
    arguments = ["--repeat", "3", "--seconds", "0.1", "--to", str(path)]
    assert memcache.main(arguments, lambda client: None if client == "aiomcache" else "python") == 1
    captured = capsys.readouterr()
    document = json.loads(path.read_text("utf-8"))
    assert json.loads(captured.out) == document
    assert "aiomcache is not installed" in captured.err
    assert "get, 100 B, 128 callers" in captured.err
    names = list(factors)
    assert [client for client, _ in measured] == (names + names[::-1] + names) * 2
    assert {cpus for _, cpus in measured[:12]} == {1}
    assert os.sched_getaffinity(0) == before
    entry = document["results"]["free"]["get, 100 B, 32 callers"]["rain"]
    assert entry == {"calls_per_second": 12020, "cpu_us_per_call": 5.0, "values": [12013, 12020, 12021]}
    assert document["results"]["one core"]["get, 100 B, 32 callers"]["emcache"]["rain_is_faster"] > 11
    missed = [level["level"] for level in document["levels"] if not level["kept"]]
    assert missed == [f"one core: set, 100 B, {callers} callers, against emcache_autobatching" for callers in (32, 128)]
    assert "against aiomcache" not in captured.out
    assert memcache.main(["--clients", "rain", "--repeat", "1", "--to", str(path)], lambda client: "python") == 0


def test_wrong_values_are_noticed():
    """A client that mixes answers up is not measured."""

    class Mixed(memcache_client.Client):
        def get(self, key: bytes) -> bytes:
            return b"the value of another key"

        def value(self, result: bytes) -> bytes:
            return result

    load = memcache_client.Load("get", "100 B", 1)
    caller = memcache_client.caller_of(Mixed(None), load, asynchronous=False)
    with pytest.raises(memcache_client.WrongValue, match="instead of"):
        asyncio.run(memcache_client.run(caller, 1, 1.0))


def test_a_client_that_fails_is_told():
    with MemcachedServer() as server:
        address = server.address
    with pytest.raises(RuntimeError, match="rain failed"):
        memcache.measure("rain", sys.executable, address, 0.001)


def test_all_clients_have_the_same_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memcache, "ENVIRONMENTS", tmp_path)
    assert memcache.interpreter("rain") == sys.executable
    assert {memcache.interpreter(rival) for rival in RIVALS} == {None}
    (tmp_path / "memcache").mkdir()
    (tmp_path / "memcache" / ".installed").touch()
    python = str(tmp_path / "memcache" / "bin" / "python")
    assert {memcache.interpreter(client) for client in memcache_client.CLIENTS} == {python}
