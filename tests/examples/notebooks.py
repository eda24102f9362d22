"""Runs the notebooks of `examples/notebooks`, and stores what they show.

    python -m tests.examples.notebooks [NAME ...]

What is stored names neither temporary files nor ports of the machine on which it ran.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.examples.test_examples import MARK

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))

_EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
nbformat.validate(notebook)
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
client = NotebookClient(notebook, timeout=60, kernel_name="python3", coalesce_streams=True, record_timing=False)
client.execute()
notebook.metadata.language_info = {"name": "python"}
nbformat.write(notebook, sys.argv[2])
"""
_LOCAL = ((r"[^\s\"']*/ipykernel_\d+/\d+\.py", "<cell>"), (r"127\.0\.0\.1:\d+", "127.0.0.1:7210"))
_ALIKE = ((r"\[\d+:[^,\]]*, [^,\]]*", "[0"), (r" +(?=\n|$)", ""), (r"\d+([.:]\d+)*", "0"))
"""What a progress bar tells of time, and with what it hides a longer line; all numbers."""


def execute(notebook: Path, executed: Path, mark: str) -> None:
    """Run a notebook from its first cell to the last; its processes have `mark` in their environment."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAIN_", "JUPYTER", "IPY"))
    }
    done = subprocess.run(
        [sys.executable, "-c", _EXECUTE, str(notebook), str(executed)],
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(executed.parent), MARK: mark},
        cwd=executed.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The cells that are run, with what they showed."""
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def shown(cell: dict[str, Any]) -> list[str]:
    """What a cell shows, without what differs from run to run: ids, addresses, times."""
    texts = []
    for output in cell["outputs"]:
        assert output["output_type"] in ("stream", "execute_result"), output
        data = output.get("data") or {"text/plain": output["text"]}
        texts += [f"{kind}: {''.join(data[kind])}" for kind in sorted(data)]
    return [_replaced(without_places(text), _ALIKE) for text in texts]


def without_places(text: str) -> str:
    """Without what belongs to the machine on which it was made."""
    return _replaced(text, _LOCAL)


def _replaced(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def main(names: list[str]) -> None:
    """Run the notebooks of these names, or all, and store them with what they show."""
    for notebook in NOTEBOOKS:
        if not names or notebook.stem in names:
            with tempfile.TemporaryDirectory() as directory:
                executed = Path(directory) / notebook.name
                execute(notebook, executed, "stored")
                notebook.write_text(without_places(executed.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
