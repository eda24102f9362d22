"""Takes in AssignTasks: templates, inputs, tasks."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, TypeVar

from rain.common.failure import Failure
from rain.worker.core.actions import FetchObject, StopFetch
from rain.worker.core.model import EXPECTED, FETCHING, GONE, PRESENT, DataObject, Session, Task, Template
from rain.worker.core.templates import is_directory, read_link, read_template

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rain.protocol.messages import AssignTasks
    from rain.worker.core.actions import RunLink
    from rain.worker.core.dispatch import Dispatcher
    from rain.worker.core.lifecycle import Lifecycle
    from rain.worker.core.objects import ObjectTable
    from rain.worker.core.outbox import Outbox

_Item = TypeVar("_Item")


class Assigner:
    """Transitions of tasks and objects that come into being."""

    __slots__ = ("_arrivals", "_dispatcher", "_lifecycle", "_objects", "_outbox", "worker_id")

    def __init__(self, objects: ObjectTable, dispatcher: Dispatcher, lifecycle: Lifecycle, outbox: Outbox) -> None:
        self._objects = objects
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._outbox = outbox
        self._arrivals = 0
        #: this worker, as a holder of objects
        self.worker_id = ""

    def assign(self, message: AssignTasks, now: float) -> None:
        """Register what is new; a run that is here already changes nothing.

        Raises:
            ValueError: the message contradicts itself; nothing has changed.
        """
        session = self._objects.sessions.get(message.session) or Session(message.session)
        new_templates, links = self._check(session, message)
        self._objects.sessions[session.id] = session
        session.templates.update(new_templates)
        self._drop_superseded(session, message, now)
        fetches = self._take_inputs(session, message)
        self._take_tasks(session, message, links, now)
        session.solo.update(number for number in message.solo if number in session.tasks)
        self._refuse_infeasible(session, message, now)
        for obj, action in fetches:
            if obj.state == FETCHING:
                if obj.users:
                    self._outbox.fetch(action)
                else:
                    obj.state = GONE
                    del session.objects[obj.key[1]]

    # --- templates ---

    def _check(self, session: Session, message: AssignTasks) -> tuple[dict[int, Template], dict[int, RunLink]]:
        """New templates, and links of blocks by their task ids."""
        count, objects = len(message.tasks), len(message.objects)
        sound = (
            len(message.runs) == len(message.task_templates) == len(message.input_counts) == count
            and len(message.output_counts) == count
            and len(message.args) in (0, count)
            and sum(message.input_counts) == len(message.inputs)
            and sum(message.output_counts) == len(message.outputs)
            and len(message.sizes) == objects
            and all(len(column) in (0, objects) for column in (message.specs, message.infos, message.values))
            and len(message.holders) in (0, objects)
            and len(message.template_numbers) == len(message.templates)
            and len(message.members) in (0, count)
            and len(message.links) in (0, count if message.members else 0)
            and len(message.output_specs) in (0, len(message.outputs))
        )
        if not sound:
            raise ValueError(f"an assignment of session {session.id} has columns of contradicting lengths")
        for spec in set(message.specs):
            is_directory(spec)
        queues = self._dispatcher.queues
        found: dict[int, Template] = {}
        links: dict[int, RunLink] = {}
        try:
            for number, packed in zip(message.template_numbers, message.templates, strict=True):
                if number not in session.templates and number not in found:
                    found[number] = read_template(session, number, packed, queues)
            unknown = set(message.task_templates).difference(session.templates, found)
            if unknown:
                raise ValueError(f"an assignment of session {session.id} names unknown templates {sorted(unknown)}")
            if message.members:
                links = _check_blocks(message, {**session.templates, **found})
        except ValueError:
            for template in found.values():
                queues.released(template.queue)
            raise
        return found, links

    def _drop_superseded(self, session: Session, message: AssignTasks, now: float) -> None:
        """Before anything else, so that objects only they needed can come anew."""
        tasks = session.tasks
        if not tasks.keys().isdisjoint(message.tasks):
            assigned = dict(zip(message.tasks, message.runs, strict=True))
            old = [tasks[number] for number in assigned if number in tasks and tasks[number].key[2] != assigned[number]]
            self._lifecycle.drop(old, now)

    # --- inputs that come with the message ---

    def _take_inputs(self, session: Session, message: AssignTasks) -> list[tuple[DataObject, FetchObject]]:
        fetches: list[tuple[DataObject, FetchObject]] = []
        count = len(message.objects)
        columns = zip(
            message.objects,
            message.sizes,
            _padded(message.specs, count, None),
            _padded(message.infos, count, None),
            _padded(message.values, count, None),
            _padded(message.holders, count, []),
            strict=True,
        )
        last_spec: bytes | None = None
        directory = False
        for number, size, spec, info, value, holders in columns:
            obj = session.objects.get(number)
            if obj is None:
                obj = session.objects[number] = DataObject((session.id, number), FETCHING, spec, info, size)
                if value is not None:
                    self._to_present_inline(obj, value)
                    continue
                if spec != last_spec:
                    last_spec, directory = spec, is_directory(spec)
                fetches.append((obj, FetchObject(obj.key, size, directory, holders)))
            elif obj.state == PRESENT:
                self._objects.needed(obj)
                if value is None:
                    self._outbox.stored(obj.key)
            elif value is not None:
                if obj.state == FETCHING:
                    self._outbox.act(StopFetch(obj.key))
                obj.spec, obj.info, obj.size = spec, info, size
                self._to_present_inline(obj, value)
        return fetches

    def _to_present_inline(self, obj: DataObject, value: bytes) -> None:
        self._outbox.store(obj.key, value)
        self._lifecycle.waiting_to_ready(self._objects.to_present(obj))

    # --- tasks ---

    def _take_tasks(self, session: Session, message: AssignTasks, links: dict[int, RunLink], now: float) -> None:
        tasks, objects, templates = session.tasks, session.objects, session.templates
        inputs, outputs, own_specs = message.inputs, message.outputs, message.output_specs
        link_inputs, link_output = self._link_inputs, self._link_output
        session_id, arrival = session.id, self._arrivals
        ready: list[Task] = []
        later: list[tuple[Task, Sequence[int]]] = []
        #: the input of the last task, if it had one and it was present: most often the next has the same
        single: tuple[DataObject, ...] = ()
        single_id = -1
        input_end = output_end = 0
        columns = zip(
            message.tasks,
            message.runs,
            message.task_templates,
            _padded(message.args, len(message.tasks), None),
            message.input_counts,
            message.output_counts,
            _padded(message.members, len(message.tasks), 0),
            strict=True,
        )
        for number, run, template_number, args, input_count, output_count, members in columns:
            input_start, input_end = input_end, input_end + input_count
            output_start, output_end = output_end, output_end + output_count
            if number in tasks:
                continue
            template = templates[template_number]
            arrival += 1
            task = tasks[number] = Task((session_id, number, run), template, args, template.first_order + arrival)
            if not input_count:
                ready.append(task)
            elif input_count == 1 and inputs[input_start] == single_id:
                task.inputs = single
                single[0].users += 1
                ready.append(task)
            else:
                numbers = inputs[input_start:input_end]
                if not link_inputs(session, task, numbers):
                    later.append((task, numbers))
                elif not task.missing:
                    ready.append(task)
                    if input_count == 1:
                        single, single_id = task.inputs, numbers[0]
            if members:
                task.members, task.first_output, task.link = members, outputs[output_start], links.get(number)
            elif output_count == 1 and not own_specs and (object_id := outputs[output_start]) not in objects:
                spec = template.output_specs[0] if template.output_specs else None
                obj = objects[object_id] = DataObject((session_id, object_id), EXPECTED, spec, None, 0)
                obj.users = 1
                obj.producer = task
                task.outputs = (obj,)
            elif output_count:
                numbers = outputs[output_start:output_end]
                specs = _output_specs(task, output_count, own_specs[output_start:output_end])
                task.outputs = tuple([link_output(session, task, *pair) for pair in zip(numbers, specs, strict=True)])
        self._arrivals = arrival
        self._dispatcher.to_ready(ready)
        self._link_later(session, later, now)

    def _link_inputs(self, session: Session, task: Task, numbers: Iterable[int]) -> bool:
        """False, with nothing changed, if one of them is not known here."""
        objects = session.objects
        try:
            task.inputs = tuple([objects[number] for number in numbers])
        except KeyError:
            return False
        missing = 0
        for obj in task.inputs:
            obj.users += 1
            if obj.unneeded:
                self._objects.needed(obj)
            if obj.state != PRESENT:
                missing += 1
                obj.awaited_by(task)
        if missing:
            task.missing = missing
        return True

    def _link_output(self, session: Session, task: Task, number: int, spec: bytes | None) -> DataObject:
        obj = session.objects.get(number)
        if obj is None:
            obj = session.objects[number] = DataObject((session.id, number), EXPECTED, spec, None, 0)
        elif obj.unneeded:
            self._objects.needed(obj)
        obj.users += 1
        obj.producer = task
        if obj.consumers:
            task.awaited = True
        return obj

    def _link_later(self, session: Session, later: list[tuple[Task, Sequence[int]]], now: float) -> None:
        """Tasks with inputs which came later in the message, or which this worker does not have: these go back."""
        ready, impossible = [], []
        for task, numbers in later:
            if self._link_inputs(session, task, numbers):
                if not task.missing:
                    ready.append(task)
            else:
                impossible.append((task, numbers))
        self._dispatcher.to_ready(ready)
        told: set[int] = set()
        for _, numbers in impossible:
            for number in numbers:
                if number not in session.objects and number not in told:
                    told.add(number)
                    self._outbox.missing((session.id, number), [self.worker_id])
        self._lifecycle.give_back([task for task, _ in impossible], now)

    def _refuse_infeasible(self, session: Session, message: AssignTasks, now: float) -> None:
        """Fail what could not start even if nothing else ran here, so that it does not wait for ever."""
        pool = self._dispatcher.pool
        infeasible = {
            number
            for number in set(message.task_templates)
            if not pool.feasible(session.templates[number].queue.request)
        }
        if not infeasible:
            return
        for number in message.tasks:
            task = session.tasks.get(number)
            if task is not None and task.template.number in infeasible:
                text = (
                    f"Task {session.id}/{number} needs {task.template.queue.request}; "
                    f"worker {self.worker_id} offers {pool}. Start a larger worker or ask for less."
                )
                self._dispatcher.to_gone(task)
                self._lifecycle.fail(task, Failure("task", text, session.id, number, retriable=False), 0.0, 0.0, now)


def _check_blocks(message: AssignTasks, templates: dict[int, Template]) -> dict[int, RunLink]:
    """Links of blocks by their task ids.

    Raises:
        ValueError: a block is not one.
    """
    count = len(message.tasks)
    more = _padded(message.args, count, None), _padded(message.links, count, None)
    columns = message.tasks, message.members, message.task_templates, message.input_counts, message.output_counts
    links: dict[int, RunLink] = {}
    for number, members, template_number, inputs, outputs, args, link in zip(*columns, *more, strict=True):
        sound = not members or (_has_blocks(templates[template_number]) and outputs == 1 and args is not None)
        if link is not None and sound:
            try:
                links[number] = read_link(link, members, inputs, templates)
            except ValueError as error:
                raise ValueError(f"{message.session}/{number} cannot be a linked block: {error}") from error
            sound = _is_linked(links[number], templates[template_number], templates)
        if not sound:
            raise ValueError(f"{message.session}/{number} cannot be a block")
    return links


def _has_blocks(template: Template) -> bool:
    return template.queue.batched and template.timeout is None and len(template.output_specs) <= 1


def _is_linked(link: RunLink, first: Template, templates: dict[int, Template]) -> bool:
    """Whether its members can run in one block, of which `first` is the first one's template."""
    found = [templates[number] for number, _ in link.templates]
    alike = all(template.queue is first.queue and _has_blocks(template) for template in found)
    return alike and link.template(0)[0] == first.number


def _output_specs(task: Task, count: int, own: list[bytes | None]) -> list[bytes | None]:
    """Packed specs of the outputs of a task, `count` of them; it keeps its own ones."""
    shared = task.template.output_specs
    specs = [*shared[:count], *repeat(None, count - len(shared))]
    if own.count(None) == len(own):
        return specs
    task.own_specs = tuple(own)
    return [theirs if mine is None else mine for mine, theirs in zip(own, specs, strict=True)]


def _padded(column: Sequence[_Item], count: int, default: _Item) -> Iterable[_Item]:
    return column if len(column) == count else repeat(default, count)
