"""Shows that the tests catch bugs: each mutant of mutants.toml is put into a copy of the source and the tests run
there until one fails. Usage: `python -m tests.mutation [--only N ...] [--out FILE]`; exit code 1 if more than one
survives.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutation import MUTANTS, ROOT, Mutant

STAGES = (
    ("unit and matrix tests", ["tests/server", "tests/worker/core"]),
    ("property tests", ["tests/property"]),
    ("simulation", ["tests/sim"]),
)
SIZES = {"RAIN_SIM_SEEDS": "300", "RAIN_PROPERTY_SEQUENCES": "300"}
"""A seventh of what `make test` does is enough."""
TIME_LIMIT = 900
"""Seconds per stage; a mutant that hangs the tests is caught."""
ALLOWED = 1


def main() -> int:
    """Run all mutants."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutants, from 1 on")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "mutation.json")
    options = parser.parse_args()
    broken = _caught_by(None)
    if broken is not None:
        print(f"the source as it is fails the {broken}", file=sys.stderr)
        return 2
    results = []
    for number, mutant in enumerate(MUTANTS, 1):
        if options.only and number not in options.only:
            continue
        started = time.monotonic()
        caught = _caught_by(mutant)
        seconds = round(time.monotonic() - started, 1)
        print(f"{number:2} {mutant.what}: {caught or 'SURVIVED'} ({seconds} s)", flush=True)
        results.append({"what": mutant.what, "file": mutant.file, "caught_by": caught, "seconds": seconds})
    survivors = [result for result in results if result["caught_by"] is None]
    print(f"{len(results) - len(survivors)} of {len(results)} caught")
    if not options.only:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if len(survivors) <= ALLOWED else 1


def _caught_by(mutant: Mutant | None) -> str | None:
    """The first stage that fails with the mutant (None: with the source as it is)."""
    with tempfile.TemporaryDirectory(prefix="rain-mutant-") as folder:
        copy = Path(folder)
        for name in ("rain", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "setup.py"):
            shutil.copy(ROOT / name, copy / name)
        shutil.copytree(ROOT / "docs", copy / "docs")
        if mutant is not None:
            path = copy / mutant.file
            path.write_text(mutant.apply(path.read_text()))
        return next((stage for stage, tests in STAGES if not _passes(copy, tests)), None)


def _passes(folder: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder), **SIZES}
    try:
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, check=False, timeout=TIME_LIMIT, text=True
        )
    except subprocess.TimeoutExpired:
        return False
    if run.returncode not in (0, 1, 2):
        raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
