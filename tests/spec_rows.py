"""The rows of the tables of the API reference and the tests that prove them; data in `spec_rows.toml`."""

from __future__ import annotations

import ast
import functools
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
ROWS = {"4.2": 32, "5.7": 8, "12": 21, "14": 45}
"""Number of rows of each table: 4.2 and 12 with the sentence after the table as one more row."""

LATER: dict[str, Callable[[], bool]] = {
    "dashboard": lambda: _has_module("rain.server.http"),
    "event log": lambda: _has_module("rain.server.journal"),
    "persistent sessions": lambda: _has_module("rain.server.journal"),
    "management verbs": lambda: _has_module("rain.cli.events"),
}
"""Features that rows wait for: name -> whether it is there by now."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. tests: `path::function` or `path::function[parameter]`; later: feature it waits for."""

    table: str
    key: str
    text: str
    tests: tuple[str, ...]
    later: str | None

    def __str__(self) -> str:
        return f"{self.table}: {self.key}"


def read_rows() -> list[Row]:
    """All rows of the data file, in its order."""
    tables = tomllib.loads((ROOT / "tests" / "spec_rows.toml").read_text("utf-8"))
    return [
        Row(table, key, entry.pop("text"), tuple(entry.pop("tests", ())), entry.pop("later", None), **entry)
        for table, rows in tables.items()
        for key, entry in rows.items()
    ]


def defects(row: Row) -> Iterator[str]:
    """What keeps a row from being proved."""
    if row.later is None and not row.tests:
        yield "no test proves it"
    if row.later is not None and row.later not in LATER:
        yield f"it waits for {row.later!r}, which is no feature"
    elif row.later is not None and LATER[row.later]():
        yield f"it waits for {row.later!r}, which is there by now"
    for test in row.tests:
        if not exists(test):
            yield f"{test} does not exist"


def exists(test: str) -> bool:
    """Whether a test function, and the text of its parameter, is in the file named."""
    name, _, parameter = test.partition("[")
    path, _, function = name.partition("::")
    if function not in functions(path):
        return False
    return not parameter or is_parameter(path, parameter.removesuffix("]"))


@functools.cache
def functions(path: str) -> frozenset[str]:
    """Names of the functions in a file, those in classes included; none if there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_bytes(), path))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_parameter(path: str, parameter: str) -> bool:
    """Whether a test in this file is run with the parameter, told by its text."""
    if path == "tests/cluster/test_service_levels.py":
        return f" {parameter})," in (ROOT / "benchmarks" / "levels.py").read_text("utf-8")
    if path == "tests/scripts/test_scripts.py":
        return (ROOT / "tests" / "scripts" / f"{parameter.replace('-', '/', 1)}.py").is_file()
    return parameter in (ROOT / path).read_text("utf-8")


def _has_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
