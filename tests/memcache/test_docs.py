"""The pages about the client tell the truth: scripts run, options and operations are those that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rain.memcache import MemcachedHostAddress, base
from rain.memcache.testing import MemcachedServer
from tests.memcache.test_options import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs/memcache").glob("*.md"))
EXAMPLES = ROOT / "examples/memcache"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/memcache/tutorial.md").read_text("utf-8"), flags=re.DOTALL)


def page(name: str) -> str:
    return (ROOT / "docs/memcache" / name).read_text("utf-8")


def run(*command: str) -> list[str]:
    """The lines that a script prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("cannot connect to")]
    assert (done.returncode, complaints) == (0, [])
    return done.stdout.splitlines()


def url(server: MemcachedServer) -> str:
    return f"memcached://{server.address}"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_tutorial(number: int, servers: tuple[MemcachedServer, MemcachedServer], tmp_path: Path):
    """Every script prints what its comments say."""
    address = servers[0].address
    assert isinstance(address, MemcachedHostAddress)
    block = BLOCKS[number]
    expected = [line.rpartition("  # ")[2].rstrip() for line in block.splitlines() if "print(" in line]
    script = tmp_path / "script.py"
    here = block.replace("localhost:11211", str(address))
    script.write_text(here.replace('"localhost", 11211', f'"{address.address}", {address.port}'), "utf-8")
    assert run(str(script)) == expected


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    """To pages that exist, and to headings in them."""
    for target, heading in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", path.read_text("utf-8")):
        page = path.parent / target if target else path
        assert page.exists()
        if heading:
            headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), flags=re.MULTILINE)
            assert heading in [each.lower().replace(" ", "-") for each in headings]


def test_every_option_is_described():
    """With its default, in the order of the signature."""
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", page("options.md"), flags=re.MULTILINE)
    assert rows == [(name, repr(value).replace("'", '"')) for name, value in DEFAULTS.items()]


def test_every_operation_is_described():
    text = page("operations.md")
    operations = {name for name in vars(base.Client) if not name.startswith("_")}
    for name in operations:
        assert re.search(rf"\b{name}(\(|`)", text), name


def test_every_metric_is_described():
    fields = re.findall(r"`(\w+)`(?=[^|]*\|)", page("failures.md"))
    assert [name for name in base.ConnectionPoolMetrics.__annotations__ if name not in fields] == []


def test_cached_reports(servers: tuple[MemcachedServer, MemcachedServer]):
    """Three reports per second or so, however many read them."""
    [line] = run(str(EXAMPLES / "cached_reports.py"), url(servers[0]), "--seconds", "2.5")
    match = re.fullmatch(r"(\d+) reads, (\d+) reports made, (\d+) reads had to wait", line)
    assert match is not None
    reads, made, slow = map(int, match.groups())
    assert reads > 500
    assert 3 <= made <= 12
    assert slow >= 60


def test_rate_limit(servers: tuple[MemcachedServer, MemcachedServer]):
    assert run(str(EXAMPLES / "rate_limit.py"), url(servers[0])) == [
        "ada: 10 of 100, edsger: 10 of 100, grace: 10 of 100"
    ]


def test_watch_nodes(servers: tuple[MemcachedServer, MemcachedServer]):
    first, second = (server.address for server in servers)
    lines = run(str(EXAMPLES / "watch_nodes.py"), f"memcached://{first},{second}", "--seconds", "0")
    assert [line.split(": ")[0] for line in lines] == [str(first), str(second)]
    assert all(re.search(r": 1 connections, \d+ operations, \d+ items, memcached [\d.]+", line) for line in lines)
