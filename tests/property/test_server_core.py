"""The server core against the reference model, by random sequences of operations.

`RAIN_PROPERTY_SEQUENCES=20000` runs more, at random; `RAIN_PROPERTY_SHRINK=1` makes a failing sequence short.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from rain.common.blocks import FULL, LATE, STORED
from rain.protocol import messages as m
from rain.testing.graphs import PlannedArray, PlannedSubmit, PlannedTask
from tests.property.fakes import BlockEnd, FakeWorker
from tests.property.server_machine import ServerWorld

SEQUENCES = int(os.environ.get("RAIN_PROPERTY_SEQUENCES", "2000"))
PARTS = 10
STEPS = 40
PHASES = set(Phase) - ({Phase.shrink} if "RAIN_PROPERTY_SHRINK" not in os.environ else set())
"""Shrinking a failure takes minutes: on demand."""

PICK = st.integers(0, 63)
SELDOM = st.sampled_from((False, False, False, False, True))

TASK = st.tuples(
    st.lists(PICK, max_size=3),  # inputs, picked from what there is
    st.integers(0, 2),  # number of outputs
    st.integers(0, 3),  # which of them are kept
    st.sampled_from((0, 0, 0, 1, 2)),  # retries
    st.sampled_from((1, 1, 1, 0, 2)),  # cpus
)
ARRAY = st.tuples(
    st.integers(1, 40),  # members
    st.lists(PICK, max_size=2),  # inputs
    st.booleans(),  # kept
    st.sampled_from((0, 0, 1)),  # retries
    st.sampled_from((1, 1, 1, 1, 2)),  # cpus
).map(lambda drawn: ("array", *drawn))
LINKED = st.tuples(
    st.lists(st.lists(PICK, max_size=3), min_size=1, max_size=20),  # inputs of each member besides its function
    st.lists(st.integers(1, 12), min_size=1, max_size=3),  # members of the first blocks
    st.integers(0, (1 << 20) - 1),  # which outputs are kept
    st.sampled_from((0, 0, 1)),  # retries
).map(lambda drawn: ("linked", *drawn))
SHAPE = st.lists(st.one_of(TASK, TASK, ARRAY, LINKED), min_size=1, max_size=5)
MODE = st.sampled_from((m.WAIT_ALL, m.WAIT_ALL, m.WAIT_SOME, m.WAIT_SESSION))
END = st.sampled_from((None, LATE, FULL, STORED, "failed", "failed", "crash"))


class ServerMachine(RuleBasedStateMachine):
    """One world; each rule does one thing, and the world compares after it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = ServerWorld()
        self.world.open_session(self.world.client_joins())
        self.world.worker_joins(2)

    # --- what there is ---

    def _open(self) -> list[int]:
        sessions = self.world.reference.sessions
        return [n for n in sorted(sessions) if sessions[n].failed is None]

    def _busy(self) -> list[tuple[FakeWorker, tuple[int, int]]]:
        return [(w, key) for w in self.world.workers.values() for key in sorted(w.assigned)]

    def _blocks(self) -> list[tuple[FakeWorker, tuple[int, int]]]:
        return [(w, key) for w, key in self._busy() if w.assigned[key].members]

    def _may_fail(self, key: tuple[int, int], retriable: bool, pick: int) -> bool:
        """Not too many sessions are to fail."""
        session = self.world.reference.sessions[key[0]]
        task = session.tasks[key[1]]
        return session.tolerant or pick % 8 == 0 or (retriable and task.failures < task.retries)

    # --- clients ---

    @precondition(lambda self: len(self.world.clients) < 2)
    @rule()
    def client_joins(self) -> None:
        client = self.world.client_joins()
        self.world.open_session(client)

    @precondition(lambda self: self.world.clients and len(self.world.reference.sessions) < 3)
    @rule(pick=PICK, tolerant=st.booleans())
    def new_session(self, pick: int, tolerant: bool) -> None:
        clients = list(self.world.clients.values())
        self.world.open_session(clients[pick % len(clients)], tolerant=tolerant)

    @precondition(lambda self: len(self.world.clients) > 1)
    @rule(pick=PICK, seldom=SELDOM)
    def client_leaves(self, pick: int, seldom: bool) -> None:
        clients = list(self.world.clients.values())
        if seldom:
            self.world.client_leaves(clients[pick % len(clients)])

    @precondition(lambda self: self.world.reference.sessions)
    @rule(pick=PICK, seldom=SELDOM)
    def close(self, pick: int, seldom: bool) -> None:
        sessions = sorted(self.world.reference.sessions)
        number = sessions[pick % len(sessions)]
        if seldom or self.world.reference.sessions[number].failed is not None:
            self.world.close_session(number)

    @precondition(lambda self: self._open())
    @rule(pick=PICK, shape=SHAPE, constants=st.integers(0, 2), kept=st.integers(0, 3))
    def submit(self, pick: int, shape: list[Any], constants: int, kept: int) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        assert self.world.submit(number, self._plan(number, shape, constants, kept))

    @precondition(lambda self: self.world.reference.sessions)
    @rule(pick=PICK, shape=SHAPE, what=st.sampled_from(("unknown", "taken", "unkept", "cycle", "twice", "none")))
    def bad_submit(self, pick: int, shape: list[Any], what: str) -> None:
        sessions = sorted(self.world.reference.sessions)
        number = sessions[pick % len(sessions)]
        session = self.world.reference.sessions[number]
        plan = self._plan(number, shape, 1, 1)
        if not plan.tasks:
            plan = self._plan(number, [([], 1, 1, 0, 1)], 1, 1)
        first = plan.tasks[0]
        free = self.world.next_id[number] + 1000
        known = sorted([*session.tasks, *session.objects])
        unkept = [n for n, obj in session.objects.items() if not obj.kept]
        inputs, outputs, task = first.inputs, first.outputs, first.number
        if what == "unknown":
            inputs = (*inputs, free)
        elif what == "taken" and known:
            task = known[pick % len(known)]
        elif what == "unkept" and unkept:
            inputs = (unkept[pick % len(unkept)],)
        elif what == "cycle":
            outputs = (*outputs, free)
            inputs = (*inputs, free)
        elif what == "twice":
            outputs = (*outputs, free, free)
        elif session.failed is None:
            return
        sizes = (8,) * len(outputs)
        plan.tasks[0] = PlannedTask(number=task, inputs=inputs, outputs=outputs, sizes=sizes)
        assert not self.world.submit(number, plan)

    def _plan(self, number: int, shape: list[Any], constants: int, kept: int) -> PlannedSubmit:
        session = self.world.reference.sessions[number]
        following = self.world.next_id[number]
        plan = PlannedSubmit()
        usable = [n for n, obj in session.objects.items() if obj.kept]
        for k in range(constants):
            plan.constants[following] = b"c" * (8 if k == 0 else 100_000)
            usable.append(following)
            if kept >> k & 1:
                plan.kept.add(following)
            following += 1
        for one in shape:
            if one[0] == "array":
                following = self._plan_array(plan, usable, following, *one[1:])
                continue
            if one[0] == "linked":
                following = plan_linked(plan, usable, following, *one[1:])
                continue
            picks, output_count, keep_mask, retries, cpus = one
            inputs = tuple(usable[pick % len(usable)] for pick in picks) if usable else ()
            outputs = tuple(range(following + 1, following + 1 + output_count))
            plan.tasks.append(
                PlannedTask(
                    number=following,
                    inputs=inputs,
                    outputs=outputs,
                    sizes=(8,) * output_count,
                    retries=retries,
                    cpus=cpus,
                )
            )
            plan.kept.update(output for k, output in enumerate(outputs) if keep_mask >> k & 1)
            usable.extend(outputs)
            following += 1 + output_count
        return plan

    @staticmethod
    def _plan_array(
        plan: PlannedSubmit,
        usable: list[int],
        first: int,
        members: int,
        picks: list[int],
        keep: bool,
        retries: int,
        cpus: int,
    ) -> int:
        """Add an array; returns the id behind it."""
        inputs = tuple(usable[pick % len(usable)] for pick in picks) if usable else ()
        prototype = PlannedTask(number=0, inputs=inputs, outputs=(), sizes=(8,), retries=retries, cpus=cpus)
        planned = PlannedArray.of(first, [prototype] * members)
        plan.arrays.append(planned)
        outputs = [task.outputs[0] for task in planned.members]
        usable.extend(outputs)
        if keep:
            plan.kept.update(outputs)
        return first + 2 * members

    @precondition(lambda self: self._open())
    @rule(pick=PICK, member=PICK, what=st.sampled_from(("taken", "unknown", "unkept")))
    def bad_array(self, pick: int, member: int, what: str) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        session = self.world.reference.sessions[number]
        known = sorted([*session.tasks, *session.objects])
        unkept = [n for n, obj in session.objects.items() if not obj.kept]
        first, usable = self.world.next_id[number], [self.world.next_id[number] + 1000]
        if what == "taken" and known:
            first, usable = known[member % len(known)], []
        elif what == "unkept" and unkept:
            usable = [unkept[member % len(unkept)]]
        plan = PlannedSubmit()
        self._plan_array(plan, usable, first, 12, [0], True, 0, 1)
        assert not self.world.submit(number, plan)

    @precondition(lambda self: self._open())
    @rule(pick=PICK, several=st.booleans())
    def unkeep(self, pick: int, several: bool) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        kept = [n for n, obj in self.world.reference.sessions[number].objects.items() if obj.kept]
        if kept:
            first = pick % len(kept)
            self.world.unkeep(number, (kept[first:] if pick % 2 else kept) if several else [kept[first]])

    @precondition(lambda self: self._open())
    @rule(pick=PICK, picks=st.lists(PICK, min_size=1, max_size=4), mode=MODE, neighbours=st.integers(0, 20))
    def wait(self, pick: int, picks: list[int], mode: int, neighbours: int) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        session = self.world.reference.sessions[number]
        ids = sorted([*session.tasks, *session.objects])
        if mode == m.WAIT_SESSION:
            self.world.wait(number, [], mode)
        elif ids:
            first = (picks[0] * 7) % len(ids)
            chosen = [*ids[first : first + neighbours], *(ids[p % len(ids)] for p in picks)]
            self.world.wait(number, chosen, mode)

    @precondition(lambda self: self._open())
    @rule(pick=PICK, picks=st.lists(PICK, min_size=1, max_size=4), neighbours=st.integers(1, 20))
    def fetch(self, pick: int, picks: list[int], neighbours: int) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        session = self.world.reference.sessions[number]
        kept = [n for n, obj in sorted(session.objects.items()) if obj.kept and obj.producer is not None]
        if kept:
            first = picks[0] % len(kept)
            chosen = [*kept[first : first + neighbours], *(kept[p % len(kept)] for p in picks[1:])]
            self.world.fetch(number, chosen)

    @precondition(lambda self: self._open())
    @rule(pick=PICK, picks=st.lists(PICK, max_size=4), neighbours=st.integers(1, 20), seldom=SELDOM)
    def cancel(self, pick: int, picks: list[int], neighbours: int, seldom: bool) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        tasks = sorted(self.world.reference.sessions[number].tasks)
        if seldom and tasks:
            first = picks[0] % len(tasks) if picks else 0
            chosen = [*tasks[first : first + neighbours], *(tasks[p % len(tasks)] for p in picks[1:])]
            self.world.cancel(number, chosen if picks else [])

    # --- workers ---

    @precondition(lambda self: any(worker.stopping for worker in self.world.workers.values()))
    @rule(pick=PICK, crossing=SELDOM)
    def stop_runs(self, pick: int, crossing: bool) -> None:
        runs = [(worker, key) for worker in self.world.workers.values() for key in sorted(worker.stopping)]
        worker, key = runs[pick % len(runs)]
        self.world.stop_runs(worker, key, crossing)

    @precondition(lambda self: self._blocks())
    @rule(pick=PICK, kind=END, share=PICK, retriable=st.sampled_from((True, True, True, False)))
    def end_block(self, pick: int, kind: str | None, share: int, retriable: bool) -> None:
        worker, key = self._blocks()[pick % len(self._blocks())]
        if not self.world.gather(worker, key):
            return
        assignment = worker.assigned[key]
        if kind == "crash":
            self.world.crash(worker, key)
            return
        done = share % assignment.members
        if kind is None:
            done = assignment.members
        elif kind in (LATE, FULL):
            done = max(1, done)
        elif kind == "failed" and not self._may_fail((key[0], key[1] + done), retriable, share):
            kind, done = LATE, max(1, done)
        if kind in (LATE, FULL) and done == assignment.members:
            kind = None  # the only member of a linked block
        self.world.finish(worker, key[0], [key[1]], True, BlockEnd(kind, done, retriable))

    @precondition(lambda self: len(self.world.workers) < 4)
    @rule(cpus=st.integers(1, 3))
    def worker_joins(self, cpus: int) -> None:
        self.world.worker_joins(cpus)

    @precondition(lambda self: len(self.world.workers) > 1)
    @rule(pick=PICK, often=st.booleans())
    def worker_leaves(self, pick: int, often: bool) -> None:
        workers = list(self.world.workers.values())
        if often:
            self.world.worker_leaves(workers[pick % len(workers)])

    @precondition(lambda self: self._busy())
    @rule(pick=PICK)
    def start(self, pick: int) -> None:
        worker, key = self._busy()[pick % len(self._busy())]
        if not worker.assigned[key].started:
            self.world.start(worker, [key])

    @precondition(lambda self: self._busy())
    @rule(picks=st.lists(st.tuples(PICK, st.booleans()), min_size=2, max_size=6))
    def finish_several(self, picks: list[tuple[int, bool]]) -> None:
        for pick, inline in picks:
            if self._busy():
                self.finish(pick, inline, pick % 4 == 0)

    @precondition(lambda self: self._busy())
    @rule(pick=PICK, inline=st.booleans(), together=st.booleans())
    def finish(self, pick: int, inline: bool, together: bool) -> None:
        worker, key = self._busy()[pick % len(self._busy())]
        number = key[0]
        wanted = [key]
        if together:
            wanted += [other for other in worker.assigned if other[0] == number and other != key]
        tasks = [task for _, task in wanted if self.world.gather(worker, (number, task))]
        tasks = [task for task in tasks if (number, task) in worker.assigned]
        if tasks:
            self.world.finish(worker, number, tasks, inline)

    @precondition(lambda self: self._busy())
    @rule(pick=PICK, retriable=st.sampled_from((True, True, True, False)))
    def fail(self, pick: int, retriable: bool) -> None:
        worker, key = self._busy()[pick % len(self._busy())]
        if worker.assigned[key].members:
            self.world.crash(worker, key)
        elif self._may_fail(key, retriable or pick % 8 > 0, pick):
            self.world.fail(worker, key, retriable or pick % 8 > 0)

    @precondition(lambda self: self._busy())
    @rule(pick=PICK)
    def give_back(self, pick: int) -> None:
        worker, key = self._busy()[pick % len(self._busy())]
        if not worker.assigned[key].started:
            self.world.give_back(worker, key)

    @precondition(lambda self: self._busy())
    @rule(pick=PICK)
    def transfer(self, pick: int) -> None:
        worker, key = self._busy()[pick % len(self._busy())]
        self.world.gather(worker, key)

    @precondition(lambda self: any(worker.withdrawn for worker in self.world.workers.values()))
    @rule()
    def obey_withdrawals(self) -> None:
        for worker in list(self.world.workers.values()):
            for key, run in list(worker.withdrawn.items()):
                worker.withdrawn.pop(key, None)
                assignment = worker.assigned.get(key)
                if assignment is not None and assignment.run == run and not assignment.started:
                    self.world.give_back(worker, key)

    @precondition(lambda self: any(worker.copies for worker in self.world.workers.values()))
    @rule(pick=PICK, other=PICK)
    def copy_unreadable(self, pick: int, other: int) -> None:
        holders = [(w, key) for w in self.world.workers.values() for key in sorted(w.copies)]
        holder, key = holders[pick % len(holders)]
        workers = list(self.world.workers.values())
        self.world.copy_unreadable(workers[other % len(workers)], holder, key)

    @precondition(lambda self: self.world.workers and self.world.last_run)
    @rule(pick=PICK, other=PICK)
    def outdated_messages(self, pick: int, other: int) -> None:
        sessions = self._open()
        keys = [key for key in sorted(self.world.last_run) if key[0] in sessions]
        workers = list(self.world.workers.values())
        if keys:
            self.world.outdated_messages(workers[other % len(workers)], keys[pick % len(keys)])

    @precondition(lambda self: any(a.run > 1 for w in self.world.workers.values() for a in w.assigned.values()))
    @rule(pick=PICK)
    def outdated_messages_of_the_same_worker(self, pick: int) -> None:
        again = [(w, key) for w, key in self._busy() if w.assigned[key].run > 1]
        worker, key = again[pick % len(again)]
        self.world.outdated_messages(worker, key)

    @rule(seconds=st.sampled_from((0.5, 0.5, 5.0)), seldom=SELDOM)
    def tick(self, seconds: float, seldom: bool) -> None:
        if seldom:
            self.world.tick(seconds)


def array_in_block(world: ServerWorld, *, tolerant: bool = False, members: int = 20) -> tuple[int, FakeWorker]:
    """A session with a kept array 11..., whose first member ran alone; the others are assigned to the worker."""
    number = world.open_session(world.client_joins(), tolerant=tolerant)
    plan = PlannedSubmit(constants={10: b"function"})
    plan.arrays.append(PlannedArray.of(11, [PlannedTask(0, (10,), (), (8,))] * members))
    plan.kept.update(range(11, 11 + members))
    assert world.submit(number, plan)
    worker = world.worker_joins(1)
    while not any(key[0] == number and run.members for key, run in worker.assigned.items()):
        world.finish(worker, number, [min(task for session, task in worker.assigned if session == number)], inline=True)
    return number, worker


def plan_linked(
    plan: PlannedSubmit,
    usable: list[int],
    first: int,
    picks: list[list[int]],
    blocks: list[int],
    kept: int,
    retries: int,
) -> int:
    """Add an array in linked blocks; returns the id behind it. Even picks are of what is usable, others of earlier
    members' outputs."""
    if not usable:
        return first
    prototypes = []
    for position, chosen in enumerate(picks):
        made = list(range(first, first + position)) or usable
        inputs = (usable[0], *((made if pick % 2 else usable)[-1 - pick // 2 % 8 :][0] for pick in chosen))
        prototypes.append(PlannedTask(0, inputs, (), (8,), retries=retries, name=f"f{position % 3}"))
    planned, left = [], len(picks)
    for count in [*blocks, left]:
        planned.append(min(count, left))
        left -= planned[-1]
    array = replace(PlannedArray.of(first, prototypes), linked=tuple(count for count in planned if count))
    plan.arrays.append(array)
    outputs = [task.outputs[0] for task in array.members]
    usable.extend(outputs)
    plan.kept.update(output for position, output in enumerate(outputs) if kept >> position & 1)
    return first + 2 * len(outputs)


def linked_blocks(world: ServerWorld, *, tolerant: bool = False) -> int:
    """A session with linked blocks that use each other, an ordinary task, and are used by it. Returns the session."""
    number = world.open_session(world.client_joins(), tolerant=tolerant)
    plan = PlannedSubmit(constants={10: b"function"})
    plan.tasks.append(PlannedTask(11, (10,), (12,), (8,)))
    following = plan_linked(plan, [10, 12], 20, [[], [1], [2, 1], [1, 3], [], [1], [3, 5], [7, 9]], [4], 0xB0, 1)
    plan.tasks.append(PlannedTask(following, (22, 27), (following + 1,), (8,)))
    plan.kept.add(following + 1)
    plan_linked(plan, [10, following + 1, 24], following + 2, [[2 * k, 1, 3] for k in range(12)], [6, 3], 0x824, 0)
    assert world.submit(number, plan)
    return number


class LinkedMachine(ServerMachine):
    """Begins with linked blocks: in a session that goes on after failures, and in one that does not."""

    def __init__(self) -> None:
        super().__init__()
        linked_blocks(self.world)
        linked_blocks(self.world, tolerant=True)


class BlockMachine(ServerMachine):
    """Begins with two arrays, of which blocks are assigned and wait: in a session that goes on after failures, and in
    one that does not."""

    def __init__(self) -> None:
        super().__init__()
        array_in_block(self.world, members=40)
        array_in_block(self.world, tolerant=True, members=40)


def sent_ahead(world: ServerWorld, *, tolerant: bool = False) -> int:
    """Calls of a function that was measured, which depend on each other: some of them are sent ahead. Returns the
    session."""
    number = world.open_session(world.client_joins(), tolerant=tolerant)
    assert world.submit(number, PlannedSubmit({10: b"function"}, [PlannedTask(11, (10,), (12,), (8,))], {10}))
    (worker,) = [one for one in world.workers.values() if (number, 11) in one.assigned]
    world.finish(worker, number, [11], inline=True)
    plan = PlannedSubmit(kept={20, 24, 27, 36})
    for task, inputs in ((21, ()), (23, (20,)), (25, (22,)), (28, (24,)), (30, (24,)), (33, (27, 29)), (35, (27,))):
        plan.tasks.append(PlannedTask(task, (10, *inputs), (task - 1,), (8,), retries=task % 3))
    plan.tasks.append(PlannedTask(37, (10, 32, 34, 29), (36,), (8,)))
    assert world.submit(number, plan)
    return number


class AheadMachine(ServerMachine):
    """Begins with tasks sent ahead: in a session that goes on after failures, and in one that does not."""

    def __init__(self) -> None:
        super().__init__()
        before = self.world.sent_ahead
        sent_ahead(self.world)
        sent_ahead(self.world, tolerant=True)
        assert self.world.sent_ahead > before


MACHINES = [ServerMachine, BlockMachine, LinkedMachine, AheadMachine]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("machine", MACHINES)
def test_server_core_agrees_with_the_reference(
    machine: type[ServerMachine], part: int, record_property: Callable[[str, object], None]
) -> None:
    count = SEQUENCES // (len(MACHINES) * PARTS)
    record_property("sequences", count)
    run_state_machine_as_test(
        type(f"{machine.__name__}{part}", (machine,), {}),  # examples follow from the name
        settings=settings(
            max_examples=count,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="RAIN_PROPERTY_SEQUENCES" not in os.environ,
            database=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_task_running_on_three_lost_workers_fails() -> None:
    world = ServerWorld()
    number = world.open_session(world.client_joins())
    plan = PlannedSubmit(tasks=[PlannedTask(10, (), (11,), (8,))], kept={11})
    assert world.submit(number, plan)
    for lost in range(3):
        assert world.reference.sessions[number].failed is None, lost
        worker = world.worker_joins(1)
        world.start(worker, [(number, 10)])
        world.worker_leaves(worker)
    assert world.reference.sessions[number].failed == 10


def test_a_reservation_ends_with_the_tasks_it_was_made_for() -> None:
    world = ServerWorld()
    client = world.client_joins()
    held, other = world.open_session(client), world.open_session(client)
    worker = world.worker_joins(4)
    world.submit(other, PlannedSubmit(tasks=[PlannedTask(10, (), (11,), (8,), cpus=4)]))
    world.submit(held, PlannedSubmit(tasks=[PlannedTask(10, (), (11,), (8,), cpus=3)]))
    world.tick(5)
    world.tick(6)
    world.tick(1)
    world.close_session(held)
    world.finish(worker, other, [10], inline=True)
    world.submit(other, PlannedSubmit(tasks=[PlannedTask(20, (), (21,), (8,), cpus=4)]))
    assert (other, 20) in worker.assigned


def test_a_result_in_the_store_that_crossed_a_cancel_is_deleted() -> None:
    world = ServerWorld()
    number, worker = array_in_block(world)
    world.fetch(number, [30, 29])
    world.cancel(number, [34])
    ((key, assignment),) = worker.stopping.items()
    assert assignment.members > 2
    world.stop_runs(worker, key, crossing=True)
    assert (number, assignment.outputs[0]) not in worker.copies
