"""Requests of pretended clients that wait for their answers: answered when they must be, not before, and rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from tests.property.fakes import PendingCancel, PendingFetch, PendingWait, value_of

if TYPE_CHECKING:
    from rain.testing.reference import RefSession
    from tests.property.server_machine import ServerWorld


def compare_pending(world: ServerWorld) -> None:
    """Look at all of them; those that are answered are forgotten."""
    world.waits = [wait for wait in world.waits if _wait_stays(world, wait)]
    world.fetches = [fetch for fetch in world.fetches if _fetch_stays(world, fetch)]
    world.cancels = [cancel for cancel in world.cancels if _cancel_stays(world, cancel)]


def _check_refusal(answer: Any, session: RefSession, ids: list[int]) -> None:
    failure = Failure.from_map(answer.failure)
    assert failure.kind in ("task", "cancelled"), failure
    roots = {root for number in ids for root in session.roots(number)}
    assert failure.task in roots, f"{failure.task} is blamed, not one of {roots}"


def _wait_stays(world: ServerWorld, wait: PendingWait) -> bool:
    session = world.reference.sessions[wait.session]
    answer = wait.client.answers.pop(wait.seq, None)
    if session.failed is not None:
        assert isinstance(answer, m.Refused | m.WaitDone), f"wait {wait.seq} hangs in a failed session"
        return False
    if wait.mode == m.WAIT_SOME:
        return _wait_for_some_stays(world, wait, answer)
    if wait.mode == m.WAIT_SESSION:
        return _wait_for_session_stays(session, wait, answer)
    blamed = {number for number in wait.ids if session.roots(number)}
    if isinstance(answer, m.Refused):
        assert blamed, f"wait {wait.seq} for {wait.ids} was refused: {answer}"
        _check_refusal(answer, session, wait.ids)
        return False
    assert not blamed - wait.seen, f"wait {wait.seq} for {wait.ids} was not refused, though {blamed} ended badly"
    wait.seen.update(n for n in wait.ids if world.reference.wait_is_over(wait.session, [n]))
    if answer is None:
        assert wait.seen != set(wait.ids), f"wait {wait.seq} for {wait.ids} is not answered"
        return True
    assert isinstance(answer, m.WaitDone), answer
    assert wait.seen == set(wait.ids), f"wait {wait.seq} for {wait.ids} was answered early"
    return False


def _wait_for_some_stays(world: ServerWorld, wait: PendingWait, answer: Any) -> bool:
    over = {number for number in wait.ids if world.reference.wait_is_over(wait.session, [number])}
    if answer is None:
        assert not over, f"wait {wait.seq} for one of {wait.ids} is not answered, though {over} are done"
        return True
    assert isinstance(answer, m.WaitDone), answer
    assert answer.ids, f"wait {wait.seq} for one of {wait.ids} was answered without any"
    assert set(answer.ids) <= over, f"wait {wait.seq}: {set(answer.ids) - over} are not done"
    assert len(answer.ids) == len(set(answer.ids))
    return False


def _wait_for_session_stays(session: RefSession, wait: PendingWait, answer: Any) -> bool:
    if answer is None:
        assert session.unfinished(), f"wait {wait.seq} for a session is not answered"
        return True
    assert not session.unfinished(), f"wait {wait.seq} for a session was answered early"
    failed = {number for number, task in session.tasks.items() if task.ended is TaskState.failed}
    if isinstance(answer, m.Refused):
        assert Failure.from_map(answer.failure).task in failed, answer
    else:
        assert isinstance(answer, m.WaitDone), answer
        assert not failed, f"wait {wait.seq} for a session hides failures of {failed}"
    return False


def _fetch_stays(world: ServerWorld, fetch: PendingFetch) -> bool:
    session = world.reference.sessions[fetch.session]
    answer = fetch.client.answers.pop(fetch.seq, None)
    if session.failed is not None:
        assert isinstance(answer, m.Refused | m.ObjectsFetched), f"fetch {fetch.seq} hangs in a failed session"
        return False
    if not all(session.objects[number].kept for number in fetch.ids):
        return answer is None  # what was unkept meanwhile may come or not
    states = [world.reference.object_state(fetch.session, number) for number in fetch.ids]
    blamed = any(session.roots(number) for number in fetch.ids)
    if answer is None:
        assert not blamed, f"fetch {fetch.seq} of {fetch.ids} is not refused"
        assert set(states) != {DataObjectState.finished}, f"fetch {fetch.seq} of {fetch.ids} is not answered"
        return True
    if isinstance(answer, m.Refused):
        assert blamed, f"fetch {fetch.seq} of {fetch.ids} was refused: {answer}"
        _check_refusal(answer, session, fetch.ids)
        return False
    assert isinstance(answer, m.ObjectsFetched), answer
    assert set(states) == {DataObjectState.finished}, f"fetch {fetch.seq} of {fetch.ids} was answered early"
    _check_values(world, fetch, answer)
    return False


def _check_values(world: ServerWorld, fetch: PendingFetch, answer: m.ObjectsFetched) -> None:
    session = world.reference.sessions[fetch.session]
    names = {worker.name: worker for worker in world.workers.values()}
    for position, number in enumerate(fetch.ids):
        if session.objects[number].producer is None:
            continue
        size = world.sizes[fetch.session, number]
        assert answer.sizes[position] == size, f"{number} has {answer.sizes[position]} bytes"
        value = answer.values[position] if answer.values else None
        if value is None:
            holders = [names[address] for address in answer.holders[position] if address in names]
            assert any((fetch.session, number) in worker.copies for worker in holders), f"nobody has {number}"
        else:
            assert value == value_of(number), f"{number} is {value!r}"


def _cancel_stays(world: ServerWorld, cancel: PendingCancel) -> bool:
    session = world.reference.sessions[cancel.session]
    answer = cancel.client.answers.pop(cancel.seq, None)
    if session.failed is not None:
        assert isinstance(answer, m.Refused | m.Cancelled), f"cancel {cancel.seq} hangs in a failed session"
        return False
    running = [key for peer, key in cancel.running if peer in world.workers and key in world.workers[peer].stopping]
    if running:
        assert answer is None, f"cancel {cancel.seq} was answered while {running} may run"
        return True
    assert isinstance(answer, m.Cancelled), f"cancel {cancel.seq} is not answered: {answer}"
    assert set(answer.ids) == cancel.chosen
    assert len(answer.ids) == len(cancel.chosen)
    return False
