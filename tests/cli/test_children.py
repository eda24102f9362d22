"""Children of `rain start`: readiness, deaths, killing."""

from __future__ import annotations

import sys

import psutil
import pytest

from rain.cli.children import Child, kill_all, spawn, wait_ready
from rain.common.errors import RainException

READY_THEN_SLEEP = "import sys, time; open(sys.argv[-1], 'w').write('ready\\n'); time.sleep(60)"
SLEEP = "import time; time.sleep(60)"
COMPLAIN = "import sys; print('cannot bind', file=sys.stderr); sys.exit(4)"


@pytest.fixture
def start(tmp_path):
    """Start children that run a program; all are gone at the end."""
    children: list[Child] = []

    def start_one(program: str) -> Child:
        child = spawn(f"child-{len(children)}", [sys.executable, "-c", program], tmp_path)
        children.append(child)
        return child

    yield start_one
    kill_all(children)
    assert not any(psutil.pid_exists(child.process.pid) for child in children)


def test_ready_children_run_on(start):
    """The ready file is taken away, the child lives, in a session of its own."""
    child = start(READY_THEN_SLEEP)
    wait_ready([child], [child], timeout=30)
    assert child.process.poll() is None
    assert not child.ready_file.exists()
    process = psutil.Process(child.process.pid)
    assert process.cmdline()[-2] == "--ready-file"


def test_a_dead_child_is_named_with_its_log(start):
    """Who died, how, and what it said last."""
    child = start(COMPLAIN)
    with pytest.raises(RainException, match=r"child-0 ended with exit code 4.*child-0\.err\ncannot bind"):
        wait_ready([child], [child], timeout=30)


def test_the_death_of_one_ends_the_waiting_for_another(start):
    """A server that dies while workers register is noticed."""
    dying, late = start(COMPLAIN), start(SLEEP)
    with pytest.raises(RainException, match="child-0 ended"):
        wait_ready([dying, late], [late], timeout=30)


def test_a_late_child_is_an_error(start):
    """No wait without limit."""
    child = start(SLEEP)
    with pytest.raises(RainException, match=r"child-0 was not ready within 0\.1 s.*\(empty\)"):
        wait_ready([child], [child], timeout=0.1)


def test_a_missing_program_is_told(tmp_path):
    """For example a typing error in --runprefix."""
    with pytest.raises(RainException, match="server cannot be started: no-such-prefix"):
        spawn("server", ["no-such-prefix", "python"], tmp_path)
