"""The tables of docs/performance.md, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OWN = "rain"
ROLES = ("client", "server", "worker", "executor")
MEBIBYTE = 1 << 20

Document = dict[str, Any]
"""The figures of one workload, as `benchmarks.runner` writes them."""


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def times(ratio: float) -> str:
    """How many times better; below 1 it is worse."""
    return f"{number(ratio)}x" if ratio >= 1 else f"{ratio:.2f}x"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def what(document: Document) -> str:
    """A workload, in words."""
    described = WORKLOADS[document["workload"]]
    return f"{described.code} {described.about}"


def value_of(document: Document, system: str) -> float:
    """The figure by which systems are compared."""
    metric = WORKLOADS[document["workload"]].metric
    return float(document["medians"][system]["metrics"][metric])


def is_own(system: str) -> bool:
    """Whether it is Rain, in whatever setting."""
    return system.partition("_")[0] == OWN


def ranked(document: Document) -> list[str]:
    """Names of the systems measured, the best one first."""
    better = WORKLOADS[document["workload"]].more_is_better
    return sorted(document["medians"], key=lambda system: value_of(document, system), reverse=better)


def ratio(document: Document, best: str, other: str) -> float:
    """How many times better `best` is than `other`."""
    first, second = value_of(document, best), value_of(document, other)
    if not WORKLOADS[document["workload"]].more_is_better:
        first, second = second, first
    return first / second if second else 0.0


def overview(documents: Sequence[Document]) -> list[str]:
    """One line per workload: Rain, and the best of the others."""
    rows = []
    for document in documents:
        ours = [system for system in ranked(document) if is_own(system)]
        rivals = [system for system in ranked(document) if not is_own(system)]
        unit = WORKLOADS[document["workload"]].unit
        row = [what(document), unit]
        row.append(named(document, ours[0]) if ours else "")
        row.append(named(document, rivals[0]) if rivals else "")
        row.append(times(ratio(document, ours[0], rivals[0])) if ours and rivals else "")
        rows.append(row)
    return grid(("workload", "unit", "Rain", "best of the others", "Rain is better"), rows)


def named(document: Document, system: str) -> str:
    """A figure, and whose it is if that is not Rain in its usual setting."""
    text = number(value_of(document, system))
    return text if system == OWN else f"{text} ({system})"


def comparison(document: Document) -> list[str]:
    """All systems that were measured with one workload."""
    unit = WORKLOADS[document["workload"]].unit
    against = OWN if OWN in document["medians"] else next(filter(is_own, ranked(document)), None)
    rows = []
    for system in ranked(document):
        entry = document["medians"][system]
        tasks = entry["metrics"].get("tasks")
        spent = sum(entry["cpu_seconds"].values())
        rows.append(
            (
                f"**{system}**" if is_own(system) else system,
                number(value_of(document, system)),
                f"{number(min(entry['values']))} to {number(max(entry['values']))}",
                "" if against is None or is_own(system) else times(ratio(document, against, system)),
                number(spent * 1e6 / tasks) if tasks else "",
                number(sum(entry["peak_bytes"].values()) / MEBIBYTE),
                f"{entry['size']:,}",
            )
        )
    head = ("system", unit or "ratio", "of single turns", "Rain is better", "cpu us/task", "peak MiB", "size")
    return grid(head, rows)


def alone(documents: Sequence[Document]) -> list[str]:
    """All metrics of workloads that only Rain was measured with."""
    rows = []
    for document in documents:
        entry = document["medians"][OWN]
        metrics = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in entry["metrics"].items())
        rows.append((what(document), metrics))
    return grid(("workload", "medians"), rows)


def own_roles(documents: Sequence[Document]) -> list[str]:
    """Cpu time and memory of Rain by role."""
    rows = []
    for document in documents:
        entry = document["medians"].get(OWN)
        tasks = entry and entry["metrics"].get("tasks")
        if tasks:
            spent = [number(entry["cpu_seconds"].get(role, 0.0) * 1e6 / tasks) for role in ROLES]
            memory = [number(entry["peak_bytes"].get(role, 0.0) / MEBIBYTE) for role in ROLES]
            rows.append((what(document), *spent, *memory))
    head = ("workload", *(f"{role} us" for role in ROLES), *(f"{role} MiB" for role in ROLES))
    return grid(head, rows)


def systems(documents: Sequence[Document]) -> list[str]:
    """What was measured."""
    known = {system: entry for document in documents for system, entry in document["medians"].items()}
    rows = [(name, entry["version"], entry["about"]) for name, entry in known.items()]
    return grid(("system", "version", "how"), rows)


def failures(documents: Sequence[Document]) -> list[str]:
    """What could not be measured."""
    return [
        f"* {what(document)}: {system} failed"
        for document in documents
        for system in document["failures"]
    ]
