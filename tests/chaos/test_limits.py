"""Disk, shared memory or descriptors are used up: a defined error or slow progress, and the next task is served."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import pytest

from rain.client import (
    Client,
    RainConnectionError,
    RainException,
    RainTimeoutError,
    TaskException,
    blob,
    delayed,
    tasks,
)
from tests.chaos.starved import MEBIBYTE, Starved, few_descriptors, little_disk, starved_cluster

LIMIT = 60.0
"""Seconds for anything to be told; what takes longer hangs."""

NO_ROOM = re.compile("No space left on device|File too large")


@delayed
def filled(size: int, fill: int) -> bytes:
    return bytes([fill]) * size


@delayed
def length(value: bytes) -> int:
    return len(value)


@delayed
def pause(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def serves(client: Client) -> None:
    """The cluster serves a Python task, a program and a value in a file."""
    with client.new_session() as session:
        program = tasks.Execute("echo works", stdout=True)
        program.keep_outputs()
        size = length(filled(MEBIBYTE, 1))
        session.submit()
        assert size.result(timeout=LIMIT) == MEBIBYTE
        assert program.output.fetch(timeout=LIMIT).get_bytes() == b"works\n"


class TestDisk:
    """A worker with 24 MiB of disk and 8 MiB of shared memory, of which it uses half."""

    @pytest.fixture
    def starved(self, tmp_path: Path) -> object:
        with starved_cluster(tmp_path, worker=little_disk(tmp_path / "worker", 24, 8)) as starved:
            yield starved

    def test_object_larger_than_the_memory_budget(self, starved: Starved) -> None:
        with starved.client() as client:
            with client.new_session() as session:
                value = filled(10 * MEBIBYTE, 7)
                size = length(value)
                session.submit()
                assert size.result(timeout=LIMIT) == 10 * MEBIBYTE
                assert value.output.fetch(timeout=LIMIT).get_bytes() == b"\7" * (10 * MEBIBYTE)
            serves(client)

    def test_object_larger_than_everything(self, starved: Starved) -> None:
        with starved.client() as client:
            for _ in range(3):
                with client.new_session(), pytest.raises(TaskException) as caught:
                    filled(50 * MEBIBYTE, 7).result(timeout=LIMIT)
                says_no_space(starved, caught.value)
            serves(client)

    def test_store_full(self, starved: Starved) -> None:
        with starved.client() as client:
            with client.new_session(on_failure="continue") as session:
                made = [filled(3 * MEBIBYTE, n) for n in range(30)]
                session.submit()
                errors = [task.exception(timeout=LIMIT) for task in made]
                failed = [error for error in errors if error is not None]
                for error in failed:
                    assert isinstance(error, TaskException)
                    says_no_space(starved, error)
                stored = [n for n, error in enumerate(errors) if error is None]
                assert len(stored) >= 4
                for n in stored:
                    assert made[n].output.fetch(timeout=LIMIT).get_bytes() == bytes([n]) * (3 * MEBIBYTE)
                for n in stored:
                    made[n].unkeep_outputs()
            wait_for_room(client)
            serves(client)

    def test_program_fills_the_disk(self, starved: Starved) -> None:
        with starved.client() as client:
            with client.new_session() as session:
                # Its stderr needs room as well.
                command = "dd if=/dev/zero of=large bs=1M count=60 || { rm large; echo full >&2; exit 3; }"
                tasks.Execute(command, shell=True)
                session.submit()
                with pytest.raises(TaskException, match=r"Program exit with exit code 3\n(.|\n)*full"):
                    session.wait_all(timeout=LIMIT)
            serves(client)

    def test_input_that_does_not_fit(self, starved: Starved) -> None:
        with starved.client() as client:
            with client.new_session(), pytest.raises(TaskException) as caught:
                length(blob(b"x" * (50 * MEBIBYTE))).result(timeout=LIMIT)
            says_no_space(starved, caught.value)
            serves(client)


def says_no_space(starved: Starved, error: TaskException) -> None:
    """The error of the system, the worker and the path."""
    assert NO_ROOM.search(error.message), error.message
    assert error.worker.startswith("127.0.0.1:")
    assert str(starved.folder / "worker") in error.message or "/dev/shm/" in error.message, error.message


def wait_for_room(client: Client) -> None:
    """Deleted values go within a few seconds."""
    end = time.monotonic() + LIMIT
    while True:
        with client.new_session():
            error = filled(3 * MEBIBYTE, 1).exception(timeout=LIMIT)
        if error is None:
            return
        assert time.monotonic() < end, error
        time.sleep(0.2)


def test_server_whose_disk_is_full(tmp_path: Path) -> None:
    """Constants that do not fit fail what needs them, with the reason; smaller ones and other sessions go on."""
    server = little_disk(tmp_path / "server", 8, 8)
    with starved_cluster(tmp_path, server=server) as starved, starved.client() as client:
        with client.new_session(), pytest.raises(RainException, match=NO_ROOM) as caught:
            length(blob(b"x" * (20 * MEBIBYTE))).result(timeout=LIMIT)
        assert str(tmp_path / "server") in str(caught.value)
        with client.new_session():
            assert length(blob(b"x" * MEBIBYTE)).result(timeout=LIMIT) == MEBIBYTE
        serves(client)


def test_server_out_of_descriptors(tmp_path: Path) -> None:
    with starved_cluster(tmp_path, server=few_descriptors(64)) as starved, contextlib.ExitStack() as stack:
        first = stack.enter_context(starved.client())
        connected: list[Client] = []
        refused = 0
        while refused < 4 and len(connected) < 80:
            try:
                connected.append(stack.enter_context(starved.client(connection_timeout=0.5)))
            except (RainConnectionError, RainTimeoutError):
                refused += 1
        assert len(connected) > 30
        assert refused == 4
        serves(first)
        serves(connected[-1])
        for client in connected:
            client.close()
        with starved.client(connection_timeout=10.0) as client:
            serves(client)


def test_worker_out_of_descriptors(tmp_path: Path) -> None:
    """Executors that cannot be started fail their task by policy; the others go on."""
    with starved_cluster(tmp_path, worker=few_descriptors(64), cpus=60) as starved, starved.client() as client:
        with client.new_session(on_failure="continue") as session:
            made = [pause(0.5) for _ in range(60)]
            session.submit()
            errors = [task.exception(timeout=LIMIT) for task in made]
            failed = [error for error in errors if error is not None]
            assert all("Too many open files" in str(error) for error in failed), failed[0]
            print(f"{len(failed)} of {len(made)} tasks failed")
            assert len(failed) < len(made)
        serves(client)
