"""The page and its charts, made from figures in files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks import charts, report, runner, tables

PAGE = f"# Performance\n\nBefore.\n\n{report.BEGIN}\nold figures\n{report.END}\n\nAfter.\n"


def entry(metrics, cpu=None, peak=None, size=100):
    """Medians of one system."""
    values = [next(iter(metrics.values()))] * 3
    parts = {"metrics": metrics, "cpu_seconds": cpu or {}, "peak_bytes": peak or {}}
    return {"version": "1.2", "about": "a system", "size": size, "values": values, **parts}


def store(folder, workload, medians, failures=None, date="2026-01-02", load=0.25):
    """As the runner does."""
    machine = {"cpus": 2, "load_before": load, "python": "3.11.7", "kernel": "6.1"}
    document = {"workload": workload, "date": f"{date}T00:00:00Z", "machine": machine}
    document |= {"medians": medians, "ratios": {}, "failures": failures or {}}
    folder.mkdir(exist_ok=True)
    runner.path_of(workload, folder).write_text(json.dumps(document), "utf-8")


@pytest.fixture
def results(tmp_path):
    """Figures of some workloads."""
    folder = tmp_path / "results"
    cpu = {"client": 0.2, "server": 0.1, "worker": 0.3, "executor": 0.4}
    rain = entry({"tasks_per_second": 20_000.0, "tasks": 10_000, "seconds": 0.5}, cpu, {"server": 50 << 20})
    pool = entry({"tasks_per_second": 5_000.0, "tasks": 1_000, "seconds": 0.2}, {"client": 0.1, "worker": 0.1})
    dask = entry({"tasks_per_second": 500.0, "tasks": 100, "seconds": 0.2}, {"client": 0.1, "server": 0.1})
    store(folder, "trivial", {"rain": rain, "dask": dask, "ppe": pool}, {"ray": "boom"})
    store(folder, "latency", {"ppe": entry({"median_ms": 0.2}), "rain": entry({"median_ms": 0.8})}, date="2026-01-03")
    store(folder, "fetch", {"rain": entry({"results_per_second": 123_456.0})})
    store(folder, "data", {}, {"rain": "boom"})
    return folder


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "docs" / "performance.md"
    path.parent.mkdir()
    path.write_text(PAGE, "utf-8")
    return path


def test_page(results, page):
    """Figures stand between the markers, and can be written again."""
    assert report.write(page, results)
    text = page.read_text("utf-8")
    assert text.startswith("# Performance\n\nBefore.\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old figures" not in text
    assert "2026-01-02 to 2026-01-03; 2 cpus, CPython 3.11.7, Linux 6.1; turns: 3. Load" in text
    trivial = "W1 independent trivial tasks, all results fetched"
    assert f"| {trivial} | tasks/s | 20,000 | 5,000 (ppe) | 4x |" in text
    assert "| W2 one task, from call to result | ms | 0.8 | 0.2 (ppe) | 0.25x |" in text
    assert "| dask | 500 | 500 to 500 | 40x | 2,000 | 0 | 100 |" in text
    assert "results per second 123,456" in text
    assert f"| {trivial} | 20 | 10 | 30 | 40 | 0 | 50 | 0 | 0 |" in text
    assert f"* {trivial}: ray failed" in text
    assert "| ppe | 1.2 | a system |" in text
    assert report.write(page, results)
    assert page.read_text("utf-8") == text


def test_figures_of_a_busy_machine_are_marked(results, page):
    """Nobody takes them for what the systems can do."""
    assert report.write(page, results)
    assert "busy" not in page.read_text("utf-8")
    chain = {"rain": entry({"tasks_per_second": 1.0})}
    store(results, "chain", chain, date="2026-01-04", load=2.5)
    assert report.write(page, results)
    assert "busy" not in page.read_text("utf-8"), "what came before it was measured, too"
    store(results, "chain", chain, date="2026-01-01", load=2.5)
    assert report.write(page, results)
    assert "busy with other work" in page.read_text("utf-8")


def test_charts(results, page):
    """They are well-formed, the longest bar is the largest figure, and those without figures go."""
    images = page.parent / "images"
    images.mkdir()
    for name in ("perf-forgotten.svg", "other.svg"):
        (images / name).write_text("old", "utf-8")
    assert report.write(page, results)
    assert sorted(path.name for path in images.iterdir()) == [
        "other.svg",
        "perf-cpu.svg",
        "perf-rates.svg",
        "perf-times.svg",
    ]
    text = page.read_text("utf-8")
    for path in images.glob("perf-*.svg"):
        assert f"(images/{path.name})" in text
        picture = path.read_text("utf-8")
        ET.fromstring(picture)
        assert "prefers-color-scheme:dark" in picture
    rates = ET.fromstring((images / "perf-rates.svg").read_text("utf-8"))
    space = {"": "http://www.w3.org/2000/svg"}
    bars = [(one.get("class"), float(one.get("width", 0))) for one in rates.findall("rect", space)[1:]]
    assert bars == [("rain", 480.0), ("bar", 120.0), ("bar", 12.0)]


def test_names_in_charts_are_text():
    """Nothing in a name is markup."""
    picture = charts.svg("a & b", [charts.Panel("<b>", "", [charts.Bar("<i>", (0.0,), '"')])], ("x<y",))
    root = ET.fromstring(picture)
    assert "<i>" in [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_bars_of_parts_are_as_long_as_the_sum():
    panel = charts.Panel("", "", [charts.Bar("a", (1.0, 3.0), ""), charts.Bar("b", (2.0, 0.0), "")])
    root = ET.fromstring(charts.svg("t", [panel], ("one", "two")))
    widths = [float(one.get("width", 0)) for one in root.findall("{http://www.w3.org/2000/svg}rect")]
    assert widths[-4:] == [120.0, 360.0, 240.0, 0.0]


def test_report_without_figures(tmp_path, page):
    """Nothing is written when nothing was measured."""
    assert not report.write(page, tmp_path)
    assert page.read_text("utf-8") == PAGE


def test_page_without_markers(results, page):
    """The error says what to do."""
    page.write_text("# Performance\n", "utf-8")
    with pytest.raises(ValueError, match="put both in"):
        report.write(page, results)


def test_the_stored_figures_and_the_page_belong_together(tmp_path):
    """The page in the repository is made of the figures in the repository."""
    text = report.PAGE.read_text("utf-8")
    page = tmp_path / "performance.md"
    page.write_text(text, "utf-8")
    assert report.write(page)
    assert page.read_text("utf-8") == text, "run `python -m benchmarks report`"
    for path in sorted((tmp_path / "images").iterdir()):
        assert path.read_text("utf-8") == (report.PAGE.parent / "images" / path.name).read_text("utf-8")


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (12.34, "12.3"), (1234.5, "1,234"), (0.0, "0")])
def test_numbers(value, text):
    assert tables.number(value) == text
