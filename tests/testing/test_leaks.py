import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rain.testing.leaks import LeakError, check, no_leaks, snapshot


def test_nothing_left_is_fine() -> None:
    with no_leaks(grace=1), tempfile.TemporaryDirectory(prefix="rain-test-"):
        pass


def test_process_is_found() -> None:
    before = snapshot()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(LeakError, match=rf"processes: {child.pid} "):
            check(before, grace=0)
    finally:
        child.communicate()
    check(before, grace=5)


def test_zombie_is_not_counted() -> None:
    before = snapshot()
    with subprocess.Popen([sys.executable, "-c", "pass"]):
        check(before, grace=5)


def test_thread_descriptor_directory_and_socket_are_found(tmp_path: Path) -> None:
    before = snapshot()
    event = threading.Event()
    thread = threading.Thread(target=event.wait, name="lost thread")
    thread.start()
    with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryDirectory(prefix="rain-test-") as folder:
        listening.bind(f"{folder}/socket")
        with pytest.raises(LeakError) as caught:
            check(before, grace=0)
        event.set()
    thread.join()
    for part in ("lost thread", "descriptors:", f"directories: {folder}", f"sockets: {folder}/socket"):
        assert part in str(caught.value)
    check(before, grace=1)


def test_things_may_take_a_moment_to_go_away() -> None:
    before = snapshot()
    event = threading.Event()
    thread = threading.Thread(target=event.wait, args=(0.2,))
    thread.start()
    check(before, grace=5)
    thread.join()
