"""No row of the API reference is without a test, unless what it speaks of does not exist yet."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.spec_rows import ROWS, Row, defects, exists, read_rows

ALL = read_rows()


def test_no_row_was_dropped() -> None:
    assert Counter(row.table for row in ALL) == ROWS
    assert all(row.text for row in ALL)


@pytest.mark.parametrize("row", ALL, ids=str)
def test_row_is_proved(row: Row) -> None:
    assert list(defects(row)) == []


def test_missing_tests_are_noticed() -> None:
    assert exists("tests/test_spec_rows.py::test_missing_tests_are_noticed")
    assert exists("tests/test_spec_rows.py::test_missing_tests_are_noticed[are_noticed]")
    assert not exists("tests/test_spec_rows.py::test_missing")
    assert not exists("tests/test_no_such_file.py::test_missing_tests_are_noticed")
    assert not exists("tests/scripts/test_scripts.py::test_script[v01-missing]")
    assert not exists("tests/cluster/test_service_levels.py::test_level[missing]")
    row = Row("14", "key", "text", (), None)
    assert list(defects(row)) == ["no test proves it"]
    assert list(defects(Row("14", "key", "text", ("tests/none.py::test_x",), "wishes"))) == [
        "it waits for 'wishes', which is no feature",
        "tests/none.py::test_x does not exist",
    ]
