"""The guard, with real owners that end in various ways."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rain
from rain.process.guard import Guard
from rain.process.guard_main import allow_and_retry, read_groups, read_orders, remove, unescape

ROOT = Path(rain.__file__).parents[1]
TIMEOUT = 20.0

OWNER = """
import os, signal, subprocess, sys
from rain.process.guard import Guard
guard = Guard()
child = subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100"], start_new_session=True)
guard.add_group(child.pid)
spared = subprocess.Popen(["sleep", "100"], start_new_session=True)
guard.add_group(spared.pid)
guard.remove_group(spared.pid)
for path in sys.argv[1:]:
    guard.add_path(path)
guard.add_path(sys.argv[1] + "-kept")
guard.remove_path(sys.argv[1] + "-kept")
print(guard.pid, child.pid, spared.pid, flush=True)
if sys.stdin.readline() == "close\\n":
    guard.close()
    guard.close()
    guard.add_group(1)
"""


def until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    # Zombies count for killpg; what matters is whether anything runs.
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, owner = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(owner) == group and state not in "ZX":
                return True
    return False


class Owner:
    def __init__(self, *paths):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        self.guard, self.child, self.spared = map(int, self.process.stdout.readline().split())

    def end(self):
        for group in (self.child, self.spared):
            if group_lives(group):
                os.killpg(group, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        until(lambda: not group_lives(self.guard))


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "with\nnewline and \\ backslash"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").touch()
    (tree / "sub").chmod(0o500)
    Path(f"{tree}-kept").mkdir()
    return tree


@pytest.fixture
def owner(tree):
    (tree.parent / "file").touch()
    owner = Owner(tree, tree.parent / "file", tree.parent / "missing")
    yield owner
    owner.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_everything_goes_with_the_owner(owner, tree, number):
    # The whole group of the owner gets the signal, as by Ctrl-C in a terminal.
    os.killpg(owner.process.pid, number)
    until(lambda: not group_lives(owner.child))
    until(lambda: not tree.exists())
    until(lambda: not group_lives(owner.guard))
    assert not (tree.parent / "file").exists()
    assert Path(f"{tree}-kept").exists()
    assert group_lives(owner.spared)


def test_parents_go_if_nothing_else_is_in_them(tmp_path):
    script = """
import sys
from rain.process.guard import Guard
guard = Guard()
guard.add_path(sys.argv[1] + "/tree")
for parent in sys.argv[1:]:
    guard.add_parent(parent)
print(guard.pid, flush=True)
"""
    lonely, shared = tmp_path / "lonely", tmp_path / "shared"
    (lonely / "tree").mkdir(parents=True)
    (shared / "another").mkdir(parents=True)
    owner = subprocess.run([sys.executable, "-c", script, lonely, shared], stdout=subprocess.PIPE, check=True)
    until(lambda: not group_lives(int(owner.stdout)))
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]
    assert (shared / "another").exists()


@pytest.mark.parametrize("function", [os.open, os.scandir, os.lstat, os.unlink, os.rmdir])
def test_others_may_remove_the_same_tree(tmp_path, function):
    """The guards of a cluster and of its workers do, at the same time."""
    allow_and_retry(function, str(tmp_path / "gone" / "meanwhile"), None)


def test_two_who_remove_the_same_tree(tmp_path):
    for n in range(20):
        paths = {str(tmp_path / f"tree-{n}"): None}
        for k in range(200):
            (tmp_path / f"tree-{n}" / f"{k % 10}" / f"{k}").mkdir(parents=True)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(remove, paths), pool.submit(remove, paths)]:
                done.result(TIMEOUT)
        assert not list(tmp_path.iterdir())


def test_signals_do_not_end_the_guard(owner, tree):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(owner.guard, number)
    owner.process.kill()
    until(lambda: not tree.exists())


def test_an_orderly_close_kills_nothing(owner, tree):
    owner.process.stdin.write("close\n")
    owner.process.stdin.flush()
    assert owner.process.wait(TIMEOUT) == 0
    assert not group_lives(owner.guard)
    assert group_lives(owner.child)
    assert tree.exists()


def test_a_guard_that_was_killed_does_not_disturb_its_owner():
    guard = Guard()
    os.kill(guard.pid, signal.SIGKILL)
    until(lambda: not group_lives(guard.pid))
    guard.add_group(1 << 30)
    guard.close()


def test_groups_are_told_by_a_table():
    table = os.memfd_create("table")
    os.ftruncate(table, 4 << 20)
    for number in (2, (1 << 20) - 1, 1 << 20, (4 << 20) - 1):
        os.pwrite(table, b"\1", number)
    assert read_groups(table) == {2, (1 << 20) - 1, 1 << 20, (4 << 20) - 1}
    os.close(table)


def test_orders():
    paths, parents = {}, {}
    orders = [b"path /a\\nb\\bc\n", b"path /x\n", b"unpath /x\n", b"parent /y\\nz\n"]
    assert not read_orders(orders, paths, parents)
    assert list(paths) == ["/a\nb\\c"]
    assert list(parents) == ["/y\nz"]
    assert read_orders([b"done\n", b"path /late\n"], paths, parents)
    assert list(paths) == ["/a\nb\\c"]
    assert unescape(b"\\bn") == "\\n"
