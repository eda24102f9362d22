"""Garbage on every port of a real cluster: refused, nothing crashes, nothing grows."""

from __future__ import annotations

from pathlib import Path

import psutil

from rain.client import Client, LocalCluster, blob, tasks
from tests.cluster.program_tasks import until
from tests.net.hostile import fire


def test_garbage_on_every_port(cluster: LocalCluster, client: Client) -> None:
    (entry,) = client.get_server_info()["workers"]
    for address in (cluster.address, entry["worker_id"]):
        fire(address)
    worker = psutil.Process(entry["pid"])
    before = worker.num_fds(), worker.memory_info().rss
    for address in (cluster.address, entry["worker_id"]):
        fire(address)
    assert worker.num_fds() <= before[0] + 2
    assert worker.memory_info().rss < before[1] + (8 << 20)
    for name in ("server", "worker-0"):
        log = Path(cluster.logdir) / f"{name}.err"
        until(lambda log=log: "refused connection from 127.0.0.1" in log.read_text())
        assert "Traceback" not in log.read_text()
    with client.new_session() as session:
        task = tasks.concat([blob("still "), blob("here")])
        task.output.keep()
        session.submit()
        assert task.output.fetch().get_bytes() == b"still here"
