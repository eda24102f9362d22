"""The notebooks run from their first cell to the last, and show what is stored in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.examples.test_examples import MARK, marked_processes

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))

EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
nbformat.validate(notebook)
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
NotebookClient(notebook, timeout=60, kernel_name="python3", coalesce_streams=True).execute()
nbformat.write(notebook, sys.argv[2])
"""


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def shown(cell: dict[str, Any]) -> list[str]:
    """What a cell shows; one number for all, as ids, addresses and times differ."""
    texts = []
    for output in cell["outputs"]:
        assert output["output_type"] in ("stream", "execute_result"), output
        data = output.get("data") or {"text/plain": output["text"]}
        texts += [f"{kind}: {''.join(data[kind])}" for kind in sorted(data)]
    return [re.sub(r"\d+([.:]\d+)*", "0", text) for text in texts]


@pytest.mark.cluster
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook: Path, tmp_path: Path) -> None:
    executed = tmp_path / notebook.name
    mark = f"{os.getpid()}-{notebook.name}"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAIN_", "JUPYTER", "IPY"))
    }
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(notebook), str(executed)],
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), MARK: mark},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    psutil.wait_procs(marked_processes(mark), timeout=5)
    assert marked_processes(mark) == []
    stored, made = code_cells(notebook), code_cells(executed)
    assert [cell["execution_count"] for cell in stored] == list(range(1, len(stored) + 1))
    for before, now in zip(stored, made, strict=True):
        assert shown(now) == shown(before), "".join(now["source"])


def test_there_are_notebooks() -> None:
    """With the things that users look for."""
    (text,) = [path.read_text("utf-8") for path in NOTEBOOKS if path.stem == "first_steps"]
    for wanted in ("session.progress()", "100%|", "failed: ValueError", "explain()", "text/html"):
        assert wanted in text
