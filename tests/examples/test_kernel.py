"""A session in the kernel of a notebook: interrupting a cell stops its waiting, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.examples.test_examples import MARK, marked_processes

ROOT = Path(__file__).resolve().parents[2]

SETUP = """
import pathlib, time
from rain.client import Client, as_completed, delayed, gather
go = pathlib.Path("go").absolute()

def when_told(x=0):
    end = time.monotonic() + 60
    while not go.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return x

client = Client()
session = client.new_session("interrupted", default=True)
task = delayed(when_told)("there")
array = session.map(when_told, range(3))
session.submit()
print("begun")
"""
WAITS = [
    "session.progress()",
    "session.wait_all()",
    "task.wait(progress=True)",
    "task.result()",
    "array.result()",
    "list(array.iter_results())",
    "gather(task, array)",
    "list(as_completed([task]))",
]

DRIVE = """
import json, sys, time
from jupyter_client.manager import KernelManager

setup, waits = json.load(sys.stdin)
manager = KernelManager(kernel_name="python3")
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
ends = []

def run(code, interrupt=False):
    request = client.execute(f"print('begun')\\n{code}" if interrupt else code)
    shown, begun = "", not interrupt
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            shown += content["text"]
        elif message["msg_type"] == "error":
            shown += content["ename"]
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            return shown
        if not begun and "begun" in shown:
            begun = True
            time.sleep(0.7)  # now it waits; and a bar is drawn
            manager.interrupt_kernel()

try:
    ends.append(run(setup))
    for wait in waits:
        ends.append(run(wait, interrupt=True))
    ends.append(run("go.touch(); print(task.result(), array.result(), dict(session.counts()))"))
    ends.append(run("client.close(); print(client)"))
finally:
    client.stop_channels()
    manager.shutdown_kernel()
print(json.dumps(ends))
"""


@pytest.mark.cluster
def test_interrupting_a_cell_stops_the_waiting_only(tmp_path: Path) -> None:
    mark = f"{os.getpid()}-kernel"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAIN_", "JUPYTER", "IPY"))
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVE],
        input=json.dumps([SETUP, WAITS]),
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), MARK: mark},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    psutil.wait_procs(marked_processes(mark), timeout=20)
    assert marked_processes(mark) == []
    begun, *interrupted, result, closed = json.loads(done.stdout)
    assert begun == "begun\n"
    for wait, shown in zip(WAITS, interrupted, strict=True):
        assert shown.startswith("begun\n"), wait
        assert shown.endswith("KeyboardInterrupt"), (wait, shown)
        assert ("0/" in shown) == ("progress" in wait), (wait, shown)
    assert result == "there [0, 1, 2] {'finished': 4}\n"
    assert closed.startswith("<Client 127.0.0.1:")
    assert closed.endswith(" closed>\n")
