from rain.common.states import DataObjectState, TaskState
from rain.testing.reference import Reference, RefObject, RefTask

CONSTANT, FIRST, MADE, SECOND, LAST = range(10, 15)


def chain(kept: bool = True) -> Reference:
    """FIRST makes MADE from CONSTANT, SECOND makes LAST from MADE."""
    reference = Reference()
    reference.open(1)
    reference.worker_joins("w")
    tasks = {FIRST: RefTask((CONSTANT,), (MADE,)), SECOND: RefTask((MADE,), (LAST,), retries=1)}
    objects = {CONSTANT: RefObject(None, False), MADE: RefObject(FIRST, False), LAST: RefObject(SECOND, kept)}
    assert not reference.refuses(1, tasks, objects)
    reference.submit(1, tasks, objects)
    return reference


def test_life_of_a_chain() -> None:
    reference = chain()
    assert TaskState.ready in reference.allowed_task_states(1, FIRST)
    assert TaskState.ready not in reference.allowed_task_states(1, SECOND)
    reference.finishes(1, FIRST, "w", inline=False)
    assert reference.object_state(1, CONSTANT) is DataObjectState.removed
    assert reference.object_state(1, MADE) is DataObjectState.finished
    reference.finishes(1, SECOND, "w", inline=False)
    assert reference.object_state(1, MADE) is DataObjectState.removed
    assert reference.object_state(1, LAST) is DataObjectState.finished
    assert reference.wait_is_over(1, [FIRST, SECOND, LAST])


def test_loss_runs_the_lineage_again() -> None:
    reference = chain()
    reference.finishes(1, FIRST, "w", inline=False)
    reference.finishes(1, SECOND, "w", inline=False)
    reference.deleted(1, MADE, "w")
    reference.worker_leaves("w", [])
    assert reference.sessions[1].unfinished() == 2
    assert TaskState.ready in reference.allowed_task_states(1, FIRST)
    assert reference.object_state(1, CONSTANT) is DataObjectState.finished


def test_loss_of_what_nobody_needs_changes_nothing() -> None:
    reference = chain(kept=False)
    reference.finishes(1, FIRST, "w", inline=False)
    reference.finishes(1, SECOND, "w", inline=False)
    reference.worker_leaves("w", [])
    assert reference.sessions[1].unfinished() == 0


def test_failure_after_the_retries() -> None:
    reference = chain()
    reference.finishes(1, FIRST, "w", inline=False)
    reference.fails(1, SECOND)
    assert reference.sessions[1].failed is None
    reference.fails(1, SECOND)
    assert reference.sessions[1].failed == SECOND


def test_crash_limit() -> None:
    reference = chain()
    for name in ("a", "b", "c"):
        assert reference.sessions[1].failed is None
        reference.worker_joins(name)
        reference.worker_leaves(name, [(1, FIRST)])
    assert reference.sessions[1].failed == FIRST


def test_refusals() -> None:
    reference = chain()
    extra = RefObject(20, False)
    assert reference.refuses(1, {FIRST: RefTask((), ())}, {})
    assert reference.refuses(1, {20: RefTask((MADE,), ())}, {})
    assert not reference.refuses(1, {20: RefTask((LAST,), ())}, {})
    assert reference.refuses(1, {20: RefTask((21,), (21,))}, {21: extra})
    assert reference.refuses(1, {20: RefTask((), (21, 21))}, {21: extra})
    assert reference.refuses(2, {}, {})
