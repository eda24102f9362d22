"""Compares Memcached clients on a memcached server of its own, in turns; prints a table and writes the results.

    python -m benchmarks.memcache [--seconds S] [--repeat N] [--clients NAME ...] [--to FILE]

Two set-ups: `one core`, where client and server share one CPU, tells what both cost together; `free` leaves the
processes where the kernel puts them. Rivals that are not installed (`make bench-setup`) are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.memcache_client import CLIENTS, LOADS
from benchmarks.publishing import publish
from benchmarks.runner import ENVIRONMENTS, RESULTS, ROOT, machine
from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.testing import MemcachedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENVIRONMENT = "memcache"
"""Where the rivals are installed."""
MODES = ("one core", "free")
START_SECONDS = 60.0
SERVER_OPTIONS = ("-m", "256")
LEVELS = (
    # what is compared: mode, load, other client, how often faster rain must at least be
    *(
        ("one core", f"{operation}, 100 B, {callers} callers", other, factor)
        for callers in (32, 128)
        for operation, other, factor in (
            ("get", "emcache", 6.0),
            ("set", "emcache", 6.0),
            ("get", "emcache_autobatching", 1.1),
            ("set", "emcache_autobatching", 6.0),
        )
    ),
    *(
        ("one core", f"{operation}, 10 KB, {callers} callers", "emcache", 3.0)
        for callers in (32, 128)
        for operation in ("get", "set")
    ),
    *(
        (mode, f"{operation}, 100 B, 1 callers", "emcache", factor)
        for mode, factor in (("free", 1.0), ("one core", 1.6))
        for operation in ("get", "set")
    ),
    *(("one core", f"get_many, 100 B, {callers} callers", "emcache", 1.2) for callers in (1, 32)),
    *(
        (mode, load.name, other, 1.0)
        for mode in MODES
        for load in LOADS
        if load.operation != "set_each"
        for other in ("aiomcache", "pymemcache")
    ),
)
"""The service levels; what is not listed has none."""
SET_MANY_FACTOR = 10.0
"""How often faster `set_many` must be than the same number of single sets, awaited one by one."""

Figures = dict[str, Any]


def interpreter(client: str) -> str | None:
    """The Python that a client is measured with, the same for all; None when the client is not installed."""
    folder = ENVIRONMENTS / ENVIRONMENT
    if (folder / ".installed").exists():
        return str(folder / "bin" / "python")
    return sys.executable if client == "rain" else None


@contextlib.contextmanager
def pinned(mode: str) -> Iterator[None]:
    """What is started meanwhile stays on one CPU, if the mode says so."""
    allowed = os.sched_getaffinity(0)
    if mode == "one core":
        os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def measure(client: str, python: str, address: MemcachedHostAddress, seconds: float) -> Figures:
    """One turn of a client, in a fresh process."""
    command = [python, "-m", "benchmarks.memcache_client", client, address.address, str(address.port), str(seconds)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=START_SECONDS + 10 * seconds * len(LOADS),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{client} failed with exit code {done.returncode}\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def take_turns(pythons: dict[str, str], repeat: int, seconds: float) -> dict[str, list[Figures]]:
    """Figures by mode; clients take turns, in the opposite order every other time."""
    runs: dict[str, list[Figures]] = {mode: [] for mode in MODES}
    for mode in MODES:
        with pinned(mode), MemcachedServer(options=SERVER_OPTIONS) as server:
            assert isinstance(server.address, MemcachedHostAddress)
            for turn in range(repeat):
                for client in [*pythons][:: -1 if turn % 2 else 1]:
                    runs[mode].append(measure(client, pythons[client], server.address, seconds))
                    print(f"{mode}, turn {turn + 1} of {repeat}: {client}", file=sys.stderr, flush=True)
    return runs


def summary(runs: list[Figures]) -> dict[str, dict[str, Figures]]:
    """By load and client: medians, all values, and how often faster rain is (below 1: slower)."""
    found: dict[str, dict[str, Figures]] = {}
    for load in (load.name for load in LOADS):
        by_client: dict[str, list[dict[str, float]]] = {}
        for run in runs:
            if load in run["loads"]:
                by_client.setdefault(run["client"], []).append(run["loads"][load])
        found[load] = {client: _medians(own) for client, own in by_client.items()}
        rain = found[load].get("rain")
        for client, entry in found[load].items():
            if rain is not None and client != "rain":
                entry["rain_is_faster"] = round(rain["calls_per_second"] / entry["calls_per_second"], 2)
    return found


def _medians(own: list[dict[str, float]]) -> Figures:
    rates = [figures["calls_per_second"] for figures in own]
    cpu = statistics.median(figures["cpu_us_per_call"] for figures in own)
    values = [round(rate) for rate in rates]
    return {"calls_per_second": round(statistics.median(rates)), "cpu_us_per_call": round(cpu, 2), "values": values}


def levels(results: dict[str, dict[str, dict[str, Figures]]]) -> list[Figures]:
    """The service levels for which there are figures, and whether they are kept."""
    found = []
    for mode, load, other, factor in LEVELS:
        ratio = results[mode][load].get(other, {}).get("rain_is_faster")
        if ratio is not None:
            found.append(_level(f"{mode}: {load}, against {other}", ratio, factor))
    for mode in MODES:
        rates = {name: results[mode][f"{name}, 100 B, 1 callers"].get("rain") for name in ("set_many", "set_each")}
        many, each = rates["set_many"], rates["set_each"]
        if many is not None and each is not None:
            ratio = round(many["calls_per_second"] / each["calls_per_second"], 2)
            found.append(_level(f"{mode}: set_many against single sets", ratio, SET_MANY_FACTOR))
    return found


def _level(what: str, ratio: float, factor: float) -> Figures:
    return {"level": what, "times_faster": ratio, "at_least": factor, "kept": ratio >= factor}


def table(results: dict[str, dict[str, dict[str, Figures]]]) -> str:
    """Thousand calls per second, by mode, load and client."""
    lines = []
    for mode, loads in results.items():
        clients = [client for client in CLIENTS if any(client in entries for entries in loads.values())]
        lines.append(f"{mode + ', 1000 calls/s':32}" + "".join(f"{client:>22}" for client in clients))
        for load, entries in loads.items():
            cells = (f"{entries[name]['calls_per_second'] / 1000:.1f}" if name in entries else "" for name in clients)
            lines.append(f"{load:32}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, find: Callable[[str], str | None] = interpreter) -> int:
    """Measure, print, write the file; exit code 1 when a service level is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each load in each turn")
    parser.add_argument("--repeat", type=int, default=5, help="turns; the figures are medians")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--to", type=Path, default=RESULTS / "memcache.json")
    options = parser.parse_args(arguments)
    facts = machine()
    pythons = {client: python for client in options.clients if (python := find(client)) is not None}
    for client in options.clients:
        if client not in pythons:
            print(f"{client} is not installed; run `make bench-setup`", file=sys.stderr)
    with MemcachedServer() as server:
        server_version = server.stats()["version"]
    runs = take_turns(pythons, options.repeat, options.seconds)
    results = {mode: summary(own) for mode, own in runs.items()}
    kept = levels(results)
    figures = {
        "server": f"memcached {server_version} {' '.join(SERVER_OPTIONS)}",
        "clients": {client: CLIENTS[client] for client in pythons},
        "versions": {run["client"]: run["version"] for own in runs.values() for run in own},
        "python": sorted({run["python"] for own in runs.values() for run in own}),
        "seconds": options.seconds,
        "repeat": options.repeat,
        "results": results,
        "levels": kept,
    }
    publish("memcache", facts, figures, options.to)
    print(table(results), file=sys.stderr)
    for level in kept:
        if not level["kept"]:
            print(f"not kept: {level['level']}: {level['times_faster']}, not {level['at_least']}", file=sys.stderr)
    return 0 if all(level["kept"] for level in kept) else 1


if __name__ == "__main__":
    sys.exit(main())
