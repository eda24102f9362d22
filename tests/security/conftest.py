"""A real cluster under attack; nothing of it may be left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rain.client import Client, LocalCluster
from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open


class Target:
    """A cluster of one worker, its processes, ports and secret."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.address = cluster.address
        self.directory = Path(cluster.logdir).parent
        with cluster.client() as client:
            (entry,) = client.get_server_info()["workers"]
        self.data_address: str = entry["worker_id"]
        self.worker = psutil.Process(entry["pid"])
        self.secret = (self.directory / "token").read_text().strip()

    def client(self) -> Client:
        """A client that knows the secret."""
        return self.cluster.client()

    def processes(self) -> list[psutil.Process]:
        """Everything this process has started."""
        return psutil.Process(os.getpid()).children(recursive=True)

    def log(self) -> str:
        """What server and worker have logged."""
        folder = Path(self.cluster.logdir)
        return "".join((folder / f"{name}.err").read_text("utf-8", "replace") for name in ("server", "worker-0"))


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """One cluster for all tests of a module."""
    with no_leaks(), LocalCluster(1, cpus=2, timeout=60) as cluster:
        yield Target(cluster)
