"""What processes spend, read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks import processes

CHILD = """
import sys
data = bytearray(64 << 20)
sum(range(3_000_000))
del data
print(".", flush=True)
sys.stdin.read()
"""


def role(command: str) -> str:
    return "child" if "bytearray" in command else "other"


def test_cpu_memory_and_peak_by_role():
    before = processes.cpu(role)
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        assert {child.pid, os.getpid()} <= processes.family()
        spent = processes.growth(processes.cpu(role), before)
        assert spent["child"] > 0.01
        peak, resident = processes.peak(role), processes.resident(role)
        assert peak["child"] >= 64 << 20 > resident["child"]
        assert resident["client"] > 5 << 20
        processes.reset_peak()
        assert processes.peak(role)["child"] < 64 << 20
        child.communicate(b"")
    ended = processes.growth(processes.cpu(role), before)
    assert "child" not in ended
    assert ended["client"] >= spent["child"]  # what an ended child spent counts for its parent


def test_less_is_no_growth():
    assert processes.growth({"a": 1.0, "b": 5.0}, {"a": 3.0}) == {"a": 0.0, "b": 5.0}
