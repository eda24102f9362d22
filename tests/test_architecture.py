"""The rules of docs/design/architecture.md that a parser can check: arrows, purity, sizes, docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_BASE = {"common"}
_PROTOCOL = _BASE | {"protocol"}
_PROCESS = _PROTOCOL | {"process"}
_NET = _PROCESS | {"net"}
_CACHE = _NET | {"cache"}
_ROLES = _CACHE | {"server", "worker", "executor"}

ARROWS: dict[str, set[str]] = {
    "memcache": set(),
    "common": set(),
    "protocol": _BASE,
    "eventlog": _PROTOCOL,
    "process": _BASE,
    "net": _PROCESS,
    "cache": _NET | {"memcache"},
    "server": _CACHE | {"dashboard", "eventlog"},
    "worker": _CACHE,
    "executor": _CACHE,
    "subworker": {"executor"},
    "dashboard": _PROTOCOL | {"eventlog"},
    "launch": _ROLES,
    "client": _ROLES | {"launch"},
    "cli": _ROLES | {"client", "eventlog", "launch"},
    "integrations": _ROLES | {"client", "launch"},
    "__main__": {"cli"},
}
"""Which rooms a room may know, besides itself and `import rain` for the version."""

KNOWS_EVERYTHING = {"testing"}

PURE_ROOMS = ("rain.server.core", "rain.server.scheduler", "rain.worker.core")
PURE_MAY_IMPORT = (
    "rain.common",
    "rain.eventlog.records",
    "rain.protocol.fields",
    "rain.protocol.messages",
    "rain.protocol.worker_messages",
    *PURE_ROOMS,
)
IMPURE = {
    "asyncio",
    "concurrent",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
NOT_EVEN_INDIRECTLY = {"random", "time"}

MAX_LINES = 500
LONG_MODULES: set[str] = set()
"""Modules that may be longer for now; keep it empty."""


def module_name(path: Path) -> str:
    """`rain/net/__init__.py` -> `rain.net`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "rain").rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module of Rain."""
    return ast.parse(MODULES[module].read_text("utf-8"), filename=str(MODULES[module]))


@cache
def imports(module: str) -> frozenset[str]:
    """Absolute names of all modules imported anywhere in a module, in functions and for type checkers too."""
    return frozenset(_imports(module))


def _imports(module: str) -> Iterator[str]:
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                start = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                source = f"{start}.{source}" if source else start
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield submodule if submodule in MODULES else source


def room(module: str) -> str:
    """`rain.net.channel` -> `net`; `rain` itself has none."""
    return module.split(".")[1] if "." in module else ""


def in_package(module: str, packages: tuple[str, ...]) -> bool:
    """True for the packages themselves and everything in them."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def is_rain(name: str) -> bool:
    """True for modules of Rain."""
    return name == "rain" or name.startswith("rain.")


def pure_modules() -> list[str]:
    """Modules of the cores and schedulers."""
    return [module for module in MODULES if in_package(module, PURE_ROOMS)]


def test_modules_are_found():
    """The other tests would pass on an empty list."""
    assert "rain.protocol.messages" in MODULES
    assert pure_modules()


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str):
    """A room knows only the rooms below it."""
    own = room(module)
    if own in KNOWS_EVERYTHING:
        return
    assert own == "" or own in ARROWS, f"{module}: the room {own!r} has no place in ARROWS"
    allowed = ARROWS.get(own, set()) | {own, ""}
    wrong = sorted(name for name in imports(module) if is_rain(name) and room(name) not in allowed)
    assert not wrong, f"{module} must not import {wrong}"


@pytest.mark.parametrize("module", pure_modules())
def test_cores_are_pure(module: str):
    """Cores and schedulers touch no socket, clock, disk or process, and know only plain data."""
    impure = sorted({name.split(".")[0] for name in imports(module)} & IMPURE)
    assert not impure, f"{module} must not import {impure}"
    foreign = sorted(name for name in imports(module) if is_rain(name) and not in_package(name, PURE_MAY_IMPORT))
    assert not foreign, f"{module} must not import {foreign}"


@pytest.mark.parametrize("module", pure_modules())
def test_cores_do_not_reach_clock_or_random_numbers(module: str):
    """Time and random numbers come in with the event, also through what a core imports."""
    waiting, seen = [module], {module}
    while waiting:
        current = waiting.pop()
        reached = {name.split(".")[0] for name in imports(current)} & NOT_EVEN_INDIRECTLY
        assert not reached, f"{module} reaches {sorted(reached)} through {current}"
        new = {name for name in imports(current) if name in MODULES} - seen
        seen |= new
        waiting.extend(new)


def test_one_module_imports_capnp():
    """The traps of pycapnp are handled in one place."""
    importers = [module for module in MODULES if any(name.split(".")[0] == "capnp" for name in imports(module))]
    assert importers == ["rain.protocol.stock"]


def test_import_rain_is_light():
    """`import rain` imports nothing else."""
    assert not imports("rain")


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module: str):
    """A module has one responsibility."""
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    assert lines < MAX_LINES or module in LONG_MODULES, f"{module} has {lines} lines"


def test_no_needless_exceptions():
    """What became short leaves the list."""
    assert {module for module in LONG_MODULES if module not in MODULES} == set()


@pytest.mark.parametrize("module", MODULES)
def test_modules_have_a_docstring(module: str):
    """Each module with anything in it says what it is for."""
    assert not tree(module).body or ast.get_docstring(tree(module)), f"{module} has no docstring"
