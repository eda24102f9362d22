"""What tasks write is told, and whose it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from rain.common.blocks import STORED
from rain.executor.output import LONG, Output
from tests.executor.driver import plain, remote, until


def test_those_that_write_nothing_are_not_told(executor):
    executor.batch(plain(), lambda n: n, [(n,) for n in range(100)])
    executor.results(100)
    executor.call(plain(), lambda: time.sleep(10 * LONG))
    assert executor.wrote() == []


def test_each_gets_its_own(executor):
    def say(number):
        if number % 2:
            print("task", number)
        if number % 3 == 0:
            print("error", number, file=sys.stderr)

    tasks = executor.batch(plain(), say, [(n,) for n in range(6)], run=4)
    executor.results(6)
    assert executor.wrote() == [
        (tasks[0], 4, b"", b"error 0\n"),
        (tasks[1], 4, b"task 1\n", b""),
        (tasks[3], 4, b"task 3\n", b"error 3\n"),
        (tasks[5], 4, b"task 5\n", b""),
    ]


def test_those_that_fail(executor):
    def fail():
        print("before")
        sys.exit("the reason")

    row = executor.call(remote(), lambda ctx: fail())
    assert executor.wrote() == [(row[0], 1, b"before\n", b"")]


def test_what_does_not_go_through_the_streams(executor):
    def write():
        os.write(1, b"written ")
        subprocess.run("echo by a program; echo error >&2", shell=True, check=True)

    row = executor.call(plain(), write)
    assert executor.wrote() == [(row[0], 1, b"written by a program\n", b"error\n")]


def test_the_buffer_below_the_text(executor):
    row = executor.call(plain(), lambda: sys.stdout.buffer.write(b"\xff\0"))
    assert executor.wrote() == [(row[0], 1, b"\xff\0", b"")]


def test_streams_that_are_redirected(executor):
    def redirect():
        kept = os.dup(1)
        target = os.open("elsewhere", os.O_CREAT | os.O_WRONLY)
        os.dup2(target, 1)
        print("elsewhere")
        os.dup2(kept, 1)
        print("here")
        os.close(target)
        os.close(kept)

    row = executor.call(plain(), redirect)
    assert executor.wrote() == [(row[0], 1, b"here\n", b"")]


def test_a_truncated_log(executor):
    executor.call(plain(), lambda: print("long" * 100))
    executor.wrote()

    def truncate():
        os.ftruncate(1, 0)
        os.lseek(1, 0, os.SEEK_SET)
        time.sleep(10 * LONG)

    executor.drop_function()
    executor.call(plain(), truncate)
    assert executor.wrote() == []
    executor.drop_function()
    row = executor.call(plain(), lambda: print("new"))
    assert executor.wrote() == [(row[0], 1, b"new\n", b"")]


def test_quick_ones_are_told_while_the_next_one_runs(executor, tmp_path):
    go = str(tmp_path / "go")

    def work(number):
        print("task", number, flush=True)
        while number and not os.path.exists(go):
            time.sleep(0.001)

    tasks = executor.batch(plain(), work, [(0,), (1,)])
    executor.results(1)
    assert executor.wrote() == [(tasks[0], 1, b"task 0\n", b"")]
    until(lambda: (executor.root / "out").read_bytes().endswith(b"task 1\n"))
    Path(go).touch()
    executor.results(1)
    assert executor.wrote() == [(tasks[1], 1, b"task 1\n", b"")]


class TestBlocks:
    def test_members(self, executor):
        def say(number):
            if number % 40 == 0:
                print("member", number)
            return number

        block = executor.block(plain(), say, [(n,) for n in range(100)], run=2)
        assert block.values == list(range(100))
        wanted = [(block.first + n, 2, f"member {n}\n".encode(), b"") for n in (0, 40, 80)]
        assert executor.wrote() == wanted

    def test_a_member_that_fails(self, executor):
        def say(number):
            print("member", number)
            return 1 // (3 - number)

        block = executor.block(plain(), say, [(n,) for n in range(10)])
        assert isinstance(block.result.end, dict)
        wanted = [(block.first + n, 1, f"member {n}\n".encode(), b"") for n in range(4)]
        assert executor.wrote() == wanted

    def test_a_member_whose_value_is_stored(self, executor):
        def say(number):
            print("member", number)
            return bytes(100_000 if number else 1)

        block = executor.block(plain(), say, [(n,) for n in range(5)])
        assert block.result.end == STORED
        assert executor.wrote() == [(block.first + n, 1, f"member {n}\n".encode(), b"") for n in range(2)]

    def test_those_that_write_nothing(self, executor):
        executor.block(plain(), lambda n: n, [(n,) for n in range(1000)])
        assert executor.wrote() == []


def test_what_was_written_before_is_nobodys(capfd):
    output = Output(written := [])
    os.write(1, b"early")
    output.begin()
    output.attribute(1, 1)
    assert written == []
