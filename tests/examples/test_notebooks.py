"""The notebooks run from their first cell to the last, and show what is stored in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import pytest

from tests.examples.notebooks import NOTEBOOKS, code_cells, execute, shown, without_places
from tests.examples.test_examples import marked_processes


@pytest.mark.cluster
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook: Path, tmp_path: Path) -> None:
    executed = tmp_path / notebook.name
    mark = f"{os.getpid()}-{notebook.name}"
    execute(notebook, executed, mark)
    psutil.wait_procs(marked_processes(mark), timeout=20)
    assert marked_processes(mark) == []
    stored, made = code_cells(notebook), code_cells(executed)
    assert [cell["execution_count"] for cell in stored] == list(range(1, len(stored) + 1))
    for before, now in zip(stored, made, strict=True):
        assert shown(now) == shown(before), "".join(now["source"])


WANTED = {
    "first_steps": ("session.progress()", "100%|", "failed: ValueError", "explain()", "text/html"),
    "failure_and_debugging": (
        *("ZeroDivisionError", "Traceback", "explain()", "retries=", 'on_failure=\\"continue\\"', "cancel()"),
        *("rain task log", "dashboard", 'session.tasks(state=\\"failed\\")'),
    ),
    "numpy_at_scale": ("owndata", "session.map", "100%|", "perf_counter", "np.allclose"),
}


def test_there_are_notebooks() -> None:
    """With the things that users look for."""
    assert {path.stem for path in NOTEBOOKS} == set(WANTED)
    for path in NOTEBOOKS:
        text = path.read_text("utf-8")
        for wanted in WANTED[path.stem]:
            assert wanted in text, (path.stem, wanted)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_stored(notebook: Path) -> None:
    text = notebook.read_text("utf-8")
    assert without_places(text) == text
    assert not re.search(r"/(tmp|home|root|work|usr)/|token=", text)
