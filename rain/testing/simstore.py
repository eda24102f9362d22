"""What a simulated worker has instead of a store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rain.testing.simblocks import INLINE_LIMIT, failure_of
from rain.worker.core.events import RunFailed, RunResult, RunSkipped
from rain.worker.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.worker.core.actions import Run
    from rain.worker.core.events import ObjectKey, RunEnd


class SimStore:
    """A dict.

    Attributes:
        values: by key.
        damaged: keys whose values other nodes cannot read.
        trouble: error number with which the disk refuses values, 0 = none.
        refused_from: bytes of the smallest value it refuses then.
        refusals: number of values refused.
    """

    def __init__(self) -> None:
        self.values: dict[ObjectKey, bytes] = {}
        self.damaged: set[ObjectKey] = set()
        self.trouble = 0
        self.refused_from = 0
        self.refusals = 0

    def put(self, key: ObjectKey, value: bytes) -> None:
        """Store a value; an existing one wins.

        Raises:
            StoreError: the disk refuses it.
        """
        if key in self.values:
            return
        if self.trouble and len(value) >= self.refused_from:
            self.refusals += 1
            error = OSError(self.trouble, os.strerror(self.trouble))
            raise StoreError.of_os("cannot store a value", error, path="the store", size=len(value))
        self.values[key] = value

    def put_outputs(self, outputs: dict[ObjectKey, bytes]) -> None:
        """Store the outputs of a run, all or, after an error, none that was not there.

        Raises:
            StoreError: the disk refuses one.
        """
        new = [key for key in outputs if key not in self.values]
        try:
            for key, value in outputs.items():
                self.put(key, value)
        except StoreError:
            self.delete(new)
            raise

    def read(self, key: ObjectKey) -> bytes | None:
        """The value for another node."""
        return None if key in self.damaged else self.values.get(key)

    def get(self, key: ObjectKey) -> bytes | None:
        """The value, None if it is not here."""
        return self.values.get(key)

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove values."""
        for key in keys:
            self.values.pop(key, None)
            self.damaged.discard(key)


def result_of(run: Run, start: float, duration: float, outputs: dict[ObjectKey, bytes]) -> RunResult:
    """The report of a successful run."""
    values = [outputs[run.key[0], output] for output in run.outputs]
    columns: list[tuple[int, bytes | None, bytes | None]]
    columns = [(len(value), None, value if len(value) < INLINE_LIMIT else None) for value in values]
    return RunResult(run.key, start, duration, None, columns)


def stored(store: SimStore, run: Run, result: RunEnd, outputs: dict[ObjectKey, bytes]) -> RunEnd:
    """The result of a run whose outputs were put into the store; a failure if it refuses them."""
    if isinstance(result, RunSkipped):
        return result
    try:
        store.put_outputs(outputs)
    except StoreError as error:
        return RunFailed(run.key, failure_of(run, str(error)), result.start, result.duration)
    return result
