"""The shell of the worker core: messages and reports become events, actions are performed.

It knows no clock, thread, file or socket but through what is handed in, so that a simulated world can be put under it.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from rain.protocol.messages import AssignTasks, EndSession, Heartbeat, WorkerInfo, WorkerWelcome
from rain.worker.core.actions import (
    CallExecutor,
    DeleteValues,
    DropCached,
    Exit,
    FetchObject,
    ForbidRun,
    KeepResult,
    KillExecutor,
    LookUp,
    Probe,
    ReadLog,
    RunBuiltin,
    StartExecutor,
    StopBuiltin,
    StopFetch,
    StopLookUp,
    StoreValue,
    TellServer,
)
from rain.worker.core.events import (
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    LookedUp,
    ObjectArrived,
    ObjectUnreachable,
    RunsEnded,
    ServerLost,
    ServerSaid,
    StoreFailed,
    Tick,
)
from rain.worker.store.errors import StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from rain.protocol.messages import Message, WorkerHello, WorkerMessage
    from rain.worker.core.actions import Run, WorkerAction
    from rain.worker.core.events import RunEnd, TaskKey, WorkerEvent
    from rain.worker.parts import ChannelLike, Core, Parts, Supervisor

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 5.0
"""Seconds between signs of life."""
SILENCE_LIMIT = 15.0
"""A server not heard of for so many seconds is lost."""
TICK_INTERVAL = 0.5
"""Seconds between ticks of the core."""
CALM_SECONDS = 1e-4
"""After so long without a turn, what the server or an executor says is handled at once; else with what else came in the
same turn of the loop."""
FIRST_LOOK_SECONDS = 1.0
"""Seconds from the registration to the first look at the machine, which would delay the first tasks."""
MONITORING_INTERVAL = 5.0
"""Seconds between two later looks."""

_SHORTEST_DELAY = 0.001
_SILENT_TICKS = round(SILENCE_LIMIT / TICK_INTERVAL)
_REMEMBERED_BATCHES = 8
_EVENTS_IN_STORY = 20


class WorkerShell:
    """Feeds the core and obeys it.

    Events of one loop turn are handled together. After construction call `equip`, then `attach` for each connection.

    Args:
        core: decides.
        loop: gives turns and timers.
        clock: gives unix seconds, which never go back.
        supervisor: is told of registration, loss and end.
    """

    def __init__(
        self, core: Core, *, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], supervisor: Supervisor
    ) -> None:
        self._core = core
        self._loop = loop
        self._clock = clock
        self._supervisor = supervisor
        self._channel: ChannelLike | None = None
        self._closed_early: tuple[object, str] | None = None
        self._pending: list[WorkerEvent] = []
        self._turn_planned = False
        self._last_turn = 0.0
        self._outgoing: list[Message] = []
        self._ended = False
        self._lost_reason: str | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._deadline: float | None = None  # of the core, in unix seconds
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0  # the deadline for which it was set; by now there may be a later one, or none
        self._silent_ticks = 0
        self._live: dict[int, deque[list[Run]]] = {}  # executors the core counts on, and their last batches
        self._builtin_runs: dict[TaskKey, Run] = {}
        self._looked_up: dict[TaskKey, Run] = {}  # until they were answered
        self._sessions: set[int] = set()  # those of which executors may know something
        self._recent: deque[WorkerEvent] = deque(maxlen=_EVENTS_IN_STORY)

    def equip(self, parts: Parts) -> None:
        """Give it what performs the actions. Their reports come in by `report`."""
        self._parts = parts
        self._perform: dict[type, Callable[[Any], None]] = {
            TellServer: self._tell_server,
            StartExecutor: self._start_executor,
            KillExecutor: self._kill_executor,
            ForbidRun: lambda action: parts.executors.forbid(action.executor, action.key),
            CallExecutor: self._call_executor,
            DropCached: lambda action: parts.executors.drop_cached(action.executor, action.objects),
            RunBuiltin: self._run_builtin,
            StopBuiltin: self._stop_builtin,
            LookUp: self._look_up,
            StopLookUp: self._stop_look_up,
            KeepResult: lambda action: parts.results.keep(action.key, action.outputs),
            StoreValue: self._store_value,
            FetchObject: parts.transfers.fetch,
            StopFetch: self._stop_fetch,
            DeleteValues: lambda action: parts.store.delete(action.objects),
            ReadLog: lambda action: self._answerer()(parts.inquiries.read_log(action.request)),
            Probe: lambda action: parts.inquiries.probe(action.request, self._answerer()),
            Exit: lambda action: self._end(action.code),
        }

    # --- the connection -------------------------------------------------------------------------

    def attach(self, channel: ChannelLike, hello: WorkerHello) -> None:
        """Register over this connection; its handler is this shell."""
        self._channel = channel
        self._silent_ticks = 0
        if self._closed_early is not None and self._closed_early[0] is channel:
            self.channel_closed(channel, self._closed_early[1])
            return
        channel.send(hello)
        self._timers = []
        self._repeat(0, TICK_INTERVAL, self._tick)
        self._repeat(1, HEARTBEAT_INTERVAL, self._heartbeat)
        self._repeat(2, MONITORING_INTERVAL, self._monitor)

    def messages_received(self, channel: ChannelLike, messages: list[Message]) -> None:
        """The server said something; no messages: a long one is coming."""
        if channel is not self._channel:
            return
        self._silent_ticks = 0
        for message in messages:
            if not isinstance(message, Heartbeat):
                self._admit(ServerSaid(message))  # type: ignore[arg-type]
            if isinstance(message, WorkerWelcome):
                self._supervisor.registered(message)
                self._timers.append(self._loop.call_later(FIRST_LOOK_SECONDS, self._monitor))
        self._turn_at_once_if_calm()

    def channel_closed(self, channel: ChannelLike, reason: str) -> None:
        """The connection ended."""
        if channel is not self._channel:
            self._closed_early = (channel, reason)
            return
        self._closed_early = None
        self._channel = None
        self._cancel_timers()
        self._lost_reason = reason
        self.report(ServerLost())

    # --- events ---------------------------------------------------------------------------------

    def report(self, event: WorkerEvent) -> None:
        """Take an event; it is handled in the next turn. To be called in the loop's thread."""
        self._admit(event)
        self._plan_turn()

    def hear(self, read: Callable[[], None]) -> None:
        """Take in what `read` reports: at once if nothing else is going on, which saves a turn of the loop."""
        planned, self._turn_planned = self._turn_planned, True  # by what follows
        try:
            read()
        finally:
            self._turn_planned = planned
            self._turn_at_once_if_calm()

    def _turn_at_once_if_calm(self) -> None:
        if self._turn_planned or self._loop.time() - self._last_turn < CALM_SECONDS:
            self._plan_turn()
        else:
            self._turn()

    def _admit(self, event: WorkerEvent) -> None:
        if self._ended:
            return
        about_executor = isinstance(event, RunsEnded | ExecutorReady | ExecutorLost) and event.executor
        if about_executor and about_executor not in self._live:
            return
        self._pending.append(event)

    def _plan_turn(self) -> None:
        if self._pending and not self._turn_planned:
            self._turn_planned = True
            self._loop.call_soon(self._turn)

    def close(self) -> None:
        """Do nothing any more."""
        self._ended = True
        self._cancel_timers()
        self._pending.clear()

    def _turn(self) -> None:
        self._turn_planned = False
        if self._ended or not self._pending:
            return
        events, self._pending = self._pending, []
        self._recent.extend(events)
        self._note_ends(events)
        try:
            actions = self._core.handle(events, self._clock())
        except Exception:
            self._crash("The worker core failed", events)
            return
        goes_on = self._obey(actions, events)
        self._write()
        self._last_turn = self._loop.time()
        if not goes_on:
            return
        try:
            self._forget_sessions(events)
        except Exception:
            self._crash("The worker failed to end sessions", events)
            return
        self._plan_deadline()
        if self._lost_reason is not None:
            reason, self._lost_reason = self._lost_reason, None
            self._supervisor.server_lost(reason)

    def _write(self) -> None:
        messages, self._outgoing = self._outgoing, []
        if messages and self._channel is not None:
            self._channel.send_all(messages)

    def _obey(self, actions: Sequence[WorkerAction], events: list[WorkerEvent]) -> bool:
        """Perform the actions in order; False if that was the end."""
        perform = self._perform
        for action in actions:
            try:
                perform[type(action)](action)
            except Exception:
                self._crash(f"The worker failed at {_short(action)}", events)
            if self._ended:
                return False
        return True

    def _forget_sessions(self, events: list[WorkerEvent]) -> None:
        """Executors outlive sessions; and the next server may use the same numbers again."""
        for event in events:
            if isinstance(event, ServerSaid):
                message = event.message
                if isinstance(message, AssignTasks):
                    self._sessions.add(message.session)
                elif isinstance(message, EndSession) and message.session in self._sessions:
                    self._sessions.remove(message.session)
                    self._parts.executors.end_session(message.session)
            elif isinstance(event, ServerLost):
                for session in sorted(self._sessions):
                    self._parts.executors.end_session(session)
                self._sessions.clear()
                self._parts.inquiries.forget()

    def _note_ends(self, events: list[WorkerEvent]) -> None:
        for event in events:
            if isinstance(event, ExecutorLost):
                self._live.pop(event.executor, None)
            elif isinstance(event, LookedUp):
                self._looked_up.pop(event.key, None)
            elif isinstance(event, RunsEnded) and not event.executor:
                for result in event.results:
                    self._builtin_runs.pop(result.key, None)

    def _crash(self, what: str, events: list[WorkerEvent]) -> None:
        """An error of Rain itself: tell everything and end, as nothing can be relied on now."""
        story = "\n".join(f"  {_short(event)}" for event in self._recent)
        log.critical(
            "%s. This is an error in Rain; the worker ends. Last events (%d in this turn):\n%s",
            what,
            len(events),
            story,
            exc_info=True,
        )
        self._end(1)

    def _end(self, code: int) -> None:
        self.close()
        self._supervisor.leave(code)

    # --- actions --------------------------------------------------------------------------------

    def _tell_server(self, action: TellServer) -> None:
        if self._channel is not None:
            message = action.message
            if isinstance(message, WorkerInfo) and "state" in message.info:
                message = WorkerInfo(message.seq, self._parts.complete(message.info))
            self._outgoing.append(message)

    def _answerer(self) -> Callable[[WorkerMessage], None]:
        """Sends messages over the connection of this moment; nothing when it is not that any more."""
        channel = self._channel

        def answer(message: WorkerMessage) -> None:
            if channel is not None and channel is self._channel:
                channel.send(message)

        return answer

    def _start_executor(self, action: StartExecutor) -> None:
        self._live[action.executor] = deque(maxlen=_REMEMBERED_BATCHES)
        self._parts.executors.start(action.executor, action.type, action.env)

    def _call_executor(self, action: CallExecutor) -> None:
        batches = self._live.get(action.executor)
        if batches is None:  # it became ready and was lost in the same turn; the core has taken the runs back
            return
        batches.append(action.runs)
        self._parts.executors.call(action.executor, action.runs)

    def _kill_executor(self, action: KillExecutor) -> None:
        number = action.executor
        self._parts.executors.kill(number, action.grace)
        batches = self._live.pop(number, ())
        late = self._drop(
            lambda event: getattr(event, "executor", 0) == number and not isinstance(event, ExecutorStopped)
        )
        results = {result.key: result for event in late if isinstance(event, RunsEnded) for result in event.results}
        if results:
            runs = [run for batch in batches for run in batch if run.key in results]
            self._delete_outputs((run, results[run.key]) for run in runs)

    def _run_builtin(self, action: RunBuiltin) -> None:
        self._builtin_runs[action.run.key] = action.run
        self._parts.builtins.run(action.run)

    def _stop_builtin(self, action: StopBuiltin) -> None:
        self._parts.builtins.stop(action.key, action.grace)
        run = self._builtin_runs.pop(action.key, None)
        late = self._drop(
            lambda event: isinstance(event, RunsEnded) and not event.executor and event.results[0].key == action.key
        )
        if run is not None:
            self._delete_outputs((run, event.results[0]) for event in late if isinstance(event, RunsEnded))

    def _look_up(self, action: LookUp) -> None:
        self._looked_up[action.run.key] = action.run
        self._parts.results.look_up(action.run)

    def _stop_look_up(self, action: StopLookUp) -> None:
        self._parts.results.stop(action.key)
        run = self._looked_up.pop(action.key, None)
        late = self._drop(lambda event: isinstance(event, LookedUp) and event.key == action.key)
        found = [event.result for event in late if isinstance(event, LookedUp) and event.result is not None]
        if run is not None:
            self._delete_outputs((run, result) for result in found)

    def _store_value(self, action: StoreValue) -> None:
        try:
            self._parts.store.put(action.object, action.value)
        except StoreError as error:
            self.report(StoreFailed(action.object, str(error), refused=True))

    def _stop_fetch(self, action: StopFetch) -> None:
        self._parts.transfers.stop(action.object)
        late = self._drop(
            lambda event: (
                isinstance(event, ObjectArrived | ObjectUnreachable | StoreFailed) and event.object == action.object
            )
        )
        if late:
            self._parts.store.delete([action.object])

    def _drop(self, is_late: Callable[[WorkerEvent], bool]) -> list[WorkerEvent]:
        """Take out events that came before the core decided otherwise, and that it must not see any more."""
        if not self._pending:
            return []
        late = [event for event in self._pending if is_late(event)]
        if late:
            self._pending = [event for event in self._pending if not is_late(event)]
        return late

    def _delete_outputs(self, ends: Iterable[tuple[Run, RunEnd]]) -> None:
        """Remove what runs stored of which nobody wants to hear."""
        stored = [(run.key[0], number) for run, result in ends for number in result.stored(run.outputs)]
        if stored:
            self._parts.store.delete(stored)

    # --- time -----------------------------------------------------------------------------------

    def _repeat(self, slot: int, interval: float, call: Callable[[], None]) -> None:
        """Call again and again, at times that do not drift."""

        def fire() -> None:
            call()
            if self._timers:
                due = max(self._timers[slot].when() + interval, self._loop.time())
                self._timers[slot] = self._loop.call_at(due, fire)

        self._timers.append(self._loop.call_later(interval, fire))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline = self._deadline_timer = None

    def _plan_deadline(self) -> None:
        """Wake the core when its next deadline is reached. A timer for an earlier one is left as it is: each brief run
        has a deadline, and almost none is reached."""
        self._deadline = deadline = self._core.next_deadline()
        if deadline is None:
            return
        if self._deadline_timer is not None:
            if self._timer_due <= deadline:
                return
            self._deadline_timer.cancel()
        self._set_timer(deadline)

    def _set_timer(self, deadline: float) -> None:
        delay = max(deadline - self._clock(), _SHORTEST_DELAY)
        self._timer_due = deadline
        self._deadline_timer = self._loop.call_later(delay, self._deadline_reached)

    def _deadline_reached(self) -> None:
        self._deadline_timer = None
        deadline = self._deadline
        if deadline is not None and deadline > self._timer_due:
            self._set_timer(deadline)
        elif deadline is not None:
            self.report(Tick())

    def _tick(self) -> None:
        # Counted in ticks: after a pause of this process the server gets time to be heard before it counts as lost.
        self._silent_ticks += 1
        if self._silent_ticks > _SILENT_TICKS and self._channel is not None:
            channel = self._channel
            self.channel_closed(channel, f"no sign of life for {SILENCE_LIMIT:g} s")
            channel.abort()
            return
        self.report(Tick())

    def _heartbeat(self) -> None:
        if self._channel is not None:
            self._channel.send(Heartbeat())

    def _monitor(self) -> None:
        self._parts.inquiries.gather(self._answerer())


def _short(thing: object) -> str:
    text = repr(thing)
    return text if len(text) <= 500 else f"{text[:500]}... ({len(text):,} characters)"
