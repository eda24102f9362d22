"""Figures of long runs: with `RAIN_SOAK_LOG=FILE` each test adds a line with what it recorded (`record_property`)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

LOG = os.environ.get("RAIN_SOAK_LOG")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what a test did that recorded figures."""
    if LOG and report.when == "call" and report.user_properties:
        entry = {
            "test": report.nodeid,
            "passed": report.passed,
            "seconds": round(report.duration, 1),
            "ended": round(time.time()),
            "figures": dict(report.user_properties),
        }
        with Path(LOG).open("a") as log:
            log.write(json.dumps(entry) + "\n")
