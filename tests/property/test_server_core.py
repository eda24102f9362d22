"""The server core against the reference model, by random sequences of operations.

`RAIN_PROPERTY_SEQUENCES=2000` runs more, at random; `RAIN_PROPERTY_SHRINK=1` makes a failing sequence short.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from rain.testing.graphs import PlannedSubmit, PlannedTask
from tests.property.server_machine import FakeWorker, ServerWorld

SEQUENCES = int(os.environ.get("RAIN_PROPERTY_SEQUENCES", "300"))
STEPS = 40
PHASES = set(Phase) - ({Phase.shrink} if "RAIN_PROPERTY_SHRINK" not in os.environ else set())
"""Shrinking a failure takes minutes: on demand."""

PICK = st.integers(0, 63)
SELDOM = st.sampled_from((False, False, False, False, True))

SHAPE = st.lists(
    st.tuples(
        st.lists(PICK, max_size=3),  # inputs, picked from what there is
        st.integers(0, 2),  # number of outputs
        st.integers(0, 3),  # which of them are kept
        st.sampled_from((0, 0, 0, 1, 2)),  # retries
        st.sampled_from((1, 1, 1, 0, 2)),  # cpus
    ),
    min_size=1,
    max_size=5,
)


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

    # --- clients ---

    @precondition(lambda self: len(self.world.clients) < 2)
    @rule()
    def client_joins(self) -> None:
        client = self.world.client_joins()
        self.world.open_session(client)

    @precondition(lambda self: self.world.clients and len(self.world.reference.sessions) < 3)
    @rule(pick=PICK)
    def new_session(self, pick: int) -> None:
        clients = list(self.world.clients.values())
        self.world.open_session(clients[pick % len(clients)])

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
        for picks, output_count, keep_mask, retries, cpus in shape:
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

    @precondition(lambda self: self._open())
    @rule(pick=PICK, several=st.booleans())
    def unkeep(self, pick: int, several: bool) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        kept = [n for n, obj in self.world.reference.sessions[number].objects.items() if obj.kept]
        if kept:
            self.world.unkeep(number, kept if several else [kept[pick % len(kept)]])

    @precondition(lambda self: self._open())
    @rule(pick=PICK, picks=st.lists(PICK, min_size=1, max_size=4))
    def wait(self, pick: int, picks: list[int]) -> None:
        sessions = self._open()
        number = sessions[pick % len(sessions)]
        session = self.world.reference.sessions[number]
        ids = sorted([*session.tasks, *session.objects])
        if ids:
            self.world.wait(number, [ids[p % len(ids)] for p in picks])

    # --- workers ---

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
        worker, (number, task) = self._busy()[pick % len(self._busy())]
        known = self.world.reference.sessions[number].tasks[task]
        if known.failures < known.retries or pick % 8 == 0:
            self.world.fail(worker, (number, task), retriable or pick % 8 > 0)

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


def test_server_core_agrees_with_the_reference() -> None:
    run_state_machine_as_test(
        ServerMachine,
        settings=settings(
            max_examples=SEQUENCES,
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
