"""Tasks and data objects of a session as the server lists them: the handles this client has, and new ones."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, TypeVar

from rain.client.asking import ask
from rain.client.background import take_dropped
from rain.client.data import DataObject
from rain.client.handles import found_object, found_task
from rain.client.shape import ObjectShape, TaskOptions, TaskShape
from rain.client.states import set_state, take_states
from rain.client.task import Task
from rain.common.data_type import DataType
from rain.common.ids import FIRST_ID
from rain.common.packing import unpack
from rain.common.states import TaskState
from rain.protocol.messages import GetSpecs, ListObjects, ListTasks, ObjectList, Specs, TaskList, UnkeepObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rain.client.base import BaseSession
    from rain.protocol.messages import Message

    Question = Callable[[int, int, int], Message]
    """Gives the message for a request number, and the first and last id to look at."""

T = TypeVar("T", Task, DataObject)

SPECS_PER_QUESTION = 500
"""So many specs are asked for at a time."""
_ALL, _KEPT, _NOT_KEPT = range(3)


async def find_tasks(session: BaseSession, name: str | None, state: TaskState | str | None) -> list[Task]:
    """See `Session.tasks`."""
    wanted = _text("name", name)
    states = b"" if state is None else bytes([_state(state)])
    listed = await _listed(
        session, lambda seq, first, last: ListTasks(seq, session.session_id, first, last, states, wanted), "tasks"
    )
    return _with_states(session, await _Finder(session).tasks(listed), listed)


async def find_objects(session: BaseSession, label: str | None, kept: bool | None) -> list[DataObject]:
    """See `Session.objects`."""
    wanted = _text("label", label)
    if not isinstance(kept, bool | None):
        raise TypeError(f"kept must be True, False or None, not {kept!r}")
    which = _ALL if kept is None else _KEPT if kept else _NOT_KEPT
    listed = await _listed(
        session, lambda seq, first, last: ListObjects(seq, session.session_id, first, last, which, wanted), "objects"
    )
    return _with_states(session, await _Finder(session).objects(listed), listed)


def _text(what: str, value: str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str or None, not {value!r}")
    if not value:
        raise ValueError(f"{what} must not be empty; leave it out to find those of any {what}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"nothing has the {what} {value!r}, which is no Unicode text: {error}") from error
    return value


def _state(state: TaskState | str) -> TaskState:
    if isinstance(state, TaskState):
        return state
    names = ", ".join(TaskState.__members__)
    if not isinstance(state, str):
        raise TypeError(f"state must be a TaskState or the name of one ({names}), not {state!r}")
    if state not in TaskState.__members__:
        raise ValueError(f"there is no task state {state!r}; the states are {names}")
    return TaskState[state]


async def _listed(session: BaseSession, question: Question, what: str) -> dict[int, int]:
    """State by number, of all portions of a list."""
    session._check_connected()
    await _unkeep_dropped(session)
    listed: dict[int, int] = {}
    first, end = FIRST_ID, session._submitted
    while 0 < first < end:
        make = lambda seq, first=first: question(seq, first, end - 1)  # noqa: E731
        reply = await ask(session._front, session, make, f"listing the {what} of session {session.session_id}")
        assert isinstance(reply, TaskList | ObjectList)
        listed.update(zip(reply.ids, reply.states, strict=True))
        first = reply.next
    return listed


async def _unkeep_dropped(session: BaseSession) -> None:
    """Else things would be listed as kept that are unkept a moment later. The answers interest nobody."""
    for number, ids in take_dropped(session._dropped):
        make = lambda seq, number=number, ids=ids: UnkeepObjects(seq, number, ids)  # noqa: E731
        await session._front.ask(make, f"unkeeping dropped results of session {number}")


def _with_states(session: BaseSession, things: list[T], states: dict[int, int]) -> list[T]:
    for thing in things:
        set_state(session, thing, states[thing._number])
    return things


class _Finder:
    """Gives handles for numbers, and holds those it made until they are given out."""

    def __init__(self, session: BaseSession) -> None:
        self._session = session
        self._known: dict[int, Task | DataObject] = {}

    async def tasks(self, numbers: Iterable[int]) -> list[Task]:
        """Tasks, in this order."""
        wanted = list(numbers)
        for some in _portions(self._unknown(wanted)):
            specs = await self._specs(some)
            await self.objects(number for spec in specs for number in (*spec["inputs"], *spec["outputs"]))
            for number, spec in zip(some, specs, strict=True):
                inputs, outputs = self._all(spec["inputs"], DataObject), self._all(spec["outputs"], DataObject)
                made = found_task(_task_shape(spec, outputs), tuple(inputs), tuple(outputs))
                self._known[number] = self._session._adopt(number, made)
        return self._all(wanted, Task)

    async def objects(self, numbers: Iterable[int]) -> list[DataObject]:
        """Data objects, in this order."""
        wanted = list(numbers)
        for some in _portions(self._unknown(wanted)):
            for number, spec in zip(some, await self._specs(some), strict=True):
                made = found_object(_object_shape(spec), keep=spec.get("kept", False), made_by_task="producer" in spec)
                self._known[number] = self._session._adopt(number, made)
            await take_states(self._session, self._all(some, DataObject))
        return self._all(wanted, DataObject)

    def _unknown(self, numbers: list[int]) -> list[int]:
        """Those of which there is no handle."""
        for number in numbers:
            if number not in self._known:
                thing = self._session._find(number)
                if thing is not None:
                    self._known[number] = thing
        return [number for number in dict.fromkeys(numbers) if number not in self._known]

    async def _specs(self, numbers: list[int]) -> list[dict[str, Any]]:
        """Theirs; an answer ends early if it is long, but not before the first."""
        session = self._session
        specs: list[dict[str, Any]] = []
        while len(specs) < len(numbers):
            rest = array("I", numbers[len(specs) :])
            make = lambda seq, rest=rest: GetSpecs(seq, session.session_id, rest)  # noqa: E731
            reply = await ask(session._front, session, make, f"asking for the specs of {len(rest)} tasks and objects")
            assert isinstance(reply, Specs)
            assert reply.specs
            specs += [unpack(packed) for packed in reply.specs if packed is not None]
        return specs

    def _all(self, numbers: list[int], kind: type[T]) -> list[T]:
        things = [self._known[number] for number in numbers]
        return [thing for thing in things if isinstance(thing, kind)]


def _portions(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), SPECS_PER_QUESTION):
        yield numbers[start : start + SPECS_PER_QUESTION]


def _task_shape(spec: dict[str, Any], outputs: list[DataObject]) -> TaskShape:
    options = TaskOptions(
        name=spec.get("name"),
        resources=spec.get("resources", {}),
        retries=spec.get("retries", 0),
        timeout=spec.get("timeout"),
        priority=spec.get("priority", 0),
        user=spec.get("user", {}),
    )
    labels = spec.get("input_labels")
    return TaskShape(
        spec["task_type"],
        options,
        None if labels is None else tuple(label or None for label in labels),
        tuple(output._shape for output in outputs),
        has_config=True,
        config=spec.get("config"),
    )


def _object_shape(spec: dict[str, Any]) -> ObjectShape:
    return ObjectShape(
        spec.get("label", ""),
        spec.get("content_type", ""),
        DataType(spec.get("data_type", "blob")),
        spec.get("size_hint"),
        spec.get("user", {}),
    )
