"""`/metrics` of a real cluster under load, asked again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rain.client import LocalCluster
from rain.testing.leaks import no_leaks
from tests.server.http.browser import Browser

Sample = tuple[str, tuple[tuple[str, str], ...]]

TASKS = 2000


def double(number: int) -> int:
    return 2 * number


def counters(text: str) -> dict[Sample, float]:
    """What may only grow."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }


def scrape(browser: Browser, seconds: float, interval: float) -> Iterator[dict[Sample, float]]:
    """Valid pages whose counters never fall."""
    before: dict[Sample, float] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = browser.get("/metrics")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        found = counters(answer.text)
        fallen = {sample: (value, found.get(sample)) for sample, value in before.items()
                  if sample not in found or found[sample] < value}  # fmt: skip
        assert not fallen
        before = found
        yield found
        time.sleep(interval)


def watch_load(seconds: float, interval: float) -> None:
    """Scrape while a client works."""
    stop = threading.Event()
    rounds: list[int] = []

    def work(cluster: LocalCluster) -> None:
        with cluster.client() as client:
            while not stop.is_set() or not rounds:
                with client.new_session() as session:
                    assert session.map(double, range(TASKS)).result()[-1] == 2 * (TASKS - 1)
                rounds.append(1)

    with no_leaks(), LocalCluster(1, cpus=2, timeout=60) as cluster:
        assert cluster.http_url is not None
        browser = Browser(cluster.http_url)
        thread = threading.Thread(target=work, args=(cluster,))
        thread.start()
        try:
            pages = list(scrape(browser, seconds, interval))
        finally:
            stop.set()
            thread.join()
        assert len(pages) > 3
        last = counters(browser.get("/metrics").text)
        for name in ("submitted", "started", "finished"):
            assert last["rain_server_task_transitions_total", (("to", name),)] == TASKS * len(rounds)
        assert last["rain_server_task_transitions_total", (("to", "failed"),)] == 0
        monitored = [labels for name, labels in last if name == "rain_worker_transfer_bytes_total"]
        assert {dict(labels)["direction"] for labels in monitored} >= {"received", "sent"}


@pytest.mark.cluster
def test_each_fifth_of_a_second():
    watch_load(6.0, 0.2)


@pytest.mark.cluster
@pytest.mark.slow
def test_each_second_for_a_minute():
    watch_load(60.0, 1.0)
