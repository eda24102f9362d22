"""What the README and CONTRIBUTING promise exists and works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")


def text_of(page: str) -> str:
    """The source of a page."""
    return (ROOT / page).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    """No dead link in the first pages."""
    targets = re.findall(r"\]\(([^)#:]+)\)", text_of(page))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str):
    """Commands can be copied."""
    makefile = text_of("Makefile")
    named = set(re.findall(r"^ +make (\w[\w-]*)", text_of(page), flags=re.MULTILINE))
    assert named
    assert [target for target in named if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []


@pytest.mark.cluster
def test_the_example_runs(tmp_path: Path):
    """The first program people try does what it says."""
    blocks = re.findall(r"```python\n(.*?)```", text_of("README.md"), flags=re.DOTALL)
    assert len(blocks) == 1
    script = tmp_path / "example.py"
    script.write_text(blocks[0], "utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**clean, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("10\n", 0), done.stderr
