"""A dump of a busy cluster: it tells what goes on, and neither secrets nor data."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rain.cli.main import main
from rain.client import Client, LocalCluster, blob, delayed, remote, tasks
from rain.protocol.limits import MAX_FRAME

LIMIT = 20.0
CONSTANT, LARGE, ARGUMENT, RESULT, PRINTED, VARIABLE = (
    f"never-to-be-told-{what}" for what in ("constant", "large", "argument", "result", "printed", "variable")
)


@pytest.fixture
def dump(cluster: LocalCluster, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """Writes and reads a dump, and looks for what must not be in it."""
    token = json.loads(Path(cluster.access_file).read_text("ascii"))["token"]

    def make() -> dict[str, Any]:
        path = tmp_path / "dump.json"
        assert main(["dump", "--access-file", str(cluster.access_file), "--out", str(path)]) == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text("ascii")
        assert len(text) < MAX_FRAME
        assert token not in text
        for secret in (CONSTANT, LARGE, ARGUMENT, RESULT, PRINTED, VARIABLE):
            assert secret not in text
        read = json.loads(text)
        assert isinstance(read, dict)
        return read

    return make


def until(dump: Callable[[], dict[str, Any]], holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first dump of which this holds."""
    deadline = time.monotonic() + LIMIT
    while not holds(found := dump()):
        assert time.monotonic() < deadline, json.dumps(found, indent=1)
        time.sleep(0.05)
    return found


@remote()
def told(ctx: Any, argument: str, large: Any) -> bytes:
    print(argument, large.get_bytes()[:50], "never-to-be-told-printed", flush=True)
    time.sleep(60)
    return b"never-to-be-told-result"


def runs(dump: dict[str, Any], sort: str) -> int:
    return len([one for one in dump["workers"][0]["state"][sort] if one.get("runs", one.get("run"))])


def all_run(dump: dict[str, Any]) -> bool:
    """Whether an executor and a program run, and the server knows it."""
    (session,) = dump["sessions"]
    return bool(runs(dump, "executors") and runs(dump, "builtins") and session["tasks"].get("running") == 2)


def test_a_busy_cluster(client: Client, dump: Callable[[], dict[str, Any]]) -> None:
    with client.new_session("busy", on_failure="continue") as session:
        large = blob(LARGE.encode() * 50_000)
        running = told.options(env={"SECRET_KEY": VARIABLE})(ARGUMENT, large)
        program = tasks.Execute(("sleep", "60"))
        waiting = tasks.concat([running.output, blob(CONSTANT)])
        infeasible = tasks.Sleep(blob(CONSTANT), 1.0, cpus=64)
        array = session.map(lambda text: text, [ARGUMENT] * 1000)
        done = delayed(lambda text: text.replace("argument", "result"))(ARGUMENT)
        session.submit()
        found = until(dump, all_run)
        assert array[0].id
        assert done.id
        (worker,) = found["workers"]
        assert worker["answered"]
        state = worker["state"]
        by_run = {one["runs"]: one for one in state["executors"]}
        executor = by_run[f"{running.id} run 1"]
        assert (executor["state"], executor["environment"]) == ("busy", ["SECRET_KEY"])
        assert Path(f"/proc/{executor['pid']}/cmdline").read_bytes()
        assert [path.rpartition(".")[2] for path in sorted(executor["log_bytes"])] == ["err", "out"]
        assert [one["run"] for one in state["builtins"]] == [f"{program.id} run 1"]
        assert state["resources"]["cpus"] == {"free": 0, "total": 2}
        assert state["process"]["pid"] == worker["pid"]
        assert any("Registered at" in line for line in worker["log"])
        server = found["server"]
        assert any("listening on" in line for line in server["log"])
        known = until(dump, lambda dump: dump["server"]["events"])["server"]["events"]
        assert all({"id", "time", "type"} <= event.keys() for event in known)
        assert server["process"]["pid"] not in (worker["pid"], os.getpid())
        (told_of,) = found["sessions"]
        texts = "\n".join(told_of["explained"])
        assert f"Task 'told' ({running.id}) is running: run 1 runs on {worker['worker_id']}" in texts
        assert f"Task {infeasible.id} is ready: no worker can ever run it" in texts
        assert f"Task {waiting.id} is notAssigned" in texts
        session.cancel()
        until(dump, lambda dump: not runs(dump, "executors"))


def test_an_idle_cluster(dump: Callable[[], dict[str, Any]]) -> None:
    found = dump()
    assert found["sessions"] == []
    assert found["workers"][0]["state"]["sessions"] == []


def test_results_are_not_told(client: Client, dump: Callable[[], dict[str, Any]]) -> None:
    with client.new_session("done") as session:
        made = [delayed(lambda text: text.replace("argument", "result"))(ARGUMENT) for _ in range(20)]
        array = session.map(lambda text: text.replace("argument", "result"), [ARGUMENT] * 100)
        assert [one.result() for one in made] == [RESULT] * 20
        assert set(array.result()) == {RESULT}
        found = dump()
        assert found["sessions"][0]["tasks"] == {"finished": 120}


def test_without_workers_that_answer(cluster: LocalCluster, client: Client, dump: Callable[[], dict[str, Any]]) -> None:
    """A worker that hangs costs two seconds, and is named."""
    (entry,) = client.get_server_info()["workers"]
    os.kill(entry["pid"], signal.SIGSTOP)
    try:
        (worker,) = dump()["workers"]
    finally:
        os.kill(entry["pid"], signal.SIGCONT)
    assert worker["answered"] is False
    assert "state" not in worker
    assert worker["at_server"]["story"]
