"""Counters and percentiles."""

from __future__ import annotations

import pytest

from rain.memcache.metrics import Counters, percentile
from rain.memcache.requests import Request


def test_before_the_first_connection():
    metrics = Counters().snapshot(0)
    assert metrics.connections_created == 0
    assert metrics.create_connection_avg is None
    assert metrics.create_connection_p50 is None
    assert metrics.create_connection_p99 is None
    assert metrics.create_connection_upper is None


def test_percentiles():
    samples = [float(number) for number in range(101)]
    assert percentile(samples, 50) == 50.0
    assert percentile(samples, 99) == 99.0
    assert percentile([4.0], 99) == 4.0
    assert percentile([], 50) is None


def test_the_last_hundred_attempts_count():
    counters = Counters()
    for number in range(1000, 0, -1):
        counters.created(float(number))
    metrics = counters.snapshot(3)
    assert metrics.cur_connections == 3
    assert metrics.connections_created == 1000
    assert metrics.create_connection_avg == pytest.approx(50.5)
    assert metrics.create_connection_p50 == 51.0
    assert metrics.create_connection_p99 == 100.0
    assert metrics.create_connection_upper == 100.0


def test_a_request_without_answer_counts_once_if_it_was_handed_over():
    counters = Counters()
    queued, sent, lost, own = (Request("get", b"k") for _ in range(4))
    sent.carrier = own.carrier = object()
    lost.sent_before = own.own = True
    for request in (queued, sent, sent, lost, lost, own):
        counters.unanswered(request)
    assert counters.operations_executed_with_error == 2
