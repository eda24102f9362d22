"""Resources as the scheduler counts them, and as people do."""

from __future__ import annotations

from rain.server.core.workers import Worker
from rain.server.scheduler.resources import free_resources, parse_offer, parse_request


def test_what_is_free_is_told_in_the_units_of_users() -> None:
    """Tasks sent ahead make cpus negative, which is nobody's business; nor are the slots of tasks without cpus."""
    resources = {"cpus": 2, "gpus": [0, 3], "memory": 1 << 30, "licences": 1.5}
    worker = Worker(1, 1, "10.0.0.1:9000", "host", 1, "3.11.7", resources, parse_offer(resources), "")
    assert free_resources(worker.free_cpus, worker.free) == {
        "cpus": 2,
        "gpus": 2,
        "memory": 1 << 30,
        "licences": 1.5,
    }
    worker.take(1, 12, parse_request({"cpus": 3, "gpus": 1, "memory": "512 MiB", "licences": 0.25}), 1.0)
    worker.take(1, 13, parse_request({"cpus": 0}), 1.0)
    assert free_resources(worker.free_cpus, worker.free) == {
        "cpus": 0,
        "gpus": 1,
        "memory": 512 << 20,
        "licences": 1.25,
    }
