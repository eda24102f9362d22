"""The dashboard: a page of static files, and the answers it shows, made from the event log."""

from __future__ import annotations

from pathlib import Path


def static_files() -> Path:
    """The folder of the page: `index.html`, and below it what the page loads by the path `static/`."""
    return Path(__file__).parent / "static"
