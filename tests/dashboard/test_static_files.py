"""The page without a browser: what it is made of, and what it may not have."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from rain.dashboard import static_files

ROOT = Path(__file__).resolve().parents[2]
STATIC = static_files()
OWN = sorted(
    path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".html") and "vendor" not in path.parts
)
VENDOR = STATIC / "vendor"
MAX_LINES = 500


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(STATIC).as_posix() for path in paths]


def test_entry_points_have_the_promised_names() -> None:
    assert (STATIC / "index.html").is_file()
    assert len(list(STATIC.glob("js/main.*.js"))) == 1
    assert len(list(STATIC.glob("css/main.*.css"))) == 1


@pytest.mark.parametrize("path", OWN, ids=names(OWN))
def test_files_are_short_and_name_no_host(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < MAX_LINES
    assert re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text) == []


def test_the_page_has_nothing_that_the_policy_forbids() -> None:
    text = (STATIC / "index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", text) == []
    addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert addresses
    assert [address for address in addresses if address.startswith("/") or ":" in address] == []


def test_scripts_evaluate_no_text() -> None:
    for path in STATIC.rglob("*.js"):
        text = path.read_text("utf-8")
        assert re.findall(r"\beval\(|\bnew Function\(", text) == []
        assert path.parent == VENDOR or re.findall(r"\b(?:inner|outer)HTML\b|insertAdjacentHTML", text) == []


def test_modules_import_files_that_exist() -> None:
    for path in STATIC.rglob("*.js"):
        for target in re.findall(r'(?:import|export)[^;"]*?from\s*"([^"]+)"', path.read_text("utf-8")):
            assert target.startswith("."), f"{path.name} imports {target}: there is no build step that would find it"
            assert (path.parent / target).is_file(), f"{path.name} imports {target}, which is not there"


def test_vendored_files_have_licences() -> None:
    table = (VENDOR / "README.md").read_text("utf-8")
    for path in VENDOR.glob("*.js"):
        row = next(line for line in table.splitlines() if f"`{path.name}`" in line)
        licence = re.search(r"`(\w+\.LICENSE)`", row)
        assert licence is not None
        assert (VENDOR / licence[1]).stat().st_size > 500


def test_the_package_has_the_files() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    assert data["rain.dashboard"] == ["static/**"]
