"""Writes the newest figures of all workloads into docs/performance.md, and charts of them into docs/images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.charts import Bar, Panel, svg
from benchmarks.runner import RESULTS, ROOT, path_of
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.tables import Document

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- figures: begin (written by `python -m benchmarks report`) -->"
END = "<!-- figures: end -->"
BUSY = (
    "\n\n**The machine was busy with other work while these figures were taken. They show what the tables look like,\n"
    "and not what the systems can do: run `make bench` on a quiet machine.**"
)
PREFIX = "perf-"
CHARTS = {
    "rates": ("Tasks per second", ("trivial", "tree", "chains", "chain", "grid", "programs")),
    "times": ("Times: shorter is better", ("latency", "startup", "data")),
    "arrays": ("Calls sent together, per second", ("map",)),
}
"""Charts of figures, with the workloads in each."""
CPU_CHART = "cpu"
CPU_WORKLOADS = ("trivial", "tree")

PARTS = {"client": 0, "server": 1, "worker": 2, "executor": 3}
LEGEND = ("client", "server", "worker or pool", "executor", "other")


def read(results: Path) -> list[Document]:
    """The figures there are, in the order of the workloads."""
    paths = [path_of(name, results) for name in WORKLOADS]
    documents = [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]
    return [document for document in documents if document["medians"]]


def bars(document: Document) -> Panel:
    """The systems by their figure, the best one first."""
    described = WORKLOADS[document["workload"]]
    better = "more" if described.more_is_better else "less"
    panel = Panel(tables.what(document), f"{described.unit}, {better} is better")
    for system in tables.ranked(document):
        value = tables.value_of(document, system)
        panel.bars.append(Bar(system, (value,), f"{tables.number(value)} {described.unit}", tables.is_own(system)))
    return panel


def cpu_bars(document: Document) -> Panel:
    """Cpu time per task by role, the least first."""
    panel = Panel(tables.what(document), "cpu time per task, all processes, less is better")
    for system, entry in document["medians"].items():
        parts = [0.0] * len(LEGEND)
        for role, seconds in entry["cpu_seconds"].items():
            parts[PARTS.get(role.removesuffix("s"), len(LEGEND) - 1)] += seconds * 1e6 / entry["metrics"]["tasks"]
        text = f"{tables.number(sum(parts))} us"
        panel.bars.append(Bar(system, tuple(parts), text, tables.is_own(system)))
    panel.bars.sort(key=lambda bar: sum(bar.parts))
    return panel


def pictures(documents: list[Document]) -> dict[str, tuple[str, str]]:
    """Title and SVG of each chart for which there are figures, by name."""
    known = {document["workload"]: document for document in documents}
    found = {}
    for name, (title, workloads) in CHARTS.items():
        panels = [bars(known[workload]) for workload in workloads if workload in known]
        if panels:
            found[name] = title, svg(title, panels)
    panels = [cpu_bars(known[workload]) for workload in CPU_WORKLOADS if workload in known]
    if panels:
        title = "Cpu time per task"
        found[CPU_CHART] = title, svg(title, panels, LEGEND)
    return found


def machine(documents: list[Document]) -> str:
    """Where and when."""
    one = min(documents, key=lambda document: str(document["date"]))["machine"]
    load = one["load_before"]  # the later ones are loads of the measurements themselves
    dates = sorted(document["date"][:10] for document in documents)
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    turns = {len(entry["values"]) for document in documents for entry in document["medians"].values()}
    return (
        f"{days}; {one['cpus']} cpus, CPython {one['python']}, Linux {one['kernel']}; "
        f"turns: {' to '.join(map(str, sorted({min(turns), max(turns)})))}. "
        f"Load of the machine before the first measurement: {load:.1f}." + (BUSY if load > one["cpus"] else "")
    )


def body(documents: list[Document], charts: dict[str, tuple[str, str]], images: str) -> str:
    """What comes between the markers."""
    lines = [machine(documents), "", "## In short", "", *tables.overview(documents), ""]
    for name, (title, _) in charts.items():
        lines += [f"![{title}]({images}/{PREFIX}{name}.svg)", ""]
    compared = [document for document in documents if len(document["medians"]) > 1]
    if compared:
        lines += ["## Each workload", ""]
    for document in compared:
        lines += [f"### {tables.what(document)}", "", *tables.comparison(document), ""]
    own = [document for document in documents if set(document["medians"]) == {tables.OWN}]
    if own:
        lines += ["## Rain alone", "", *tables.alone(own), ""]
    lines += ["## Where Rain spends it", "", "Cpu time per task, and peak of resident memory:", ""]
    lines += [*tables.own_roles(documents), "", "## What was measured", "", *tables.systems(documents), ""]
    failed = tables.failures(documents)
    return "\n".join([*lines, *failed, ""] if failed else lines)


def write(page: Path = PAGE, results: Path = RESULTS) -> bool:
    """Replace what is between the markers of the page, and the charts beside it.

    Returns:
        False when there are no figures yet.

    Raises:
        ValueError: the page has no markers.
    """
    documents = read(results)
    if not documents:
        return False
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks one of the lines {BEGIN!r} and {END!r}; put both in where the figures belong")
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    charts = pictures(documents)
    for old in images.glob(f"{PREFIX}*.svg"):
        if old.stem.removeprefix(PREFIX) not in charts:
            old.unlink()
    for name, (_, picture) in charts.items():
        (images / f"{PREFIX}{name}.svg").write_text(picture, "utf-8")
    page.write_text(f"{before}{BEGIN}\n\n{body(documents, charts, images.name)}\n{END}{after}", "utf-8")
    return True
