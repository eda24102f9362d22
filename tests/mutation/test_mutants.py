"""The mutants fit the source; that the tests catch them shows `python -m tests.mutation`."""

from __future__ import annotations

import pytest

from tests.mutation import MUTANTS, ROOT, Mutant


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 30
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_it_can_be_applied(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text()
    assert mutant.apply(source) != source
