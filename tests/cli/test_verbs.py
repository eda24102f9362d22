"""Every verb against a running cluster, in its three forms of output; and without a server, with a wrong secret."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rain.cli.main import main
from rain.client import Client, LocalCluster, Session, SessionException, TaskException, remote, tasks
from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

pytestmark = pytest.mark.cluster

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open

FORMS = ["table", "json", "quiet"]
SECONDS = 20.0


@remote()
def hello(ctx, what):
    """Writes to both streams."""
    import sys

    print("hello", what, flush=True)
    print("oh", what, file=sys.stderr, flush=True)
    return b"abc"


def wait_until(is_true: Callable[[], Any]) -> None:
    """Poll a condition for a generous time."""
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass(slots=True)
class Scene:
    """A cluster of two workers with a session `demo` that has finished, running, waiting and failed tasks, and a failed
    session `broken`."""

    cluster: LocalCluster
    client: Client
    demo: Session
    broken: Session
    hello: str
    long: str
    after: str
    failing: str
    program: str

    @property
    def number(self) -> int:
        return self.demo.session_id

    @property
    def workers(self) -> list[str]:
        return sorted(worker["worker_id"] for worker in self.client.get_server_info()["workers"])


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with no_leaks(), LocalCluster([2, 2], timeout=60) as cluster, cluster.client() as client:
        with client.new_session("demo", on_failure="continue").bind_only() as demo:
            greeting = hello("you")
            greeting.output.keep()
            long = tasks.Sleep(greeting.output, 1000.0, name="long")
            after = tasks.Concat([long.output], name="after")
            failing = tasks.Execute("sh -c 'echo wrong >&2; exit 3'", name="failing")
            program = tasks.Execute("sh -c 'echo one; echo two >&2; exit 0'", name="program")
            demo.submit()
        with client.new_session("broken").bind_only() as broken:
            tasks.Execute("false", name="bad")
            broken.submit()
        wanted = {"finished": 2, "failed": 1, "running": 1, "notAssigned": 1}
        wait_until(lambda: {state: count for state, count in demo.counts().items() if count} == wanted)
        with pytest.raises(TaskException):
            broken.wait_all(timeout=SECONDS)
        names = [str(task.id) for task in (greeting, long, after, failing, program)]
        yield Scene(cluster, client, demo, broken, *names)


@pytest.fixture
def run(scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command that succeeds; returns what it printed."""
    monkeypatch.setenv("RAIN_ACCESS_FILE", scene.cluster.access_file)

    def run(*arguments: str, code: int = 0, form: str | None = None) -> str:
        output = [] if form is None else ["--output", form]
        found = main([*arguments, *output])
        printed = capsys.readouterr()
        assert found == code, printed
        return printed.out if not code else printed.err

    return run


@pytest.fixture
def document(run: Callable[..., str]) -> Callable[..., Any]:
    """Runs a command and reads its JSON."""
    return lambda *arguments: json.loads(run(*arguments, form="json"))


VERBS = [
    ["status"],
    ["session", "list"],
    ["session", "info", "1"],
    ["session", "close", "1"],
    ["task", "list"],
    ["task", "list", "--session", "1"],
    ["task", "info", "1/12"],
    ["task", "explain", "1/12"],
    ["task", "log", "1/12"],
    ["task", "cancel", "1/12"],
    ["worker", "list"],
    ["worker", "stop", "127.0.0.1:1"],
    ["check-network"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_server(verb: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAIN_TOKEN", "some secret")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main([*verb, "--server", address]) == 1
    printed = capsys.readouterr()
    assert f"cannot connect to {address}: Connection refused" in printed.out + printed.err


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_wrong_secret(verb: list[str], scene: Scene, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("wrong", "ascii")
    token.chmod(0o600)
    assert main([*verb, "--server", scene.cluster.address, "--token-file", str(token)]) == 1
    printed = capsys.readouterr()
    assert f"refused the secret from token file {token}" in printed.out + printed.err


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_server_known(
    verb: list[str], tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAIN_ACCESS_DIR", str(tmp_path))
    assert main(verb) == 1
    printed = capsys.readouterr()
    assert (printed.out, "rain start --simple" in printed.err) == ("", True)


UNKNOWN = [
    (["session", "info", "999"], "Session 999 is closed or never was; open sessions: "),
    (["session", "close", "999"], "Session 999 is closed or never was; open sessions: "),
    (["task", "list", "--session", "999"], "Session 999 is closed or never was"),
    (["task", "info", "999/12"], "Session 999 is closed or never was"),
    (["task", "info", "1/9999"], "1/9999: there is no such task; `rain task list --session 1` lists them"),
    (["task", "info", "1/900-950"], "1/900-950: there are no tasks with these ids"),
    (["task", "info", "1/10"], "1/10: this is a data object, a constant; tasks are meant here"),
    (["task", "info", "1/11"], "1/11: this is a data object, made by task 1/12"),
    (["task", "cancel", "999"], "Session 999 is closed or never was"),
    (["task", "cancel", "1/9999"], "1/9999: there is no such task"),
    (["task", "cancel", "1/11"], "1/11: this is a data object, made by task 1/12"),
    (["task", "explain", "1/9999"], "1/9999"),
    (["task", "log", "1/9999"], "1/9999"),
    (["task", "log", "999/12"], "999"),
    (["task", "log", "1/900-950"], "1/900-950: there are no tasks with these ids"),
    (["worker", "stop", "127.0.0.1:1"], "there is no worker 127.0.0.1:1; connected workers: 127.0.0.1:"),
]


@pytest.mark.parametrize(("verb", "text"), UNKNOWN, ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_unknown(verb: list[str], text: str, run: Callable[..., str]) -> None:
    assert text in run(*verb, code=1)


@pytest.mark.parametrize(
    "verb",
    [
        ["session"],
        ["session", "info"],
        ["session", "info", "0"],
        ["session", "close", "x"],
        ["task", "list", "--state", "sleeping"],
        ["task", "list", "--session", "-1"],
        ["task", "log", "1/12", "--stdout", "--stderr"],
        ["worker", "stop"],
        ["worker", "list", "surplus"],
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_wrong_usage(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(verb)
    assert caught.value.code == 1
    assert "error:" in capsys.readouterr().err


# --- status ---


def test_status(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    found = document("status")
    assert set(found) == {"server", "tasks", "resources", "workers"}
    assert found["tasks"]["running"] == 1
    assert found["tasks"]["failed"] == 1
    assert found["resources"]["free"]["cpus"] == 3
    assert found["resources"]["total"]["cpus"] == 4
    assert run("status", form="quiet").splitlines() == scene.workers
    table = run("status")
    assert f"address     {scene.cluster.address}" in table
    assert "free/total  cpus=3/4" in table


# --- sessions ---


def test_session_list(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    entries = {entry["name"]: entry for entry in document("session", "list")["sessions"]}
    keys = {"session", "name", "state", "client", "on_failure", "age", "created", "tasks", "objects"}
    assert set(entries["demo"]) == keys
    assert (entries["demo"]["session"], entries["demo"]["state"]) == (scene.number, "open")
    assert entries["demo"]["tasks"] == {"notAssigned": 1, "running": 1, "finished": 2, "failed": 1}
    assert entries["demo"]["objects"] == {"unfinished": 2, "finished": 2}
    assert 0 < entries["demo"]["age"] < 600
    assert entries["demo"]["created"].endswith("Z")
    assert entries["broken"]["state"] == "failed"
    ids = run("session", "list", form="quiet").split()
    assert ids == [str(entry["session"]) for entry in document("session", "list")["sessions"]]
    lines = run("session", "list").splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "CLIENT", "TASKS", "CREATED"]
    assert "1 notAssigned, 1 running, 2 finished, 1 failed" in lines[1]


def test_session_info(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    found = document("session", "info", str(scene.number))
    greeting = int(scene.hello.split("/")[1])
    assert {"id": greeting - 1, "label": "out0", "size": 3, "state": "finished"} in found["kept"]
    assert found["kept_total"] == len(found["kept"]) == 2
    assert "exit code 3" in found["error"]
    assert run("session", "info", str(scene.number), form="quiet") == f"{scene.number}\n"
    table = run("session", "info", str(scene.number))
    assert "kept objects  2" in table
    assert "exit code 3" in table
    assert f"{scene.number}/{greeting - 1}" in table


def test_a_failed_session(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    number = str(scene.broken.session_id)
    found = document("session", "info", number)
    assert (found["state"], found["tasks"], found["kept"]) == ("failed", {}, [])
    assert "exit code 1" in found["error"]
    for verb in (["list", "--session", number], ["info", f"{number}/10-20"], ["cancel", number]):
        error = run("task", *verb, code=1)
        assert f"session {number} failed, and its tasks are gone: Program exit with exit code 1" in error
        assert f"rain session info {number}" in error


@pytest.mark.parametrize("form", FORMS)
def test_session_close(form: str, scene: Scene, run: Callable[..., str]) -> None:
    """Somebody else's session; whoever waits for it is told."""
    session = scene.client.new_session("to be closed")
    with session.bind_only():
        tasks.Sleep(tasks.Concat([]).output, 1000.0)
        session.submit()
    text = run("session", "close", str(session.session_id), form=form)
    expected = {
        "table": f"closed  {session.session_id}\n",
        "json": json.dumps({"closed": session.session_id}, indent=2) + "\n",
        "quiet": f"{session.session_id}\n",
    }
    assert text == expected[form]
    with pytest.raises(SessionException, match=f"Session {session.session_id} is closed"):
        session.wait_all(timeout=SECONDS)
    assert "closed or never was" in run("session", "close", str(session.session_id), code=1)


# --- tasks ---


def test_task_list(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    found = {entry["task"]: entry for entry in document("task", "list", "--session", str(scene.number))["tasks"]}
    assert set(found) == {scene.hello, scene.long, scene.after, scene.failing, scene.program}
    greeting = found[scene.hello]
    assert set(greeting) == {"task", "session", "id", "name", "type", "state", "worker", "start", "duration"}
    assert (greeting["name"], greeting["type"], greeting["state"]) == ("hello", "py/", "finished")
    assert greeting["worker"] in scene.workers
    assert greeting["start"].endswith("Z")
    assert greeting["duration"] > 0
    running, waiting = found[scene.long], found[scene.after]
    assert (running["state"], running["start"], running["worker"] in scene.workers) == ("running", None, True)
    assert running["duration"] > 0
    assert (waiting["state"], waiting["worker"], waiting["duration"]) == ("notAssigned", None, None)
    lines = run("task", "list", "--session", str(scene.number)).splitlines()
    assert lines[0].split() == ["ID", "NAME", "TYPE", "STATE", "WORKER", "DURATION"]
    assert lines[1].split()[:4] == [scene.hello, "hello", "py/", "finished"]
    assert run("task", "list", form="quiet").split() == list(found)


def test_tasks_in_a_state(scene: Scene, run: Callable[..., str]) -> None:
    def listed(*states: str) -> list[str]:
        options = [word for state in states for word in ("--state", state)]
        return run("task", "list", "--session", str(scene.number), *options, form="quiet").split()

    assert listed("running") == [scene.long]
    assert listed("running", "failed") == [scene.long, scene.failing]
    assert listed("cancelled") == []


def test_task_info(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    (found,) = document("task", "info", scene.long)["tasks"]
    assert set(found) == {"task", "session", "id", "state", "released", "spec", "info"}
    assert (found["task"], found["state"], found["released"]) == (scene.long, "running", False)
    greeting = scene.hello.split("/")[1]
    made = f"{scene.number}/{int(greeting) - 1}"
    assert found["spec"]["config"] == 1000.0
    assert (found["spec"]["name"], found["spec"]["inputs"]) == ("long", [made])
    assert found["info"]["worker"] in scene.workers
    assert (found["info"]["attempts"], found["info"]["duration"]) == (1, None)
    (failed,) = document("task", "info", scene.failing)["tasks"]
    assert failed["state"] == "failed"
    assert "exit code 3" in failed["info"]["error"]
    assert failed["info"]["duration"] > 0
    table = run("task", "info", scene.long)
    assert table.splitlines()[:2] == [f"task       {scene.long}", "state      running"]
    assert run("task", "info", str(scene.number), form="quiet").split() == [
        scene.hello,
        scene.long,
        scene.after,
        scene.failing,
        scene.program,
    ]
    assert run("task", "info", str(scene.number)).count("state  ") == 5


def test_task_explain(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    assert "1 of its 1 inputs are not finished" in run("task", "explain", scene.after)
    assert document("task", "explain", scene.after)["tasks"][0]["tasks"] == scene.after
    assert run("task", "explain", scene.after, form="quiet") == f"{scene.after}\n"


def sleeping(client: Client, count: int) -> Session:
    """A session with tasks that sleep for ever."""
    session = client.new_session("sleeping")
    with session.bind_only():
        first = tasks.Concat([])
        for _ in range(count):
            tasks.Sleep(first.output, 1000.0, cpus=0)
        session.submit()
    wait_until(lambda: session.counts()["running"] == count)
    return session


def test_task_cancel(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    session = sleeping(scene.client, 4)
    number = str(session.session_id)
    running = run("task", "list", "--session", number, "--state", "running", form="quiet").split()
    assert document("task", "cancel", running[0]) == {"cancelled": running[:1], "count": 1}
    first, last = (name.split("/")[1] for name in running[0:3:2])
    assert run("task", "cancel", f"{number}/{first}-{last}", form="quiet").split() == running[1:3]
    assert run("task", "cancel", running[0]) == f"cancelled  nothing: no task of {running[0]} was unfinished\n"
    assert run("task", "cancel", number) == f"cancelled  {running[3]}\n"
    assert document("task", "cancel", number) == {"cancelled": [], "count": 0}
    assert session.counts()["cancelled"] == 4
    session.close()


# --- logs ---


def test_log_of_a_program(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    assert run("task", "log", scene.program, "--stdout") == "one\n"
    assert run("task", "log", scene.program, "--stderr") == "two\n"
    both = f"==> {scene.program} stdout <==\none\n==> {scene.program} stderr <==\ntwo\n"
    assert run("task", "log", scene.program) == both
    assert run("task", "log", scene.program, form="quiet") == f"{scene.program}\n"
    (found,) = document("task", "log", scene.program)["tasks"]
    assert found["stdout"] == {"text": "one\n", "bytes": 4, "ended": True, "hint": found["stdout"]["hint"]}
    assert (found["task"], found["stderr"]["text"]) == (scene.program, "two\n")


def test_log_of_a_python_task(scene: Scene, run: Callable[..., str]) -> None:
    assert "hello you\n" in run("task", "log", scene.hello, "--stdout")
    assert "oh you\n" in run("task", "log", scene.hello, "--stderr")


def test_log_of_a_task_that_wrote_nothing(scene: Scene, capsys: pytest.CaptureFixture[str], run: Any) -> None:
    """The reason is told, but not where the output goes."""
    assert main(["task", "log", scene.long]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"rain: {scene.long} stdout: ")
    assert "write nothing" in printed.err


def test_logs_of_several(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    """What cannot be had of one does not hide the others."""
    found = {entry["task"]: entry for entry in document("task", "log", str(scene.number))["tasks"]}
    assert found[scene.program]["stdout"]["text"] == "one\n"
    assert found[scene.failing]["stderr"]["text"] == "wrong\n"
    assert found[scene.after]["stdout"]["hint"]
    text = run("task", "log", str(scene.number), "--stderr")
    assert f"==> {scene.failing} stderr <==\nwrong\n" in text
    assert f"==> {scene.program} stderr <==\ntwo\n" in text


def test_log_of_a_task_that_has_not_run(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    """An error, if nothing else was asked for."""
    session = scene.client.new_session("waiting")
    with session.bind_only():
        task = tasks.Execute("true", input_paths=[tasks.Execute("sleep 1000", stdout=True).output])
        session.submit()
    text = f"Task {task.id} has not run: it is notAssigned"
    assert text in run("task", "log", str(task.id), code=1)
    found = {entry["task"]: entry for entry in document("task", "log", str(session.session_id))["tasks"]}
    assert text in found[str(task.id)]["stdout"]["hint"]
    session.close()


def test_follow(scene: Scene, run: Callable[..., str], tmp_path: Any) -> None:
    """A task that waits at first; what it writes is printed as it comes, until it ends."""
    gate, path = tmp_path / "gate", tmp_path / "go on"
    session = scene.client.new_session("followed")
    with session.bind_only():
        wait = tasks.Execute(["sh", "-c", f"while [ ! -e '{gate}' ]; do sleep 0.05; done"], stdout=True)
        script = f"echo begin; while [ ! -e '{path}' ]; do sleep 0.05; done; echo end"
        task = tasks.Execute(["sh", "-c", script], input_paths=[wait.output])
        session.submit()
    opener = threading.Timer(0.7, gate.touch), threading.Timer(1.8, path.touch)
    for timer in opener:
        timer.start()
    assert run("task", "log", str(task.id), "--stdout", "--follow") == "begin\nend\n"
    for timer in opener:
        timer.join()
    session.close()


@pytest.mark.parametrize("arguments", [["1"], ["1/10-20"], ["1/12", "--output", "json"]])
def test_what_cannot_be_followed(arguments: list[str], run: Callable[..., str]) -> None:
    assert "--follow prints what one task writes" in run("task", "log", *arguments, "--follow", code=1)


# --- workers ---


def test_worker_list(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    # what ran for other tests ends a moment after their sessions
    wait_until(lambda: sum(worker["tasks"] for worker in document("worker", "list")["workers"]) == 1)
    found = document("worker", "list")["workers"]
    keys = {"worker_id", "hostname", "pid", "state", "resources", "free", "tasks", "objects", "bytes"}
    assert [set(worker) for worker in found] == [keys, keys]
    assert sum(worker["tasks"] for worker in found) == 1
    assert sorted(worker["free"]["cpus"] for worker in found) == [1, 2]
    assert run("governor", "list", form="quiet").split() == scene.workers
    assert run("worker", "list").splitlines()[0].split() == [
        *("WORKER", "HOST", "PID", "STATE", "FREE/TOTAL", "TASKS", "OBJECTS", "BYTES")
    ]


@pytest.mark.parametrize("form", FORMS)
def test_worker_stop(form: str, scene: Scene, run: Callable[..., str]) -> None:
    worker = scene.cluster.add_worker(1)
    text = run("worker", "stop", worker, worker, *(["--now"] if form == "json" else []), form=form)
    expected = {"table": f"stopped  {worker}\n", "quiet": f"{worker}\n"}
    assert json.loads(text) == {"stopped": [worker]} if form == "json" else text == expected[form]
    assert worker not in scene.workers


def test_a_worker_that_takes_its_time(scene: Scene, run: Callable[..., str]) -> None:
    """The error says what goes on; --now ends it."""
    worker = scene.cluster.add_worker(3)
    session = scene.client.new_session("busy")
    with session.bind_only():
        tasks.Execute("sleep 1000", cpus=3)
        session.submit()
    wait_until(lambda: session.counts()["running"] == 1)
    error = run("worker", "stop", worker, "--timeout", "1.5", code=1)
    assert f"not all of these workers are gone after 1.5 s: {worker}" in error
    assert "--now" in error
    states = {entry["worker_id"]: entry["state"] for entry in json.loads(run("worker", "list", form="json"))["workers"]}
    assert states[worker] == "draining"
    assert run("worker", "stop", "--now", worker, form="quiet") == f"{worker}\n"
    session.close()


# --- check-network ---


def test_check_network(scene: Scene, run: Callable[..., str], document: Callable[..., Any]) -> None:
    found = document("check-network")
    assert found["ok"] is True
    assert found["server"] == {
        "address": scene.cluster.address,
        "ok": True,
        "error": None,
        "version": found["server"]["version"],
    }
    assert found["workers"] == [
        {"worker_id": worker, "ok": True, "error": None, "answered": True, "failures": []} for worker in scene.workers
    ]
    assert run("check-network", form="quiet") == ""
    lines = run("check-network").splitlines()
    assert lines[0].split() == ["FROM", "TO", "RESULT"]
    assert len(lines) == 6
    assert run("check-network", scene.cluster.address, "--access-file", scene.cluster.access_file).splitlines() == lines


def test_check_network_of_two_addresses(run: Callable[..., str]) -> None:
    assert "named twice" in run("check-network", "127.0.0.1:1", "--server", "127.0.0.1:2", code=1)
