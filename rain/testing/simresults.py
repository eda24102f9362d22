"""What a simulated worker has instead of the result cache: a dict that all workers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.common.task_template import CACHED_INFO
from rain.testing.simstore import result_of
from rain.worker.core.events import LookedUp
from rain.worker.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.testing.simloop import SimLoop
    from rain.testing.simstore import SimStore
    from rain.worker.core.actions import Run
    from rain.worker.core.events import RunResult, TaskKey, WorkerEvent

    Results = dict[tuple[object, ...], list[bytes]]
    """Values of outputs by what they were made from."""

_LONGEST_LOOK = 0.02


class SimResults:
    """Looks results up, which takes a while; now and then the cache does not answer, or forgets.

    Args:
        loop: of the simulation.
        store: of the worker.
        results: of all workers.
        clock: unix seconds.
        report: takes what was found.
    """

    def __init__(
        self,
        loop: SimLoop,
        store: SimStore,
        results: Results,
        clock: Callable[[], float],
        report: Callable[[WorkerEvent], None],
    ) -> None:
        self._loop = loop
        self._store = store
        self._results = results
        self._clock = clock
        self._report = report
        self._runs: dict[TaskKey, Run] = {}

    def look_up(self, run: Run) -> None:
        """Look for the result of a run."""
        self._runs[run.key] = run
        self._loop.call_later(self._loop.rng.uniform(0.0, _LONGEST_LOOK), self._answer, run)

    def stop(self, key: TaskKey) -> None:
        """Nobody wants it."""
        self._runs.pop(key, None)

    def keep(self, key: TaskKey, outputs: list[tuple[int, bytes | None]]) -> None:
        """The run succeeded."""
        run = self._runs.pop(key, None)
        if run is not None:
            values = [self._store.get((key[0], number)) for number in run.outputs]
            assert [len(value or b"") for value in values] == [size for size, _ in outputs]
            name = self._name(run)
            if name is not None:
                self._results[name] = [value or b"" for value in values]

    def _name(self, run: Run) -> tuple[object, ...] | None:
        inputs = [self._store.get(item.object) for item in run.inputs]
        if None in inputs:
            return None
        return (run.template_data["task_type"], run.args, len(run.outputs), *inputs)

    def _answer(self, run: Run) -> None:
        if self._runs.get(run.key) is not run:
            return
        self._report(LookedUp(run.key, self._found(run)))

    def _found(self, run: Run) -> RunResult | None:
        values = self._results.get(self._name(run) or ())
        if values is None or self._loop.rng.random() < 0.2:
            return None
        outputs = {(run.key[0], number): value for number, value in zip(run.outputs, values, strict=True)}
        try:
            self._store.put_outputs(outputs)
        except StoreError:
            return None
        del self._runs[run.key]
        result = result_of(run, self._clock(), 0.0, outputs)
        result.info = CACHED_INFO
        return result
