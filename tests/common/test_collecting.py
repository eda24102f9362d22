"""Garbage collection, held off."""

import gc

import pytest

from rain.common.collecting import collections_paused


def test_it_is_as_before_afterwards():
    with collections_paused():
        assert not gc.isenabled()
        with collections_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_errors_end_the_pause():
    with pytest.raises(ValueError, match="in it"), collections_paused():
        raise ValueError("in it")
    assert gc.isenabled()
