"""Writes the newest figures of each workload as a table into docs/performance.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.runner import RESULTS, ROOT
from benchmarks.systems import NAMES
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- figures: begin (written by `python -m benchmarks report`) -->"
END = "<!-- figures: end -->"

INTRODUCTION = f"""# Performance

Measured by `make bench`: all systems in one run on one machine, in turns, each with two executor processes; every
result is checked. Figures of a shared machine: compare the columns, not the days. `ppe` is
`concurrent.futures.ProcessPoolExecutor`, which has no server and moves no data between workers; graphs are driven by
the client there. The number in brackets says how many times better Rain is.

{BEGIN}
{END}
"""


def newest(workload: str, folder: Path) -> dict[str, Any] | None:
    """The newest figures of a workload, or None."""
    paths = sorted(folder.glob(f"{workload}-[0-9]*.json"))
    if not paths:
        return None
    document: dict[str, Any] = json.loads(paths[-1].read_text("utf-8"))
    return document


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(documents: list[dict[str, Any]]) -> str:
    """The comparison of all systems, then Rain's cpu time per role."""
    systems = [name for name in NAMES if any(name in document["medians"] for document in documents)]
    lines = [
        "| workload | unit | " + " | ".join(systems) + " | date |",
        "|" + " --- |" * (len(systems) + 3),
    ]
    for document in documents:
        cells = []
        for system in systems:
            entry = document["medians"].get(system)
            ratio = document["ratios"].get(system)
            text = number(entry["metrics"][document["metric"]]) if entry else ""
            cells.append(f"{text} ({number(ratio)}x)" if ratio is not None else text)
        what = f"{document['code']} {document['about']}"
        lines.append(f"| {what} | {document['unit']} | {' | '.join(cells)} | {document['date'][:10]} |")
    lines += ["", "Cpu time of Rain in microseconds per task:", ""]
    roles = ("client", "server", "worker", "executor")
    lines += ["| workload | " + " | ".join(roles) + " |", "|" + " --- |" * (len(roles) + 1)]
    for document in documents:
        entry = document["medians"].get("rain")
        tasks = entry and entry["metrics"].get("tasks")
        if tasks:
            spent = [number(entry["cpu_seconds"].get(role, 0.0) * 1e6 / tasks) for role in roles]
            lines.append(f"| {document['code']} {document['about']} | {' | '.join(spent)} |")
    machine = documents[0]["machine"]
    versions = {s: e["version"] for document in documents for s, e in document["medians"].items()}
    named = ", ".join(f"{system} {version}" for system, version in versions.items())
    load = max(document["machine"]["load_before"] for document in documents)
    lines += [
        "",
        f"{machine['cpus']} cpus, CPython {machine['python']}, Linux {machine['kernel']}; {named}. "
        f"Load of the machine before the measurements: at most {load:.1f}.",
    ]
    return "\n".join(lines)


def write(page: Path = PAGE, results: Path = RESULTS) -> bool:
    """Replace the table between the markers of the page.

    Returns:
        False when there are no figures yet.
    """
    documents = [document for name in WORKLOADS if (document := newest(name, results)) is not None]
    if not documents:
        return False
    text = page.read_text("utf-8") if page.exists() else INTRODUCTION
    if BEGIN not in text:
        text += f"\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{BEGIN}\n\n{table(documents)}\n\n{END}{after}", "utf-8")
    return True
