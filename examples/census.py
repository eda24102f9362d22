"""A census of source code: what names, functions and imports a tree of Python files is made of.

One task per file parses it (the client reads the files and sends them as blobs, so the workers need no common file
system); a tree of tasks merges eight partial results at a time into one. `--local` computes the same in this process.

    python examples/census.py                        standard library, embedded cluster
    python examples/census.py SRC --out report       own code, report as census.json and census.md
    python examples/census.py --server HOST:PORT     on a running cluster
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.client import Client, blob, remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FAN_IN = 8
LONGEST = 20
COMMONEST = 30

Census = dict[str, Any]


# --- what the tasks compute -------------------------------------------------------------------------


def census_of(path: str, source: bytes) -> Census:
    """Count what is in one file; one that does not parse is reported, not fatal."""
    totals = {"files": 1, "lines": source.count(b"\n"), "functions": 0, "classes": 0, "unparsable": 0}
    identifiers: Counter[str] = Counter()
    imports: Counter[str] = Counter()
    functions: list[tuple[int, str, str]] = []
    broken: list[tuple[str, str]] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, filename=path)
    except (SyntaxError, ValueError, RecursionError) as error:
        totals["unparsable"] = 1
        broken.append((path, f"{type(error).__name__}: {error}"))
        tree = ast.Module(body=[], type_ignores=[])
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            identifiers[node.id] += 1
        elif isinstance(node, ast.Attribute):
            identifiers[node.attr] += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            totals["functions"] += 1
            functions.append(((node.end_lineno or node.lineno) - node.lineno + 1, path, node.name))
        elif isinstance(node, ast.ClassDef):
            totals["classes"] += 1
        elif isinstance(node, ast.Import):
            imports.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports[node.module.split(".")[0]] += 1
    return {
        "totals": totals,
        "identifiers": identifiers,
        "imports": imports,
        "imports_of": {path: sorted(imports)},
        "longest": longest(functions),
        "broken": broken,
    }


def longest(functions: Iterable[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """The longest functions, ties in order of path and name."""
    return sorted(functions, key=lambda item: (-item[0], item[1], item[2]))[:LONGEST]


def merge(parts: Iterable[Census]) -> Census:
    """Add up partial results; the order of the parts does not matter."""
    totals: Counter[str] = Counter()
    identifiers: Counter[str] = Counter()
    imports: Counter[str] = Counter()
    imports_of: dict[str, list[str]] = {}
    functions: list[tuple[int, str, str]] = []
    broken: list[tuple[str, str]] = []
    for part in parts:
        totals.update(part["totals"])
        identifiers.update(part["identifiers"])
        imports.update(part["imports"])
        imports_of.update(part["imports_of"])
        functions.extend(part["longest"])
        broken.extend(part["broken"])
    return {
        "totals": dict(totals),
        "identifiers": identifiers,
        "imports": imports,
        "imports_of": imports_of,
        "longest": longest(functions),
        "broken": sorted(broken),
    }


# --- the graph --------------------------------------------------------------------------------------


@remote(auto_load=False, auto_encode="pickle")
def parse_file(ctx: Any, path: str, source: Any) -> Any:
    """Task: one file, given as a blob."""
    return census_of(path, source.get_bytes())


@remote(auto_load=True, auto_encode="pickle")
def merge_parts(ctx: Any, parts: list[Census]) -> Any:
    """Task: up to FAN_IN partial results."""
    return merge(parts)


def groups(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive groups of `size` items; the last may be smaller."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def build(files: dict[str, bytes]) -> tuple[list[Any], Any]:
    """Make the graph in the active session; returns all its tasks and the one at the root."""
    level = [parse_file(path, blob(source, label=path)) for path, source in files.items()]
    tasks = list(level)
    while len(level) > 1:
        level = [merge_parts(group) for group in groups(level, FAN_IN)]
        tasks += level
    return tasks, level[0]


def run_on_cluster(files: dict[str, bytes], server: str | None) -> Census:
    """Compute the census on a cluster, an embedded one when there is no address."""
    with Client(server) as client, client.new_session("census") as session:
        tasks, root = build(files)
        root.output.keep()
        session.submit()
        print(f"submitted {len(tasks)} tasks for {len(files)} files", file=sys.stderr)
        for percent in range(10, 100, 10):
            # The graph is a tree: when this task is done, about so much of the work is.
            session.wait(tasks[: len(files) * percent // 100])
            print(f"  {percent} % of the files parsed", file=sys.stderr)
        result: Census = root.output.fetch().load()
    return result


# --- input and output -------------------------------------------------------------------------------


def read_tree(root: Path) -> dict[str, bytes]:
    """All Python files below a directory, by relative path; third-party packages are left out."""
    paths = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts and path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def report_of(census: Census) -> dict[str, Any]:
    """The part of a census that goes into the report, in a fixed order."""

    def commonest(counts: Counter[str]) -> list[tuple[str, int]]:
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMMONEST]

    return {
        "totals": census["totals"],
        "identifiers": commonest(census["identifiers"]),
        "distinct_identifiers": len(census["identifiers"]),
        "imports": commonest(census["imports"]),
        "imports_per_module": dict(sorted(census["imports_of"].items())),
        "longest_functions": census["longest"],
        "unparsable_files": census["broken"],
    }


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""

    def table(title: str, header: list[str], rows: Iterable[Iterable[Any]]) -> list[str]:
        lines = [f"\n## {title}\n", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        return lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]

    lines = ["# Census of source code"]
    lines += table("Totals", ["what", "count"], report["totals"].items())
    lines += table(f"Identifiers ({report['distinct_identifiers']})", ["name", "uses"], report["identifiers"])
    lines += table("Imports", ["module", "files"], report["imports"])
    most = sorted(report["imports_per_module"].items(), key=lambda item: (-len(item[1]), item[0]))[:COMMONEST]
    lines += table("Imports per module", ["file", "imports"], ((path, ", ".join(names)) for path, names in most))
    lines += table("Longest functions", ["lines", "file", "function"], report["longest_functions"])
    lines += table("Files that do not parse", ["file", "error"], report["unparsable_files"])
    return "\n".join(lines) + "\n"


def main() -> int:
    """Read the command line, compute, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", nargs="?", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--server", metavar="HOST:PORT", help="a running cluster; default: an embedded one")
    parser.add_argument("--local", action="store_true", help="compute in this process, without a cluster")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write census.json and census.md there")
    options = parser.parse_args()

    files = read_tree(options.tree)
    if not files:
        print(f"there is no Python file in {options.tree}", file=sys.stderr)
        return 1
    start = time.perf_counter()
    if options.local:
        census = merge(census_of(path, source) for path, source in files.items())
    else:
        census = run_on_cluster(files, options.server)
    seconds = time.perf_counter() - start

    report = report_of(census)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "census.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        (options.out / "census.md").write_text(markdown(report), "utf-8")
        print(f"report: {options.out / 'census.md'}", file=sys.stderr)
    totals = ", ".join(f"{count} {name}" for name, count in report["totals"].items())
    print(f"{totals}; {report['distinct_identifiers']} distinct identifiers in {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
