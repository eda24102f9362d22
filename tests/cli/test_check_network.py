"""What `rain check-network` says when something is wrong."""

from __future__ import annotations

import json
import socket

import pytest

import rain
from rain.cli import check_network, connection
from rain.cli.check_network import NO_ANSWER, ServerCheck, WorkerCheck, add_answers, report_of
from rain.cli.main import main
from rain.common.errors import RainTimeoutError
from rain.net.secret import Secret
from rain.protocol.messages import CheckNetwork, GetServerInfo, NetworkChecked, ServerInfo

SERVER = ServerCheck("10.0.0.1:7210", None, rain.__version__)
FIRST, SECOND, THIRD = "10.0.0.2:9000", "10.0.0.3:9000", "10.0.0.4:9000"


def told(*entries):
    """What the server answers about (worker, answered, failures)."""
    return {
        "workers": [
            {
                "worker_id": worker,
                "answered": answered,
                "failures": [{"to": to, "error": error} for to, error in failures.items()],
            }
            for worker, answered, failures in entries
        ]
    }


def test_all_is_fine():
    workers = [WorkerCheck(FIRST, None), WorkerCheck(SECOND, None)]
    add_answers(workers, told((FIRST, True, {}), (SECOND, True, {})))
    report = report_of(SERVER, workers)
    assert (report.document["ok"], report.text("quiet")) == (True, "")
    assert report.text("table").splitlines() == [
        "FROM                  TO                    RESULT",
        f"here                  server 10.0.0.1:7210  ok, Rain {rain.__version__}",
        "here                  worker 10.0.0.2:9000  ok",
        "here                  worker 10.0.0.3:9000  ok",
        "worker 10.0.0.2:9000  1 other workers       ok",
        "worker 10.0.0.3:9000  1 other workers       ok",
    ]


def test_what_failed_is_named():
    workers = [WorkerCheck(FIRST, None), WorkerCheck(SECOND, "refused"), WorkerCheck(THIRD, None)]
    add_answers(workers, told((FIRST, True, {SECOND: "no route"}), (SECOND, True, {}), (THIRD, False, {})))
    report = report_of(SERVER, workers)
    lines = [line.split("  ") for line in report.text("table").splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines]
    assert ["here", f"worker {SECOND}", "refused"] in cells
    assert [f"worker {FIRST}", "1 other workers", "ok"] in cells
    assert [f"worker {FIRST}", f"worker {SECOND}", "no route"] in cells
    assert [f"worker {THIRD}", "other workers", NO_ANSWER] in cells
    assert report.text("quiet").split() == [SECOND, THIRD]
    assert report.document["ok"] is False
    assert [worker["ok"] for worker in report.document["workers"]] == [False, False, False]
    assert report.document["workers"][0]["failures"] == [{"to": SECOND, "error": "no route"}]


def test_a_worker_that_came_or_went_meanwhile():
    """Of one that the server did not ask nothing is known."""
    workers = [WorkerCheck(FIRST, None)]
    add_answers(workers, told((SECOND, True, {})))
    assert not workers[0].is_fine


def test_another_version():
    report = report_of(ServerCheck("10.0.0.1:7210", None, "0.4.9"), [])
    assert f"ok, Rain 0.4.9 (here: {rain.__version__})" in report.text("table")
    assert report.document["ok"] is True


class Talk:
    """Stands for a connection to a server with one worker."""

    worker = ""
    late = False

    def __init__(self, *_arguments):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def renew(self):
        pass

    def ask(self, make, _answer):
        if isinstance(make(1), GetServerInfo):
            return ServerInfo(1, {"server": {"version": "1"}, "workers": [{"worker_id": self.worker}]})
        assert isinstance(make(1), CheckNetwork)
        if self.late:
            raise RainTimeoutError("has not answered in time")
        return NetworkChecked(1, told((self.worker, True, {})))


@pytest.fixture
def talk(monkeypatch):
    """Installs the server; nobody listens at the data port of its worker."""
    known = connection.KnownServer(connection.Address("127.0.0.1", 7210), Secret("secret", "test"))
    monkeypatch.setattr(connection, "find_server", lambda _options: known)
    monkeypatch.setattr(connection, "Talk", Talk)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(Talk, "worker", f"127.0.0.1:{unused.getsockname()[1]}")
        yield Talk


def test_a_data_port_that_cannot_be_reached(talk, capsys):
    assert main(["check-network", "--output", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["server"]["ok"] is True
    (worker,) = document["workers"]
    assert worker["error"] == f"cannot connect to {talk.worker}: Connection refused"
    assert worker["answered"] is True


def test_a_data_port_that_says_nothing(talk, capsys, monkeypatch):
    """It costs no more than the limit."""
    monkeypatch.setattr(check_network, "PORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(Talk, "worker", f"127.0.0.1:{silent.getsockname()[1]}")
        assert main(["check-network", "--output", "quiet"]) == 1
    assert capsys.readouterr().out == f"{talk.worker}\n"


def test_a_server_that_does_not_find_out_in_time(talk, capsys, monkeypatch):
    """What is known is told."""
    monkeypatch.setattr(Talk, "late", True)
    assert main(["check-network"]) == 1
    printed = capsys.readouterr().out
    assert "server 127.0.0.1:7210" in printed
    assert NO_ANSWER in printed


def test_a_server_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setenv("RAIN_TOKEN", "secret")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main(["check-network", address, "--output", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "server": {
            "address": address,
            "ok": False,
            "error": f"cannot connect to {address}: Connection refused",
            "version": None,
        },
        "workers": [],
    }
