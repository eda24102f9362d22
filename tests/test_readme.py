"""What the README and CONTRIBUTING promise exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    """No dead link in the first pages."""
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text("utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str):
    """Commands can be copied."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"^ +make (\w[\w-]*)", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE))
    assert named
    assert [target for target in named if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []
