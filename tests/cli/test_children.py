"""Children of `rain start`: readiness, deaths, killing."""

from __future__ import annotations

import sys

import psutil
import pytest

from rain.cli.children import Children
from rain.common.errors import RainException

READY_THEN_SLEEP = [sys.executable, "-c", "import sys, time; open(sys.argv[-1], 'w').close(); time.sleep(60)"]
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
COMPLAIN = [sys.executable, "-c", "import sys; print('cannot bind', file=sys.stderr); sys.exit(4)"]


@pytest.fixture
def children(tmp_path):
    """Children; all are gone at the end."""
    started = Children(tmp_path)
    yield started
    started.kill()
    assert not any(psutil.pid_exists(process.popen.pid) for process in started._processes)


def test_ready_children_run_on(children, tmp_path):
    """The ready file is taken away, the child lives on."""
    with children:
        child = children.start("child", READY_THEN_SLEEP)
        children.wait_ready([child], timeout=30)
        assert child.is_ready
    assert child.popen.poll() is None
    assert not child.ready_file.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child.err", "child.out"]


def test_an_error_kills_all(children):
    """Ctrl-C, too."""
    child = children.start("child", READY_THEN_SLEEP)
    with pytest.raises(KeyboardInterrupt), children:
        raise KeyboardInterrupt
    assert child.popen.returncode == -9


def test_a_dead_child_is_named_with_its_log(children, tmp_path):
    """Who died, how, what it said last, and where the logs are."""
    child = children.start("worker-0", COMPLAIN)
    with pytest.raises(RainException) as caught:
        children.wait_ready([child], timeout=30)
    text = str(caught.value)
    assert "worker-0" in text
    assert "ended with exit code 4" in text
    assert "\ncannot bind\n" in text
    assert str(tmp_path) in text


def test_the_death_of_one_ends_the_waiting_for_another(children):
    """A server that dies while workers register is noticed."""
    children.start("server", COMPLAIN)
    late = children.start("worker-0", SLEEP)
    with pytest.raises(RainException, match=r"server.* ended"):
        children.wait_ready([late], timeout=30)


def test_a_late_child_is_an_error(children):
    """No wait without limit."""
    child = children.start("child", SLEEP)
    with pytest.raises(RainException, match=r"child.* was not ready within"):
        children.wait_ready([child], timeout=0.1)


def test_a_missing_program_is_told(children):
    """For example a typing error in --runprefix."""
    with pytest.raises(RainException, match="The server cannot be started: no-such-prefix"):
        children.start("server", ["no-such-prefix", "python"])
