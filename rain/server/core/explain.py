"""Why a task or object is in its state (spec 9.4 `rain task explain`, 11.11)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.common.lines import one_line
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import Explain, Explained, ExplainTasks, TasksExplained
from rain.server.core.ending import attempts
from rain.server.core.graph import (
    AHEAD,
    ASSIGNED,
    FINISHED,
    NOT_ASSIGNED,
    OBJECT,
    OBJECT_ABORTED,
    READY,
    RUNNING,
    TASK,
    TASK_FINISHED,
    UNFINISHED,
)
from rain.server.core.story import told
from rain.server.core.waits import pieces_of, unknown_id
from rain.server.scheduler.infeasible import reason
from rain.server.scheduler.placement import could_run
from rain.server.scheduler.resources import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.server.core.session import Session
    from rain.server.core.state import ClientPeer, ServerState
    from rain.server.core.workers import Worker

MANY = 20
"""Inputs, workers and sessions are listed up to this number."""
NO_TASK = -1
HISTORY = "What happened to it:"
MOST, LONGEST = 200, 1 << 20
"""Texts, and characters after which no further one begins, in one answer about a range of ids."""
WINDOW = 100_000
"""Ids of a range looked at for one answer."""


def explain(state: ServerState, client: ClientPeer, message: Explain) -> None:
    """Answer with a text per id."""
    session = state.sessions.get(message.session)
    if session is None:
        state.refuse(client.peer, message.seq, not_open(state, message.session))
        return
    if len(message.ids) > MOST:
        text = f"at most {MOST} ids can be explained at once, not {len(message.ids)}"
        state.refuse(client.peer, message.seq, Failure("invalid", text, session=session.number))
        return
    if session.failure is not None:
        texts = [_explain_failed(state, session, session.failure, number) for number in message.ids]
        state.send(client.peer, Explained(message.seq, texts))
        return
    failure = unknown_id(session, message.ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    texts = [_explain_id(state, session, number) for number in message.ids]
    state.send(client.peer, Explained(message.seq, texts))


def explain_tasks(state: ServerState, client: ClientPeer, message: ExplainTasks) -> None:
    """Answer with texts of the tasks in a range of ids, as many as there is room for."""
    session = state.sessions.get(message.session)
    if session is None:
        state.refuse(client.peer, message.seq, not_open(state, message.session))
        return
    if session.failure is not None:
        _answer_for_failed(state, session, session.failure, client, message)
        return
    ids, counts, texts, size = array("I"), array("I"), list[str](), 0
    end = session.graph.numbering.end if session.graph.numbering.arrays else len(session.graph)
    stop = min(message.last + 1, message.first + WINDOW, end)
    following = stop if stop < min(message.last + 1, end) else 0
    for number, count, task in _tasks_between(session, message.first, stop):
        if len(texts) == MOST or size > LONGEST:
            following = number
            break
        text = explain_task(state, session, task)
        if count > 1:
            last = f"{session.number}/{number + count - 1}"
            text = f"{session.number}/{number} to {last} are members of a task array and go together.\n{text}"
        ids.append(number)
        counts.append(count)
        texts.append(text)
        size += len(text)
    state.send(client.peer, TasksExplained(message.seq, ids, counts, texts, following))


def _tasks_between(session: Session, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """First id, number and row of tasks and of members that go together, by rising id; all ids are given away."""
    graph = session.graph
    for piece in pieces_of(session, array("I", range(first, stop))):
        if piece.block is None:
            rows = [row for row in range(piece.start, piece.stop) if graph.kind[row] == TASK]
            yield from ((graph.numbering.id(row), 1, row) for row in rows)
        elif piece.is_task:
            yield piece.number(graph.numbering, piece.start), piece.stop - piece.start, piece.block.row


def not_open(state: ServerState, number: int) -> Failure:
    """Why nothing can be said of a session."""
    numbers = sorted(state.sessions)
    named = ", ".join(map(str, numbers[:MANY])) + (" ..." if len(numbers) > MANY else "")
    text = f"Session {number} is closed or never was; open sessions: {named or 'none'}"
    return Failure("session", text, session=number)


def _answer_for_failed(
    state: ServerState, session: Session, failure: Failure, client: ClientPeer, message: ExplainTasks
) -> None:
    number = failure.task
    if session.failed_task is not None and message.first <= number <= message.last:
        text = _explain_failed(state, session, failure, number)
        state.send(client.peer, TasksExplained(message.seq, array("I", [number]), array("I", [1]), [text], 0))
    else:
        text = _explain_failed(state, session, failure, NO_TASK)
        state.refuse(client.peer, message.seq, Failure("session", text, session=session.number))


def _explain_failed(state: ServerState, session: Session, failure: Failure, number: int) -> str:
    """Of a session that failed the graph is gone; the task that failed it has left its story."""
    if session.failed_task is None:
        return f"Session {session.number} failed: {one_line(failure.message)}"
    name, story = session.failed_task
    reason = one_line(failure.message)
    if number == failure.task:
        lines = [f"Task {name} is failed, and with it its session: {reason}", HISTORY]
        return "\n".join([*lines, *(f"  {line}" for line in told(state.now, story))])
    return f"Session {session.number} failed because of task {name}, everything in it was stopped: {reason}"


def _explain_id(state: ServerState, session: Session, number: int) -> str:
    numbering = session.graph.numbering
    row = numbering.row(number)
    if row >= 0:
        is_object = session.graph.kind[row] == OBJECT
        return explain_object(state, session, row) if is_object else explain_task(state, session, row)
    member = numbering.member(number)
    assert member is not None
    block, index, is_task = member
    what = f"{session.number}/{number}"
    if not is_task:
        status = DataObjectState(block.state_of_output(session.graph, index)).name
        made_by = f"{session.number}/{block.array.task(index)}"
        return f"Data object {what} is {status}. Made by task {made_by}:\n{explain_task(state, session, block.row)}"
    others = f"{what} is member {index} of a task array and goes with {block.count - 1} others of it.\n"
    return others + explain_task(state, session, block.row)


def explain_task(state: ServerState, session: Session, task: int) -> str:
    """Several lines: the state with its reason, and the history of runs."""
    lines = [f"Task {session.task_name(task)} is {TaskState(session.graph.state[task]).name}: "]
    lines[0] += _reason(state, session, task, lines)
    story = session.stories.get(task)
    if story:
        lines.append(HISTORY)
        lines += [f"  {line}" for line in told(state.now, story)]
    return "\n".join(lines)


def _reason(state: ServerState, session: Session, task: int, lines: list[str]) -> str:
    """Why it is in its state; details are added to `lines`."""
    graph = session.graph
    status = graph.state[task]
    if status == NOT_ASSIGNED:
        lines += _missing_inputs(state, session, task)
        return f"{graph.missing[task]} of its {len(graph.distinct(task))} inputs are not finished."
    if status == READY:
        lines += _workers(state, session, task)
        return _why_ready(state, session, task)
    worker = state.workers.get(graph.worker[task])
    if status in (ASSIGNED, RUNNING):
        where = worker.worker_id if worker is not None else "a worker that is gone"
        if status == RUNNING:
            since = session.began.get(task)
            for_seconds = f" for {state.now - since:.1f} s" if since is not None else ""
            return f"run {attempts(session, task)} runs on {where}{for_seconds}."
        if graph.flags[task] & AHEAD:
            lines += _missing_inputs(state, session, task)
            return f"given to {where}, which makes its inputs; {graph.missing[task]} of them are not finished."
        others = sum(map(len, worker.assigned.values())) - 1 if worker is not None else 0
        return f"given to {where}, which has {others} other tasks and {_cpus(worker)}; it has not told of its start."
    if status == TASK_FINISHED:
        where = state.worker_id(graph.last_worker[task])
        count, seconds = attempts(session, task), graph.duration[task]
        return f"run {count} took {seconds:.3g} s on {where}."
    blamed = session.blame.get(task)
    text = one_line(blamed.message) if blamed is not None else "no reason is known."
    if task in session.stopping:
        text += f" Its run is still being stopped on {state.worker_id(session.stopping[task])}."
    return text


def _cpus(worker: Worker | None) -> str:
    return "no cpus" if worker is None else f"{worker.cpus} cpus"


def _missing_inputs(state: ServerState, session: Session, task: int) -> list[str]:
    graph = session.graph
    lines = []
    missing = [obj for obj in graph.distinct(task) if graph.state[obj] != FINISHED]
    for obj in missing[:MANY]:
        producer = graph.producer[obj]
        made_by = "nothing makes it"
        if producer:
            status = TaskState(graph.state[producer]).name
            made_by = f"made by task {session.task_name(producer)}, which is {status}"
            if graph.state[producer] in (ASSIGNED, RUNNING):
                made_by += f" on {state.worker_id(graph.worker[producer])}"
        lines.append(f"  {session.id_of(obj)}: {made_by}")
    if len(missing) > MANY:
        lines.append(f"  and {len(missing) - MANY} more")
    return lines


def _why_ready(state: ServerState, session: Session, task: int) -> str:
    request = session.templates[session.graph.template[task]].request
    workers = state.workers.values()
    if not workers:
        return "no worker is connected."
    if not any(could_run(worker, request) for worker in workers):
        return f"no worker can ever run it: {reason(state, request)}."
    count = sum(other.ready for other in state.sessions.values())
    return f"it needs {request.describe()} and waits for a worker with room; {count} tasks and blocks are ready in all."


def _workers(state: ServerState, session: Session, task: int) -> list[str]:
    request = session.templates[session.graph.template[task]].request
    lines = []
    for worker in list(state.workers.values())[:MANY]:
        offers = [("cpus", request.cpus, max(0, worker.free_cpus), worker.cpus)]
        offers += [(n, amount, worker.free.get(n, 0), worker.offer.get(n, 0)) for n, amount in request.other]
        free = ", ".join(
            f"{name} {readable(name, left)} of {readable(name, offered)} free" + (" (too little)" * (left < amount))
            for name, amount, left, offered in offers
        )
        held = "; held for another request" if worker.reserved not in (None, request) else ""
        held += "; it is to stop and gets no tasks" if worker.draining is not None else ""
        lines.append(f"  {worker.worker_id}: {free}{held}")
    if len(state.workers) > MANY:
        lines.append(f"  and {len(state.workers) - MANY} more workers")
    return lines


def explain_object(state: ServerState, session: Session, obj: int) -> str:
    """The state of an object with its reason."""
    graph = session.graph
    status, producer = graph.state[obj], graph.producer[obj]
    text = f"Data object {session.id_of(obj)} is {DataObjectState(status).name}"
    if status == FINISHED:
        holders = [state.workers[w].worker_id for w in sorted(graph.replicas_of(obj)) if w in state.workers]
        holders += ["the server"] if graph.at_server(obj) else []
        text += f": {graph.size[obj]} bytes at {', '.join(holders)}"
    elif status == OBJECT_ABORTED and obj in session.blame:
        text += f": {one_line(session.blame[obj].message)}"
    elif status == UNFINISHED and producer:
        return f"{text}. Made by:\n{explain_task(state, session, producer)}"
    kept = "kept" if graph.is_kept(obj) else "not kept"
    return f"{text}; {kept}, needed by {graph.needed[obj]} unfinished tasks."
