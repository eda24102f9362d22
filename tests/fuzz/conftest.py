"""How many inputs each fuzzer gets, and where it writes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rain.common import fs
from tests.fuzz.fuzzing import INPUTS, SLOW_INPUTS


@pytest.fixture(
    params=[
        pytest.param(INPUTS, id="fast"),
        pytest.param(SLOW_INPUTS, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(0)]),
    ]
)
def inputs(request: pytest.FixtureRequest) -> int:
    """Inputs of this run."""
    count: int = request.param
    request.node.user_properties.append(("inputs", count))
    return count


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory in memory: hundreds of thousands of small files are written."""
    place = Path(tempfile.mkdtemp(prefix="rain-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    yield place
    fs.remove_tree(place)
