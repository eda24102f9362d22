"""How programs that measure one thing tell their figures: on stdout and in a file of benchmarks/results."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from benchmarks.runner import RESULTS

if TYPE_CHECKING:
    from pathlib import Path


def publish(name: str, machine: dict[str, Any], figures: dict[str, Any], to: Path | None) -> None:
    """Print the figures and write them to a file.

    Args:
        name: what was measured; the file is called after it and the time.
        machine: what the figures depend on, taken before the measurement.
        figures: as JSON has them.
        to: the file; None: a new one in benchmarks/results.
    """
    now = time.gmtime()
    document = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", now), "machine": machine, **figures}
    text = json.dumps(document, indent=1) + "\n"
    path = to or RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S', now)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    print(text, end="")
