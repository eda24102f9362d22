"""Every script in docs/guide.md does what its comments say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/guide.md").read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.cluster
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int, tmp_path: Path) -> None:
    expected = [line.rpartition("# ")[2].rstrip() for line in BLOCKS[number].splitlines() if "print(" in line]
    script = tmp_path / "script.py"
    script.write_text(BLOCKS[number], "utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**clean, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr
