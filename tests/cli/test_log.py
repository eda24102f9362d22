"""Log levels, and the promise that logging blocks nobody."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from rain.cli.log import level_from


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, logging.INFO),
        ({"RAIN_LOG": "debug"}, logging.DEBUG),
        ({"RAIN_LOG": "trace"}, logging.DEBUG),
        ({"RAIN_LOG": "WARN"}, logging.WARNING),
        ({"RUST_LOG": "error"}, logging.ERROR),
        ({"RUST_LOG": "rain=debug,info"}, logging.DEBUG),
        ({"RAIN_LOG": "warn", "RUST_LOG": "debug"}, logging.WARNING),
        ({"RAIN_LOG": "", "RUST_LOG": "debug"}, logging.DEBUG),
    ],
)
def test_level(environment, level):
    """`RAIN_LOG` wins over `RUST_LOG`; without both it is info."""
    assert level_from(environment) == (level, "")


def test_unknown_level_is_told():
    """A typing error does not stop a server."""
    level, complaint = level_from({"RAIN_LOG": "loud"})
    assert level == logging.INFO
    assert "RAIN_LOG='loud'" in complaint


def test_a_reader_that_does_not_read_blocks_nobody():
    """stderr is a full pipe; the process logs much more than fits into it and ends all the same."""
    program = (
        "import logging, os, sys\n"
        "from rain.cli.log import set_up_logging\n"
        "set_up_logging({})\n"
        "for number in range(20_000): logging.getLogger('rain').info('line %d', number)\n"
        "sys.stdout.write('done'); sys.stdout.flush()\n"
    )
    reading, writing = os.pipe()
    try:
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writing) as process:
            try:
                output, _ = process.communicate(timeout=30)
            finally:
                process.kill()
        assert output == b"done"
        assert process.returncode == 0
        assert os.read(reading, 4096).count(b"INFO rain: line") > 10
    finally:
        os.close(reading)
        os.close(writing)
