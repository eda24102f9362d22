"""The worker's side of the result cache: looks results up before tasks run and stores them afterwards.

A cache that fails costs its tasks nothing but the answer: they run, and the log tells once in a while.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgpack

from rain.cache.backend import CacheError, Turn
from rain.cache.entries import EntryError, decode, encode
from rain.cache.keys import InputDigest, KeyParts, result_key
from rain.cache.opening import open_backend
from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.common.task_template import CACHED_INFO
from rain.worker.cached_values import digest_of, read_output, stage_output
from rain.worker.core.actions import Run
from rain.worker.core.events import LookedUp, RunResult
from rain.worker.foreign_specs import output_fields, unpacked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Executor

    from rain.cache.backend import Backend
    from rain.cache.entries import CachedOutput
    from rain.worker.core.actions import RunInput
    from rain.worker.core.events import ObjectKey, TaskKey, WorkerEvent
    from rain.worker.store import Store
    from rain.worker.store.directories import Staged

log = logging.getLogger(__name__)

ASK_SECONDS = 1.0
"""Longest wait for an answer of the cache."""
LONGEST_WAIT = 60.0
"""Seconds for which a task waits for another one that computes the same; then it runs as well."""
CLOSING_SECONDS = 1.0
"""Longest time for which the end of the worker waits for results that are being stored."""
PAUSE = 5.0
"""Seconds for which the cache is left alone after a failure."""
QUIET = 60.0
"""Seconds between two lines of the log about failures."""
MAX_DIGESTS = 10_000
"""Digests of objects remembered."""

_FIRST_LOOK, _LAST_LOOK = 0.01, 0.25
_FAILURES = (CacheError, OSError, RainException)


@dataclass(frozen=True, slots=True)
class _Held:
    """A turn of a run: the key of its result, and the secret of the cache."""

    name: bytes
    secret: bytes
    turn: Turn
    run: Run


class ResultCache:
    """Looks up and stores results.

    Args:
        loop: of the worker.
        store: of the worker.
        threads: for digests, and for reading and writing of values.
        report: takes LookedUp.
        wall_clock: unix seconds.
        inline_limit: results of this many bytes and more do not travel with completions.
        open_backend: opens what the server tells of.

    Attributes:
        counts: since the start: hits, misses (runs looked up), stored (results), failures (of the cache), and bytes
            read and written.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        store: Store,
        threads: Executor,
        report: Callable[[WorkerEvent], None],
        wall_clock: Callable[[], float],
        inline_limit: int = 65536,
        open_backend: Callable[[dict[str, Any], Executor], Awaitable[tuple[Backend, bytes]]] = open_backend,
    ) -> None:
        self.counts = dict.fromkeys(("hits", "misses", "stored", "failures", "read", "written"), 0)
        self._open_backend = open_backend
        self._told: dict[str, Any] = {}
        self._opening: asyncio.Task[tuple[Backend, bytes]] | None = None
        self._loop = loop
        self._store = store
        self._threads = threads
        self._report = report
        self._wall_clock = wall_clock
        self._inline_limit = inline_limit
        self._lookups: dict[TaskKey, asyncio.Task[None]] = {}
        self._turns: dict[TaskKey, _Held] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._digests: OrderedDict[ObjectKey, bytes] = OrderedDict()
        self._next_copy = 0
        self._off_until = 0.0
        self._quiet_until = 0.0

    def use(self, told: dict[str, Any]) -> None:
        """Use the cache that the server tells of; empty: there is none."""
        if told != self._told:
            self._told = told
            before, self._opening = self._opening, None
            if before is not None:
                self._in_background(self._close_backend(before))
            if told:
                self._opening = self._loop.create_task(self._open(told))

    # --- told by the shell ----------------------------------------------------------------------

    def look_up(self, run: Run) -> None:
        """Look for the result of a run whose inputs are in the store; answered by LookedUp."""
        if self._opening is None:
            self._report(LookedUp(run.key, None))
            return
        self._lookups[run.key] = self._loop.create_task(self._look_up(run))

    def stop(self, key: TaskKey) -> None:
        """The run ended without a result, or nobody wants it any more; no LookedUp follows."""
        lookup = self._lookups.pop(key, None)
        if lookup is not None:
            lookup.cancel()
        held = self._turns.pop(key, None)
        if held is not None:
            self._in_background(held.turn.give_up())

    def keep(self, key: TaskKey, outputs: list[tuple[int, bytes | None]]) -> None:
        """A run that was looked up in vain succeeded; its outputs are in the store. Stores them if it is its turn.

        Args:
            key: of the run.
            outputs: size and packed info of each.
        """
        held = self._turns.pop(key, None)
        if held is None:
            return
        copies: list[ObjectKey] = []
        for number in held.run.outputs:  # so that they stay while they are read
            self._next_copy += 1
            copy = (0, self._next_copy)
            try:
                self._store.share((key[0], number), copy)
            except KeyError:
                self._store.delete(copies)
                self._in_background(held.turn.give_up())
                return
            copies.append(copy)
        self._in_background(self._keep(held, copies, outputs))

    async def close(self) -> None:
        """Stop everything; what is being stored has a moment to end."""
        tasks = list(self._lookups.values())
        self._lookups.clear()
        for task in tasks:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=CLOSING_SECONDS)
        tasks += self._background
        for task in self._background:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._turns.clear()
        opening, self._opening = self._opening, None
        if opening is not None:
            await self._guarded(self._close_backend(opening))

    # --- inside ---------------------------------------------------------------------------------

    async def _open(self, told: dict[str, Any]) -> tuple[Backend, bytes]:
        try:
            return await self._open_backend(told, self._threads)
        except CacheError as error:
            self._complain(f"the result cache cannot be used by this worker, its tasks run without: {error}")
            raise

    @staticmethod
    async def _close_backend(opening: asyncio.Task[tuple[Backend, bytes]]) -> None:
        opening.cancel()
        try:
            backend, _ = await opening
        except (CacheError, asyncio.CancelledError):
            return
        await backend.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._guarded(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except _FAILURES as error:
            self._trouble(error)

    async def _look_up(self, run: Run) -> None:
        result: RunResult | None = None
        try:
            result = await self._result(run)
        except _FAILURES as error:
            self._trouble(error)
        self._lookups.pop(run.key, None)
        self.counts["misses" if result is None else "hits"] += 1
        self._report(LookedUp(run.key, result))

    async def _result(self, run: Run) -> RunResult | None:
        opening = self._opening
        if opening is None or self._loop.time() < self._off_until:
            return None
        await asyncio.wait((opening,))
        if opening.cancelled() or opening.exception() is not None:
            return None
        backend, secret = opening.result()
        name = await self._name(run)
        outputs = None if name is None else await self._find(backend, secret, name, run)
        return None if outputs is None else await self._take(run, outputs)

    async def _find(self, backend: Backend, secret: bytes, name: bytes, run: Run) -> list[CachedOutput] | None:
        """The outputs; None: the run has to be done, and its turn is noted if it has one."""
        pause, end = _FIRST_LOOK, self._loop.time() + LONGEST_WAIT
        while True:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    found = await backend.ask(name)
            except TimeoutError:
                raise CacheError(f"no answer within {ASK_SECONDS:g} s") from None
            if isinstance(found, bytes):
                self.counts["read"] += len(found)
                try:
                    return await self._loop.run_in_executor(
                        self._threads, _opened, name, found, secret, len(run.outputs)
                    )
                except EntryError as error:
                    self._complain(f"an entry of the result cache is refused and removed: {error}")
                    await backend.discard(name)
                continue
            if found is not None:
                self._turns[run.key] = _Held(name, secret, found, run)
                return None
            if self._loop.time() >= end:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK)

    async def _take(self, run: Run, outputs: list[CachedOutput]) -> RunResult:
        """Put outputs from the cache into the store."""
        staged: list[Staged] = []
        taken: list[tuple[int, bytes | None, bytes | None]] = []
        try:
            for output in outputs:
                staged.append(
                    await self._loop.run_in_executor(
                        self._threads, stage_output, self._store, output, self._inline_limit
                    )
                )
            for number, output in zip(run.outputs, outputs, strict=True):
                key = (run.key[0], number)
                self._store.put_staged(key, staged[0])
                del staged[0]
                value = self._store.get(key)
                taken.append((output.size, output.info, value if isinstance(value, bytes) else None))
        except BaseException:
            for rest in staged:
                self._store.discard_staged(rest)
            self._store.delete([(run.key[0], number) for number in run.outputs[: len(taken)]])
            raise
        return RunResult(run.key, self._wall_clock(), 0.0, CACHED_INFO, taken)

    async def _keep(self, held: _Held, copies: list[ObjectKey], outputs: list[tuple[int, bytes | None]]) -> None:
        read: list[CachedOutput] = []
        try:
            for index, (copy, (size, info)) in enumerate(zip(copies, outputs, strict=True)):
                value = self._store.get(copy)
                directory = output_fields(held.run, index).get("data_type") == "dir"
                assert value is not None
                output = await self._loop.run_in_executor(self._threads, read_output, value, size, info, directory)
                if output is None:
                    await held.turn.give_up()
                    return
                read.append(output)
        finally:
            self._store.delete(copies)
        entry = await self._loop.run_in_executor(self._threads, encode, held.name, read, held.secret)
        await held.turn.store(entry)
        self.counts["stored"] += 1
        self.counts["written"] += len(entry)

    # --- keys -----------------------------------------------------------------------------------

    async def _name(self, run: Run) -> bytes | None:
        """The key of the run's result, None if an input is not here any more."""
        template = run.template_data
        text = template["cache"]
        computation: tuple[bytes, ...]
        is_python = template["task_type"] == "py" or template["task_type"].startswith("py/")
        if isinstance(text, str):
            computation = (b"text", text.encode())
        else:
            config = msgpack.packb(template["config"]) if "config" in template else b""
            computation = (b"code", template.get("cache_code") or b"", config, run.args or b"")
        inputs = run.inputs[1:] if is_python else run.inputs  # without the function
        digests = []
        for item in inputs:
            digest = await self._input(item)
            if digest is None:
                return None
            digests.append(digest)
        parts = KeyParts(
            template["task_type"],
            computation,
            tuple(digests),
            tuple(label or "" for label in template.get("labels") or ()),
            tuple(msgpack.packb(sorted(output_fields(run, k).items())) for k in range(len(run.outputs))),
            tuple(sorted((template.get("env") or {}).items())),
            f"{sys.version_info.major}.{sys.version_info.minor}",
        )
        return result_key(parts)

    async def _input(self, item: RunInput) -> InputDigest | None:
        digest = self._digests.get(item.object)
        if digest is None:
            value = self._store.get(item.object)
            if value is None:
                return None
            digest = await self._loop.run_in_executor(self._threads, digest_of, value)
            self._digests[item.object] = digest
            if len(self._digests) > MAX_DIGESTS:
                self._digests.popitem(last=False)
        spec = unpacked(item.spec) if item.spec else {}
        info = unpacked(item.info) if item.info else {}
        content_type = info.get("content_type") or spec.get("content_type") or ""
        return InputDigest(spec.get("data_type") or "blob", content_type, digest)

    # --- trouble --------------------------------------------------------------------------------

    def _trouble(self, error: Exception) -> None:
        self.counts["failures"] += 1
        self._off_until = self._loop.time() + PAUSE
        self._complain(f"the result cache fails, tasks run without it: {error}")

    def _complain(self, text: str) -> None:
        if self._loop.time() >= self._quiet_until:
            self._quiet_until = self._loop.time() + QUIET
            log.warning("%s", text[:1].upper() + text[1:])


def _opened(name: bytes, entry: bytes, secret: bytes, count: int) -> list[CachedOutput]:
    outputs = decode(name, entry, secret)
    if len(outputs) != count:
        raise EntryError(f"it has {len(outputs)} outputs instead of {count}")
    return outputs
