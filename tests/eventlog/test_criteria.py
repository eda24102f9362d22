"""Which events are asked for: all operators, all mistakes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from rain.eventlog.criteria import EVENT_TYPES, LARGEST, Criteria, Span, criteria_of, parse_criteria
from rain.eventlog.packing import UNKEPT

MEANINGS = {
    "=": lambda number, value: number == value,
    "<": lambda number, value: number < value,
    ">": lambda number, value: number > value,
    "<=": lambda number, value: number <= value,
    ">=": lambda number, value: number >= value,
}


def types(*names: str) -> dict[str, object]:
    return {"event_types": [{"value": name, "mode": "="} for name in names]}


@given(st.sampled_from(sorted(MEANINGS)), st.integers(-5, 5), st.integers(-8, 8))
def test_operators(mode: str, value: int, number: int):
    criteria = parse_criteria({"id": {"value": value, "mode": mode}, "session": {"value": value, "mode": mode}})
    assert criteria.sessions is not None
    expected = MEANINGS[mode](number, value)
    for span in (criteria.ids, criteria.sessions):
        assert (span.low <= number <= span.high) == expected


@pytest.mark.parametrize("mode", sorted(MEANINGS))
@pytest.mark.parametrize("value", [LARGEST, -LARGEST])
def test_the_largest_numbers_fit(mode: str, value: int):
    span = parse_criteria({"id": {"value": value, "mode": mode}}).ids
    assert min(span.low, span.high) >= -LARGEST
    assert max(span.low, span.high) <= LARGEST


def test_nothing_means_all():
    assert parse_criteria({}) == parse_criteria({"event_types": []}) == Criteria()
    assert parse_criteria({}).has_type({"type": "whatever"})


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("GovernorNew", "WorkerNew"),
        ("GovernorRemoved", "WorkerRemoved"),
        ("ObjectFinished", "DataObjectFinished"),
        ("InvalidRequest", "ClientInvalidRequest"),
    ],
)
def test_aliases(alias: str, name: str):
    assert parse_criteria(types(alias)) == parse_criteria(types(name)) == Criteria(types=frozenset({name}))


def test_task_failed():
    """A TaskFinished with an error, whatever the type is called."""
    failed, finished = {"type": "TaskFinished", "info": {"error": "x"}}, {"type": "TaskFinished", "info": {}}
    criteria = parse_criteria(types("TaskFailed"))
    assert (criteria.has_type(failed), criteria.has_type(finished)) == (True, False)
    assert not criteria.has_type({"type": "TaskStarted", "info": {"error": "x"}})
    assert criteria.kinds() == frozenset()
    both = parse_criteria(types("TaskFailed", "TaskFinished"))
    assert (both.has_type(failed), both.has_type(finished)) == (True, True)


def test_several_types_are_ored():
    criteria = parse_criteria(types("TaskStarted", "ClientUnkeep", "no such type"))
    assert criteria.has_type({"type": "TaskStarted"})
    assert not criteria.has_type({"type": "TaskFinished", "info": {}})
    assert criteria.kinds() == {"started", "finished", "members", UNKEPT}


def test_criteria_of():
    assert criteria_of(None, []) == Criteria()
    assert criteria_of(3, ["TaskFailed"]) == Criteria(sessions=Span(3, 3), types=frozenset(), failed=True)


def test_all_names_are_understood():
    assert all(parse_criteria(types(name)) != Criteria() for name in EVENT_TYPES)


@pytest.mark.parametrize(
    ("given_criteria", "text"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ("id", "JSON object"),
        ({"ids": {"value": 1, "mode": "="}}, "'ids'"),
        ({"id": 1}, "'id'"),
        ({"id": {"value": 1}}, "'id'"),
        ({"id": {"value": 1, "mode": "=", "x": 1}}, "'id'"),
        ({"id": {"value": "1", "mode": "="}}, "not an integer"),
        ({"id": {"value": True, "mode": "="}}, "not an integer"),
        ({"id": {"value": 1.0, "mode": "="}}, "not an integer"),
        ({"session": {"value": 1 << 63, "mode": "="}}, "not an integer"),
        ({"session": {"value": 10**4000, "mode": "="}}, "more than 64 bits"),
        ({"session": {"value": 1, "mode": "=="}}, "'=='"),
        ({"session": {"value": 1, "mode": ["="]}}, "mode"),
        ({"session": None}, "'session'"),
        ({"event_types": {"value": "x", "mode": "="}}, "event_types"),
        ({"event_types": ["TaskStarted"]}, "event_types"),
        ({"event_types": [{"value": 1, "mode": "="}]}, "not a name"),
        ({"event_types": [{"value": "x", "mode": "<"}]}, "'<'"),
        ({"event_types": [{"value": "x", "mode": "="}] * 101}, "at most 100"),
    ],
)
def test_malformed_criteria(given_criteria: object, text: str):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        parse_criteria(given_criteria)
    assert len(str(caught.value)) < 500
