"""`rain events` with a real server: over HTTP, following, and from its file after its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rain.client import Client, tasks
from rain.net.access import newest_access_file
from tests.cli.test_real_processes import Commands

pytestmark = pytest.mark.cluster


@pytest.fixture
def rain(tmp_path: Path):
    """Commands; fails the test if a process is left, and ends it."""
    commands = Commands(tmp_path)
    yield commands
    left = commands.wait_gone()
    for process in left:
        process.kill()
    assert not left


def test_a_session_is_told(rain: Commands, tmp_path: Path):
    """The same by the server and by its file; a follower is told too."""
    rain.start("--simple", "--http-listen=127.0.0.1:0")
    found = newest_access_file(rain.environment)
    assert found is not None
    path, access = found
    command = [sys.executable, "-m", "rain", "events", "--follow", "--type", "TaskFailed", "--output", "quiet"]
    with subprocess.Popen(command, env=rain.environment, stdout=subprocess.PIPE, text=True) as follower:
        try:
            with Client(str(access.address), access_file=path) as client, client.new_session("told") as session:
                tasks.execute(["false"])
                session.submit()
                assert follower.stdout is not None
                number = int(follower.stdout.readline())
        finally:
            follower.kill()
    by_server = rain("events", "--session", "1", "--output", "json").stdout
    expected = ["SessionNew", "ClientSubmit", "TaskStarted", "TaskFinished", "SessionClosed"]
    told = [json.loads(line) for line in by_server.splitlines()]
    assert [one["event"]["type"] for one in told] == expected
    assert told[3]["id"] == number
    rain("stop")
    assert rain("events", str(tmp_path / "log"), "--session", "1", "--output", "json").stdout == by_server
