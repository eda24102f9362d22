"""A deterministic asyncio event loop: virtual time, seeded order of ready callbacks, simulated processes.

Ordinary asyncio code runs unchanged as long as it uses no thread, no real socket and no wall clock. Equal seeds give
equal runs, whatever `PYTHONHASHSEED` is. Callbacks that are ready at the same time run in a seeded random order; what
must stay in order (the bytes of a connection) goes through a queue of its own, see `rain.testing.simnet`.

A `SimProcess` is a set of callbacks and tasks: everything started, directly or indirectly, by code which runs inside
it. It can be killed (nothing of it runs any more) and paused (all of it runs after `resume`).

Example:
    loop = SimLoop(seed=1)
    loop.run_until_complete(main())
    loop.shutdown()
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import random
import traceback
from collections import deque
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_process: ContextVar[SimProcess | None] = ContextVar("rain_sim_process", default=None)


class SimulationError(AssertionError):
    """The simulated program went wrong: deadlock, livelock or an exception nobody handles."""


class DeadlockError(SimulationError):
    """Nothing is ready and no timer is set, but the awaited result is missing."""


class LivelockError(SimulationError):
    """The limit of callbacks or of virtual time is exceeded."""


class SimProcess:
    """Callbacks and tasks that live and die together.

    Attributes:
        name: for messages.
        alive: False after `kill`.
        paused: True between `pause` and `resume`.
    """

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self._loop = loop
        self._held: list[asyncio.Handle] = []
        self._context = loop.outside.copy()
        self._context.run(_process.set, self)

    def context(self) -> Context:
        """A fresh context in which code belongs to this process."""
        return self._context.copy()

    def time(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> asyncio.Handle:
        """Run the callback inside the process, soon."""
        return self._loop.call_soon(callback, *args, context=self.context())

    def run(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Call the function now; what it starts belongs to this process."""
        return self.context().run(function, *args)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a task of this process."""
        return self._loop.create_task(coroutine, name=name or self.name, context=self.context())

    def kill(self) -> None:
        """Nothing of the process runs any more, not even `finally` blocks."""
        self.alive = False
        held, self._held = self._held, []
        self._loop.enqueue(held)

    def pause(self) -> None:
        """As SIGSTOP: callbacks and timers wait until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """As SIGCONT."""
        self.paused = False
        held, self._held = self._held, []
        self._loop.enqueue(held)


def current_process() -> SimProcess | None:
    """The simulated process whose code runs now, None outside of all."""
    return _process.get()


class SimLoop(asyncio.BaseEventLoop):
    """Event loop with virtual time; see the module.

    Args:
        seed: decides the order of ready callbacks, and everything drawn from `rng`.
        time_limit: virtual seconds after which the run counts as a livelock.
        step_limit: number of callbacks after which it does.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int = 0, *, time_limit: float = 7200.0, step_limit: int = 5_000_000) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.seed = seed
        self.steps = 0
        self.errors: list[str] = []
        self.outside = _context_outside_of_processes()
        self.recent: deque[str] = deque(maxlen=200)
        self._order = random.Random(seed ^ 0x5DEECE66D)
        self._now = 0.0
        self._time_limit = time_limit
        self._step_limit = step_limit
        self._hash = hashlib.blake2b(digest_size=16)
        self._dropped: list[asyncio.Handle] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False
        self.set_task_factory(cast(Any, self._make_task))

    # --- what asyncio asks of a loop ------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def run_in_executor(self, executor: object, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Call the function in a later turn of this thread: the simulation has no threads."""
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # handed on to whoever awaits it
                future.set_exception(error)

        self.call_soon(call)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """The same as `call_soon`."""
        return self.call_soon(callback, *args, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note an exception nobody handled; the run ends with it."""
        if self._ending:
            return
        error = context.get("exception")
        text = str(context.get("message"))
        if isinstance(error, BaseException):
            text += "\n" + _format_exception(error)
        self.errors.append(text)

    def _run_once(self) -> None:
        self._advance()
        batch = list(self._ready)
        self._ready.clear()
        if len(batch) > 1:
            self._order.shuffle(batch)
            batch.reverse()
        try:
            while batch:
                self._run_handle(batch.pop())
        finally:
            self._ready.extendleft(batch)
        if self.steps > self._step_limit:
            raise LivelockError(f"more than {self._step_limit} callbacks at {self._now:.6f} s\n{self.describe()}")

    def _run_handle(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        process: SimProcess | None = handle._context.get(_process)  # type: ignore[attr-defined]
        if process is not None and not self._ending:
            if not process.alive:
                self._dropped.append(handle)
                return
            if process.paused:
                process._held.append(handle)
                return
        self.steps += 1
        handle._run()
        if self.errors and not self._ending:
            raise SimulationError(f"at {self._now:.6f} s of virtual time: " + "\n".join(self.errors))

    def _advance(self) -> None:
        scheduled = self._scheduled
        while scheduled and (scheduled[0].cancelled() or self._is_dead(scheduled[0])):
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not self._ready:
            if not scheduled:
                if self._stopping:  # type: ignore[attr-defined]
                    return
                raise DeadlockError(f"deadlock: nothing ready and no timer at {self._now:.6f} s\n{self.describe()}")
            self._now = max(self._now, scheduled[0].when())
            if self._now > self._time_limit and not self._ending:
                raise LivelockError(f"not done after {self._time_limit:g} s of virtual time\n{self.describe()}")
        while scheduled and scheduled[0].when() <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(handle)

    @staticmethod
    def _is_dead(handle: asyncio.Handle) -> bool:
        process: SimProcess | None = handle._context.get(_process)  # type: ignore[attr-defined]
        return process is not None and not process.alive

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _process_events(self, event_list: object) -> None:
        """There are no events of a selector."""

    # --- the simulation -------------------------------------------------------------------------

    def enqueue(self, handles: list[asyncio.Handle]) -> None:
        """Make handles ready that were taken out before."""
        self._ready.extend(handles)

    def process(self, name: str) -> SimProcess:
        """A new simulated process."""
        return SimProcess(self, name)

    def call_outside(self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> asyncio.TimerHandle:
        """Run the callback in `delay` virtual seconds, belonging to no process."""
        return self.call_later(delay, callback, *args, context=self.outside)

    def note(self, text: str) -> None:
        """Add a line to the trace, which `trace_hash` sums up."""
        line = f"{self._now:.9f} {text}"
        self.recent.append(line)
        self._hash.update(line.encode() + b"\n")

    def trace_hash(self) -> str:
        """Digest of all lines noted so far, with their times."""
        return self._hash.hexdigest()

    def describe(self) -> str:
        """The pending tasks with the place where each waits, and the last lines of the trace."""
        lines = ["pending tasks:"]
        for task in sorted((t for t in self._tasks if not t.done()), key=lambda t: t.get_name()):
            frames = task.get_stack(limit=1)
            place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "not started"
            lines.append(f"  {task.get_name()}: {task.get_coro()!r} at {place}")
        lines.append("last of the trace:")
        lines.extend(f"  {line}" for line in list(self.recent)[-40:])
        return "\n".join(lines)

    def shutdown(self) -> None:
        """Cancel what is left, also of killed processes, and close the loop."""
        self._ending = True
        self.enqueue(self._dropped)
        for _ in range(20):
            pending = [task for task in self._tasks if not task.done()]
            if not pending:
                break
            for task in pending:
                task.cancel()
            with contextlib.suppress(DeadlockError):
                self.run_until_complete(_turns(3))
        self._tasks.clear()
        self._scheduled.clear()
        self.close()

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self, context=context, **options)
        # A strong reference: the end of a killed process must not depend on when memory is collected.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=self.outside)
        return task


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _context_outside_of_processes() -> Context:
    context = copy_context()
    context.run(_process.set, None)
    return context


def _format_exception(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
