"""Who ran what when, as bars of a given width in pixels.

Narrow neighbours are one bar until it is as wide as a pixel. Runs that are together narrower than a pixel are not
looked at singly, so that an answer takes time by its size, not by the number of tasks.
"""

from __future__ import annotations

from heapq import heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rain.dashboard.runs import CHUNK

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator, Sequence

    from rain.dashboard.runs import Runs, Slot
    from rain.dashboard.session_view import SessionView

FINISHED, FAILED, RUNNING = range(3)
"""States of bars."""
MOST_BARS = 20_000
"""Of an answer, roughly: with many slots pixels are taken to be wider."""
LONGEST_WIDTH = 10_000

_Unit = tuple[float, float, int, int, int]
"""Begin, end, number of the longest run, whether one failed, how many runs."""


class Bar:
    """One or more runs. task (session and id), name: of the longest one, which took `longest` seconds."""

    __slots__ = ("count", "end", "longest", "name", "start", "state", "task")

    def __init__(
        self, start: float, end: float, name: str, task: tuple[int, int], state: int, count: int, longest: float
    ) -> None:
        self.start = start
        self.end = end
        self.name = name
        self.task = task
        self.state = state
        self.count = count
        self.longest = longest

    def absorb(self, other: Bar) -> None:
        """Be both."""
        self.end = max(self.end, other.end)
        self.count += other.count
        self.state = FAILED if FAILED in (self.state, other.state) else max(self.state, other.state)
        if other.longest > self.longest:
            self.longest, self.name, self.task = other.longest, other.name, other.task


def stream(
    sessions: Sequence[SessionView],
    workers: Sequence[str],
    now: float,
    begin: float | None,
    end: float | None,
    width: int,
    *,
    of_all: bool,
) -> dict[str, Any]:
    """The answer.

    Args:
        sessions: whose runs are shown.
        workers: ids by number.
        now: until when running tasks have run.
        begin, end: unix seconds; None: the whole span.
        width: pixels.
        of_all: bars name a task as [session, id].
    """
    first, last = _span(sessions, now)
    begin = first if begin is None else begin
    end = max(last if end is None else end, begin)
    pixel = _pixel(sessions, begin, end, min(max(width, 1), LONGEST_WIDTH))
    numbers = sorted({number for session in sessions for number in _workers_of(session)})
    rows: list[dict[str, Any]] = []
    names: dict[str, int] = {}
    total = 0
    for number in numbers:
        packed = [lane for session in sessions for lane in _lanes(session, number, begin, end, pixel, now)]
        if len(sessions) > 1:
            packed = _repacked([bar for lane in packed for bar in lane], pixel)
        lanes = [[_answer(bar, names, of_all=of_all) for bar in lane] for lane in packed if lane]
        total += sum(bar.count for lane in packed for bar in lane)
        if lanes:
            rows.append({"worker": workers[number] if number < len(workers) else "", "slots": lanes})
    rows.sort(key=lambda row: row["worker"])
    return {"from": begin, "to": end, "names": list(names), "rows": rows, "total": total}


def _pixel(sessions: Iterable[SessionView], begin: float, end: float, width: int) -> float:
    """Seconds per pixel; more when so many slots are busy side by side that there would be too many bars."""
    span = end - begin
    if not span:
        return 0.0
    busy = 0.0
    for session in sessions:
        for slots in session.runs.slots.values():
            for slot in slots:
                first = session.runs.starts[slot.runs[0]]
                busy += max(min(slot.end, end) - max(first, begin), 0.0) / span
    return span / min(width, max(MOST_BARS / max(busy, 1.0), 1.0))


def _answer(bar: Bar, names: dict[str, int], *, of_all: bool) -> list[Any]:
    name = names.setdefault(bar.name, len(names))
    task = list(bar.task) if of_all else bar.task[1]
    return [round(bar.start, 6), round(bar.end, 6), name, task, bar.state, bar.count]


def _span(sessions: Iterable[SessionView], now: float) -> tuple[float, float]:
    spans = [span for session in sessions if (span := session.runs.span())]
    begun = [session.runs.starts[session.numbers[task]] for session in sessions for task in session.running]
    firsts = [first for first, _ in spans] + begun
    ends = [last for _, last in spans] + ([max(now, *begun)] if begun else [])
    return (min(firsts), max(ends)) if firsts else (now, now)


def _workers_of(session: SessionView) -> Iterator[int]:
    yield from session.runs.slots
    for task in session.running:
        yield session.runs.workers[session.numbers[task]]


def _lanes(session: SessionView, worker: int, begin: float, end: float, pixel: float, now: float) -> list[list[Bar]]:
    """Bars of each slot of a worker."""
    lanes, free = [], []
    for slot in session.runs.slots.get(worker, ()):
        free.append(slot.end)
        lanes.append(_bars(session, slot, begin, end, pixel))
    for bar in _running(session, worker, begin, end, now):
        place = next((k for k, until in enumerate(free) if until <= bar.start + pixel), len(free))
        if place == len(free):
            free.append(0.0)
            lanes.append([])
        free[place] = bar.end
        lanes[place].append(bar)
    return lanes


def _running(session: SessionView, worker: int, begin: float, end: float, now: float) -> list[Bar]:
    bars = []
    runs = session.runs
    for task in session.running:
        run = session.numbers[task]
        start = runs.starts[run]
        until = max(now, start)
        if runs.workers[run] == worker and start <= end and until >= begin:
            names = _name(session, task), (session.number, task)
            bars.append(Bar(start, until, *names, RUNNING, 1, until - start))
    return sorted(bars, key=attrgetter("start"))


def _name(session: SessionView, task: int) -> str:
    return session.names.texts[session.links[task]]


def _bars(session: SessionView, slot: Slot, begin: float, end: float, pixel: float) -> list[Bar]:
    """Bars of a slot."""
    found: list[Bar] = []
    durations = session.runs.durations
    first = until = 0.0
    longest = count = bad = 0
    for start, stop, run, is_failed, runs in _units(session.runs, slot, begin, end, pixel):
        if count and until - first < pixel and start - until < pixel and stop - start < pixel:
            until = stop
            count += runs
            bad |= is_failed
            if durations[run] > durations[longest]:
                longest = run
            continue
        if count:
            found.append(_bar(session, first, until, longest, bad, count))
        first, until, longest, bad, count = start, stop, run, is_failed, runs
    if count:
        found.append(_bar(session, first, until, longest, bad, count))
    return found


def _bar(session: SessionView, start: float, end: float, longest: int, is_failed: int, count: int) -> Bar:
    task = session.runs.tasks[longest]
    state = FAILED if is_failed else FINISHED
    names = _name(session, task), (session.number, task)
    return Bar(start, end, *names, state, count, session.runs.durations[longest])


def _units(runs: Runs, slot: Slot, begin: float, end: float, pixel: float) -> Iterator[_Unit]:
    """Neighbours that are together narrower than a pixel, and other runs one by one; in order."""
    levels = slot.levels
    waiting: list[tuple[int, int]] = []
    for height, level in enumerate(levels):
        above = len(levels[height + 1].starts) * CHUNK if height + 1 < len(levels) else 0
        waiting.extend((height, place) for place in range(len(level.starts) - 1, above - 1, -1))
    while waiting:
        height, place = waiting.pop()
        level = levels[height]
        start, stop = level.starts[place], level.ends[place]
        if start > end:
            return
        if stop < begin:
            continue
        first = place * CHUNK
        if stop - start < pixel:
            yield start, stop, level.longest[place], level.failed[place], CHUNK ** (height + 1)
        elif height:
            waiting.extend((height - 1, below) for below in range(first + CHUNK - 1, first - 1, -1))
        else:
            yield from _single(runs, slot.runs[first : first + CHUNK], begin, end)
    yield from _single(runs, slot.runs[len(slot.runs) // CHUNK * CHUNK :], begin, end)


def _single(runs: Runs, numbers: array[int], begin: float, end: float) -> Iterator[_Unit]:
    starts, durations, failed = runs.starts, runs.durations, runs.failed
    for run in numbers:
        start = starts[run]
        stop = start + durations[run]
        if start <= end and stop >= begin:
            yield start, stop, run, run in failed, 1


def _merged(bars: Iterable[Bar], pixel: float) -> list[Bar]:
    """Narrow neighbours are one bar."""
    found: list[Bar] = []
    for bar in bars:
        last = found[-1] if found else None
        are_narrow = last is not None and last.end - last.start < pixel and bar.end - bar.start < pixel
        if last is not None and are_narrow and bar.start - last.end < pixel:
            last.absorb(bar)
        else:
            found.append(bar)
    return found


def _repacked(bars: list[Bar], pixel: float) -> list[list[Bar]]:
    """Bars of several sessions on as few lanes as there is need of."""
    lanes: list[list[Bar]] = []
    free: list[tuple[float, int]] = []
    for bar in sorted(bars, key=attrgetter("start")):
        if free and free[0][0] <= bar.start + pixel / 2:
            lane = heappop(free)[1]
        else:
            lane = len(lanes)
            lanes.append([])
        lanes[lane].append(bar)
        heappush(free, (bar.end, lane))
    return [_merged(lane, pixel) for lane in lanes]
