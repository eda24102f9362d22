"""Tries an adapter in small: `python -m benchmarks.systems.trial SYSTEM`, with the interpreter of its environment.

Every workload that suits the system is run with correct results asked for; then how many tasks run at the same time,
what a failing task does, and what is left of the system after its end. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import processes, systems
from benchmarks.systems.shared import adopt_orphans
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"chains": 100, "data": 1}
OTHER_SIZE = 10
SPANS = 8
SPAN_SECONDS = 0.1
TRIAL_SECONDS = 100.0
ENDING_SECONDS = 5.0


def span(seconds: float) -> tuple[float, float]:
    """Sleep; from when to when, by the clock that all processes share."""
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()


def fail(number: int) -> int:
    """Raise."""
    raise ValueError(f"number {number} is not welcome")


def at_once(spans: list[tuple[float, float]]) -> int:
    """The largest number of spans that overlap."""
    changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def error_of(system: systems.System) -> str:
    """What the client gets from tasks that fail."""
    try:
        system.map(fail, [7])
    except Exception as error:  # of a class that only the system knows
        return f"{type(error).__name__}: {error}"
    return ""


def try_system(name: str) -> None:
    """Start the system, use it, end it; print what was found."""
    system = systems.start(name)
    try:
        tried = [title for title, workload in WORKLOADS.items() if workload.suits(name) and not workload.only]
        for title in tried:
            WORKLOADS[title].measure(system, SIZES.get(title, OTHER_SIZE))
        found = {
            "version": system.version,
            "workloads": tried,
            "at_once": at_once(system.map(span, [SPAN_SECONDS] * SPANS)),
            "roles": sorted(processes.resident(system.role)),
            "error": error_of(system),
        }
    finally:
        system.close()
    print(json.dumps(found), flush=True)


def left_processes() -> list[str]:
    """Command lines of descendants that do not end; they are killed."""
    deadline = time.monotonic() + ENDING_SECONDS
    while left := processes.family() - {os.getpid()}:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    commands = []
    for process in left:
        with contextlib.suppress(OSError):  # it is gone
            commands.append(Path(f"/proc/{process}/cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " "))
            os.kill(process, signal.SIGKILL)
    return commands


def run(name: str, folder: str) -> tuple[int, list[str]]:
    """Try a system in a process of its own and in this folder; its exit code and what it printed."""
    code = f"from benchmarks.systems import trial; trial.try_system({name!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder}
    printed = Path(folder, "printed")
    with printed.open("w") as out:
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=folder, stdout=out)
    try:
        process.wait(TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    lines = printed.read_text("utf-8").splitlines()
    printed.unlink()
    return process.returncode, lines


def main() -> None:
    """Try the system; its orphans come to this process, which takes the place of init for them."""
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="trial-", ignore_cleanup_errors=True) as folder:
        exit_code, lines = run(sys.argv[1], folder)
        left = left_processes()
        files = sorted(path.name for path in Path(folder).iterdir())
    found: dict[str, Any] = json.loads(lines[-1]) if exit_code == 0 else {}
    print(json.dumps({**found, "exit_code": exit_code, "left_processes": left, "left_files": files}))


if __name__ == "__main__":
    main()
