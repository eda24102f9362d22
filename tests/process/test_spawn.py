import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import rain
from rain.process.spawn import watch_owner

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(rain.__file__).parents[1])}
TIMEOUT = 20.0

PARENT = """
import subprocess, sys, time
code = "import time, rain.process as p; p.die_with_parent(); print('up', flush=True); time.sleep(100)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(100)
"""

WATCHER = """
import subprocess, sys, time
from rain.process import watch_owner
watch_owner(0)
child = subprocess.Popen(["sleep", "100"])
print(child.pid, flush=True)
time.sleep(100)
"""


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid):
    deadline = time.monotonic() + TIMEOUT
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_dies_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=ENVIRONMENT) as parent:
        child = int(parent.stdout.readline())
        assert runs(child)
        parent.kill()
        wait_gone(child)


def test_a_child_whose_parent_is_gone_ends_at_once():
    code = "from rain.process import die_with_parent; die_with_parent(1 << 30); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_watched_pipe_ends_process_and_group():
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    child = int(process.stdout.readline())
    process.stdin.write(b"not the end")
    process.stdin.flush()
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(TIMEOUT) == -signal.SIGKILL
    process.stdout.close()
    wait_gone(child)


def test_the_callback():
    gone = threading.Event()
    read, write = os.pipe()
    thread = watch_owner(read, gone.set)
    assert not gone.is_set()
    os.close(write)
    assert gone.wait(TIMEOUT)
    thread.join(TIMEOUT)
    os.close(read)
