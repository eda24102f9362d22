"""The rules of the package: it stands alone, its pure modules are pure, layers know only those below."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import rain.memcache

FOLDER = Path(rain.memcache.__file__).parent
MODULES = {".".join(path.relative_to(FOLDER).with_suffix("").parts): path for path in sorted(FOLDER.rglob("*.py"))}

IMPURE = {"asyncio", "logging", "os", "random", "socket", "ssl", "threading", "time"}
ONLY_FOR_TYPE_CHECKERS = {"_typeshed"}
OPTIONAL = {("hashing", "mmh3")}

PROTOCOL = {
    "binary",
    "columns",
    "dialects",
    "forms",
    "hashing",
    "manifest",
    "outcomes",
    "parsing",
    "replies",
    "requests",
}
LAYERS = (
    {"default_values", "client_errors", "addresses", "base", "options", "validation"},
    PROTOCOL,
    {"deadlines", "ends", "metrics", "ordering", "shortcut", "tls", "connection", "handshake"},
    {"node"},
    {"events", "discovery", "cluster"},
    {"exchanges", "batching", "bulk", "chunking", "many", "leases", "flights", "client"},
    {"factory", "__init__"},
)
"""From bottom to top; what stands in one set may know each other."""
PURE = sorted(PROTOCOL | {"default_values", "ordering", "validation"})


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imported(module: str, *, at_run_time: bool = False) -> set[str]:
    """Absolute names of what a module imports, anywhere in it."""
    left_out: set[ast.AST] = set()
    if at_run_time:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                left_out.update(inner for part in node.body for inner in ast.walk(part))
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute here"
            source = node.module or ""
            inner = source.removeprefix("rain.memcache").removeprefix(".")
            names.update(
                f"{source}.{alias.name}" if f"{inner}.{alias.name}".lstrip(".") in MODULES else source
                for alias in node.names
            )
    return names


def own(names: set[str]) -> set[str]:
    """Those in this package, without its name."""
    found = {name.removeprefix("rain.memcache").removeprefix(".") or "__init__" for name in names if is_ours(name)}
    return {name.removesuffix(".__init__") for name in found}


def is_ours(name: str) -> bool:
    return name == "rain.memcache" or name.startswith("rain.memcache.")


def test_modules_are_found():
    """The other tests would pass on an empty list."""
    assert {"client", "hashing", "testing.fake"} <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_stands_alone(module: str):
    """Nothing else of Rain, nothing that is not in Python; mmh3 is optional."""
    strange = {
        name
        for name in imported(module)
        if not is_ours(name)
        and name.split(".")[0] not in sys.stdlib_module_names
        and name.split(".")[0] not in ONLY_FOR_TYPE_CHECKERS
    }
    assert not strange, f"rain.memcache.{module} must not import {sorted(strange)}"
    needless = {name for name in imported(module, at_run_time=True) if name.split(".")[0] in ONLY_FOR_TYPE_CHECKERS}
    assert not needless


def test_imports_by_name():
    """What the syntax tree does not show: one optional module, in one place."""
    found = set()
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
                found.add((module, ast.literal_eval(node.args[0])))
    assert found == OPTIONAL


@pytest.mark.parametrize("module", PURE)
def test_pure_modules(module: str):
    """No clock, no chance, no input or output, not even through what they import when they run."""
    waiting, seen = [module], {module}
    while waiting:
        current = waiting.pop()
        impure = {name.split(".")[0] for name in imported(current, at_run_time=True)} & IMPURE
        assert not impure, f"{module} must not reach {sorted(impure)}, which {current} imports"
        new = (own(imported(current, at_run_time=True)) & MODULES.keys()) - seen - {"__init__"}
        seen |= new
        waiting.extend(new)


def test_every_module_has_a_layer():
    """Also those that come later."""
    placed = set().union(*LAYERS)
    assert {module for module in MODULES if not module.startswith("testing")} == placed
    assert set(PURE) <= placed


@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_layers(layer: int):
    """Each knows only those below it; types are no knowledge of what runs."""
    allowed = set().union(*LAYERS[: layer + 1])
    for module in LAYERS[layer]:
        wrong = own(imported(module, at_run_time=True)) - allowed
        assert not wrong, f"{module} must not import {sorted(wrong)}"


def test_the_client_does_not_import_what_is_for_tests():
    """`testing` is beside it."""
    for module in MODULES:
        if not module.startswith("testing"):
            assert not {name for name in own(imported(module)) if name.startswith("testing")}


def longest_function(module: str) -> tuple[int, str]:
    return max(
        (
            ((node.end_lineno or 0) - node.lineno + 1, node.name)
            for node in ast.walk(tree(module))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ),
        default=(0, ""),
    )


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str):
    lines, name = longest_function(module)
    assert lines < 60, f"{module}.{name} has {lines} lines"


def test_one_module_talks_to_transports():
    """Writing and closing them is the business of the connection."""
    writers = set()
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if not isinstance(node, ast.Attribute) or module.startswith("testing"):
                continue
            if node.attr in ("write", "writelines", "abort") and ast.unparse(node.value).endswith("transport"):
                writers.add(module)
    assert writers == {"connection"}
