"""Every event of the server core in every state of tasks, sessions and workers: nothing but answers and refusals."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from rain.common.blocks import FULL, LATE, STORED
from rain.common.failure import Failure
from rain.protocol import messages as m
from rain.server.core.actions import Log, Send
from rain.server.core.events import CopyUnreadable, PeerJoined, PeerLeft, PeerSaid, ServerEvent, Tick
from rain.testing.graphs import PlannedArray, PlannedSubmit, PlannedTask
from rain.testing.linking import LinkedMember, linked_block
from tests.property.fakes import BlockEnd, DoneColumns, FakeClient, FakeWorker
from tests.property.server_machine import ServerWorld

CONSTANT, FIRST, MADE, SECOND, LAST, UNKNOWN = 10, 11, 12, 13, 14, 500
"""FIRST makes MADE from CONSTANT, SECOND makes LAST (kept) from MADE."""

IDS = (CONSTANT, FIRST, MADE, SECOND, LAST, UNKNOWN)

MEMBERS, OUTPUTS, TASKS = 12, 11, 23
"""The array of other scenes: its outputs, then its tasks, then a task with the output of its member 4 as input."""
CONSUMER = TASKS + MEMBERS

WORKERS_TO_STOP: list[list[str]] = [["10.2.0.2:9000"], ["10.2.0.3:9000"], ["10.9.9.9:1"], []]

LINKED_MEMBERS = 4
"""Of the first of two linked blocks of the array in yet other scenes."""

ARRAY_IDS = (OUTPUTS, OUTPUTS + 1, OUTPUTS + 4, TASKS, TASKS + 1, TASKS + 4, CONSUMER, UNKNOWN)


class Scene:
    """A world in a certain state; the next client and worker numbers are known."""

    def __init__(self) -> None:
        self.world = ServerWorld()
        self.client: FakeClient = self.world.client_joins()
        self.session = self.world.open_session(self.client)
        self.ids = IDS

    def submit_array(self, *, keep: bool = True, retries: int = 1) -> None:
        self.ids = ARRAY_IDS
        plan = PlannedSubmit(constants={CONSTANT: b"function"})
        prototype = PlannedTask(0, (CONSTANT,), (), (8,), retries=retries)
        plan.arrays.append(PlannedArray.of(OUTPUTS, [prototype] * MEMBERS))
        plan.tasks.append(PlannedTask(CONSUMER, (OUTPUTS + 4,), (CONSUMER + 1,), (8,)))
        if keep:
            plan.kept.update(range(OUTPUTS, OUTPUTS + MEMBERS))
        assert self.world.submit(self.session, plan)

    def submit_linked(self, *, keep: bool = True, retries: int = 1) -> None:
        """Each member uses the one before, and some the first; the last of the first block is used by the second."""
        self.ids = ARRAY_IDS
        plan = PlannedSubmit(constants={CONSTANT: b"function"}, kept={CONSTANT})
        members = []
        for position in range(MEMBERS):
            before = (OUTPUTS + position - 1,) if position else ()
            inputs = (CONSTANT, *before, *((OUTPUTS,) if position % 3 == 0 and position else ()))
            members.append(PlannedTask(0, inputs, (), (8,), retries=retries, name=f"f{position % 2}"))
        linked = LINKED_MEMBERS, MEMBERS - LINKED_MEMBERS
        plan.arrays.append(replace(PlannedArray.of(OUTPUTS, members), linked=linked))
        plan.tasks.append(PlannedTask(CONSUMER, (OUTPUTS + 4,), (CONSUMER + 1,), (8,)))
        if keep:
            plan.kept.update(range(OUTPUTS, OUTPUTS + MEMBERS, 2))
        assert self.world.submit(self.session, plan)

    def end_block(self, end: BlockEnd) -> None:
        """The block that the worker has ends."""
        (task,) = (task for (_, task), run in self.worker().assigned.items() if run.members)
        self.world.finish(self.worker(), self.session, [task], True, end)

    def submit(self) -> None:
        plan = PlannedSubmit(constants={CONSTANT: b"constant"}, kept={LAST})
        plan.tasks = [
            PlannedTask(FIRST, (CONSTANT,), (MADE,), (8,)),
            PlannedTask(SECOND, (MADE, MADE), (LAST,), (8,), retries=1),
        ]
        assert self.world.submit(self.session, plan)

    def worker(self) -> FakeWorker:
        return next(iter(self.world.workers.values()))

    def start(self, task: int) -> None:
        self.world.start(self.worker(), [(self.session, task)])

    def finish(self, task: int) -> None:
        assert self.world.gather(self.worker(), (self.session, task))
        self.world.finish(self.worker(), self.session, [task], inline=False)

    def say(self, message: Any) -> None:
        self.world.feed(PeerSaid(self.client.peer, message), compare=False)


def empty() -> Scene:
    return Scene()


def no_worker() -> Scene:
    scene = Scene()
    scene.submit()
    return scene


def assigned() -> Scene:
    scene = no_worker()
    scene.world.worker_joins(1)
    return scene


def running() -> Scene:
    scene = assigned()
    scene.start(FIRST)
    return scene


def second_assigned() -> Scene:
    scene = running()
    scene.finish(FIRST)
    return scene


def second_running() -> Scene:
    scene = second_assigned()
    scene.start(SECOND)
    return scene


def retried() -> Scene:
    scene = second_running()
    scene.world.fail(scene.worker(), (scene.session, SECOND))
    return scene


def asked_for_logs() -> Scene:
    scene = running()
    unseen(scene, scene.client.peer, m.GetTaskLog(9006, scene.session, FIRST, "stdout", 0, 100))
    scene.world.worker_joins(1)
    return unseen(scene, scene.client.peer, m.CheckNetwork(9007))


def finished() -> Scene:
    scene = second_running()
    scene.finish(SECOND)
    return scene


def unkept() -> Scene:
    scene = finished()
    scene.world.unkeep(scene.session, [LAST])
    return scene


def recomputing() -> Scene:
    scene = finished()
    scene.world.worker_leaves(scene.worker())
    scene.world.worker_joins(1)
    return scene


def input_lost_while_running() -> Scene:
    scene = second_running()
    scene.world.copy_unreadable(scene.worker(), scene.worker(), (scene.session, MADE))
    return scene


def failed() -> Scene:
    scene = running()
    scene.world.fail(scene.worker(), (scene.session, FIRST))
    return scene


def closed() -> Scene:
    scene = running()
    scene.world.close_session(scene.session)
    return scene


def waiting() -> Scene:
    scene = second_running()
    for message in (
        m.Wait(9001, scene.session, m.WAIT_ALL, array("I", [SECOND, LAST])),
        m.Wait(9002, scene.session, m.WAIT_SOME, array("I", [SECOND, LAST])),
        m.Wait(9003, scene.session, m.WAIT_SESSION, array("I")),
        m.FetchObjects(9004, scene.session, array("I", [LAST]), []),
    ):
        scene.say(message)
    return scene


def uploading() -> Scene:
    scene = second_running()
    scene.say(m.ConstantPiece(scene.session, 30, 0, 100, b"x" * 50))
    return scene


def staged() -> Scene:
    scene = second_running()
    (chunk,) = scene.world.writers[scene.session].messages(PlannedSubmit(constants={40: b"late"}))
    scene.say(chunk)
    return scene


def unseen(scene: Scene, peer: int, message: Any) -> Scene:
    """Say it to the core alone: the reference model knows nothing of it."""
    scene.world.core.handle([PeerSaid(peer, message)], scene.world.now)
    return scene


def tolerant(scene: Scene) -> Scene:
    scene.world.core.state.sessions[scene.session].on_failure = "continue"
    return scene


def tolerant_second_running() -> Scene:
    return tolerant(second_running())


def tolerant_failed() -> Scene:
    scene = tolerant(waiting())
    failure = Failure("task", "boom", retriable=False).to_map()
    failed = m.TaskFailed(scene.session, SECOND, 1, failure, 1.0, 0.1)
    return unseen(scene, scene.worker().peer, failed)


def tolerant_recomputing() -> Scene:
    return tolerant(recomputing())


def being_cancelled() -> Scene:
    scene = waiting()
    return unseen(scene, scene.client.peer, m.Cancel(9005, scene.session, array("I")))


def cancelled() -> Scene:
    scene = being_cancelled()
    stopped = m.TasksStopped(scene.session, array("I", [SECOND]), array("I", [1]))
    return unseen(scene, scene.worker().peer, stopped)


def first_being_cancelled() -> Scene:
    scene = running()
    return unseen(scene, scene.client.peer, m.Cancel(9005, scene.session, array("I", [FIRST])))


def array_waiting() -> Scene:
    scene = Scene()
    scene.submit_array()
    return scene


def array_in_block(*, keep: bool = True, retries: int = 1) -> Scene:
    """The first member ran alone, the others are assigned as a block."""
    scene = Scene()
    scene.submit_array(keep=keep, retries=retries)
    scene.world.worker_joins(1)
    scene.finish(TASKS)
    assert [run.members for run in scene.worker().assigned.values()] == [MEMBERS - 1]
    return scene


def block_running() -> Scene:
    scene = array_in_block()
    scene.start(TASKS + 1)
    for message in (
        m.Wait(9001, scene.session, m.WAIT_ALL, array("I", [TASKS + 1, OUTPUTS + 4])),
        m.Wait(9002, scene.session, m.WAIT_SOME, array("I", [TASKS + 4, OUTPUTS + 4])),
        m.Wait(9003, scene.session, m.WAIT_SESSION, array("I")),
        m.FetchObjects(9004, scene.session, array("I", [OUTPUTS + 4, OUTPUTS + 1]), []),
    ):
        scene.say(message)
    return scene


def block_late() -> Scene:
    scene = array_in_block()
    scene.end_block(BlockEnd(LATE, 2))
    return scene


def block_stored() -> Scene:
    scene = array_in_block()
    scene.end_block(BlockEnd(STORED, 2))
    return scene


def member_failed() -> Scene:
    scene = block_running()
    scene.end_block(BlockEnd("failed", 2))
    return scene


def member_failed_for_good() -> Scene:
    scene = array_in_block(retries=0)
    scene.end_block(BlockEnd("failed", 2))
    return scene


def block_crashed() -> Scene:
    scene = block_running()
    scene.world.crash(scene.worker(), (scene.session, TASKS + 1))
    return scene


def block_finished() -> Scene:
    scene = array_in_block()
    scene.end_block(BlockEnd(None, MEMBERS - 1))
    return scene


def block_not_kept_finished() -> Scene:
    scene = array_in_block(keep=False)
    scene.end_block(BlockEnd(None, MEMBERS - 1))
    return scene


def member_unkept() -> Scene:
    scene = block_finished()
    scene.world.unkeep(scene.session, [OUTPUTS + 1, OUTPUTS + 4])
    return scene


def member_being_cancelled() -> Scene:
    scene = tolerant(block_running())
    return unseen(scene, scene.client.peer, m.Cancel(9005, scene.session, array("I", [TASKS + 4])))


def block_being_cancelled() -> Scene:
    scene = block_running()
    return unseen(scene, scene.client.peer, m.Cancel(9005, scene.session, array("I")))


def worker_lost_with_block() -> Scene:
    scene = block_running()
    scene.world.worker_joins(1)
    scene.world.worker_leaves(scene.worker())
    return scene


def linked_waiting() -> Scene:
    scene = Scene()
    scene.submit_linked()
    return scene


def linked_assigned(*, keep: bool = True, retries: int = 1) -> Scene:
    """The first linked block is assigned, the second waits for it."""
    scene = Scene()
    scene.submit_linked(keep=keep, retries=retries)
    scene.world.worker_joins(1)
    assert [run.members for run in scene.worker().assigned.values()] == [LINKED_MEMBERS]
    return scene


def linked_running() -> Scene:
    scene = linked_assigned()
    scene.start(TASKS)
    for message in (
        m.Wait(9001, scene.session, m.WAIT_ALL, array("I", [TASKS + 1, OUTPUTS + 4])),
        m.Wait(9002, scene.session, m.WAIT_SOME, array("I", [TASKS + 4, OUTPUTS + 2])),
        m.Wait(9003, scene.session, m.WAIT_SESSION, array("I")),
        m.FetchObjects(9004, scene.session, array("I", [OUTPUTS + 4, OUTPUTS + 2]), []),
    ):
        scene.say(message)
    return scene


def second_linked_assigned() -> Scene:
    scene = linked_assigned()
    scene.end_block(BlockEnd(None, LINKED_MEMBERS))
    assert [run.members for run in scene.worker().assigned.values()] == [MEMBERS - LINKED_MEMBERS]
    return scene


def linked_finished() -> Scene:
    scene = second_linked_assigned()
    scene.end_block(BlockEnd(None, MEMBERS - LINKED_MEMBERS))
    return scene


def linked_not_kept_finished() -> Scene:
    scene = linked_assigned(keep=False)
    scene.end_block(BlockEnd(None, LINKED_MEMBERS))
    return scene


def linked_late() -> Scene:
    scene = linked_assigned()
    scene.end_block(BlockEnd(LATE, 2))
    return scene


def linked_stored() -> Scene:
    scene = linked_assigned()
    scene.end_block(BlockEnd(STORED, 2))
    return scene


def linked_member_failed() -> Scene:
    scene = linked_running()
    scene.end_block(BlockEnd("failed", 2))
    return scene


def linked_member_failed_for_good() -> Scene:
    scene = linked_assigned(retries=0)
    scene.end_block(BlockEnd("failed", 2))
    return scene


def linked_crashed() -> Scene:
    scene = linked_running()
    scene.world.crash(scene.worker(), (scene.session, TASKS))
    return scene


def linked_unkept() -> Scene:
    scene = linked_running()
    scene.world.unkeep(scene.session, [OUTPUTS, OUTPUTS + 2])
    return scene


def linked_member_being_cancelled() -> Scene:
    scene = tolerant(linked_running())
    return unseen(scene, scene.client.peer, m.Cancel(9005, scene.session, array("I", [TASKS + 1])))


def linked_being_cancelled() -> Scene:
    scene = linked_running()
    return unseen(scene, scene.client.peer, m.Cancel(9005, scene.session, array("I")))


def worker_lost_with_linked() -> Scene:
    scene = linked_running()
    scene.world.worker_joins(1)
    scene.world.worker_leaves(scene.worker())
    return scene


def tolerant_linked_stored() -> Scene:
    return tolerant(linked_stored())


SCENES = [
    empty,
    no_worker,
    assigned,
    running,
    second_assigned,
    second_running,
    retried,
    asked_for_logs,
    finished,
    unkept,
    recomputing,
    input_lost_while_running,
    failed,
    closed,
    waiting,
    uploading,
    staged,
    tolerant_second_running,
    tolerant_failed,
    tolerant_recomputing,
    being_cancelled,
    cancelled,
    first_being_cancelled,
    array_waiting,
    array_in_block,
    block_running,
    block_late,
    block_stored,
    member_failed,
    member_failed_for_good,
    block_crashed,
    block_finished,
    block_not_kept_finished,
    member_unkept,
    member_being_cancelled,
    block_being_cancelled,
    worker_lost_with_block,
    linked_waiting,
    linked_assigned,
    linked_running,
    second_linked_assigned,
    linked_finished,
    linked_not_kept_finished,
    linked_late,
    linked_stored,
    linked_member_failed,
    linked_member_failed_for_good,
    linked_crashed,
    linked_unkept,
    linked_member_being_cancelled,
    linked_being_cancelled,
    worker_lost_with_linked,
    tolerant_linked_stored,
]


def client_messages(session: int, ids: tuple[int, ...] = IDS) -> list[Any]:
    """Every message of clients, with ids of every sort."""
    made: list[Any] = [
        m.Heartbeat(),
        m.NewSession(1, "name", "fail", False),
        m.CloseSession(2, session),
        m.SubmitCommit(3, session, False),
        m.SubmitCommit(4, session, True),
        m.Wait(5, session, m.WAIT_SESSION, array("I")),
        m.Wait(6, session, m.WAIT_ALL, array("I")),
        m.Wait(7, session, m.WAIT_SOME, array("I")),
        m.StopWaiting(9001),
        m.StopWaiting(9003),
        m.StopWaiting(9004),
        m.StopWaiting(777),
        m.FetchObjects(8, session, array("I"), []),
        m.UnkeepObjects(9, session, array("I")),
        m.GetInfos(10, session, array("I")),
        m.GetStates(13, session, array("I")),
        m.GetCounts(28, session, array("I"), array("I")),
        m.GetCounts(29, session, array("I", [UNKNOWN, FIRST]), array("I", [0, 1])),
        m.Cancel(14, session, array("I")),
        m.NewSession(15, "name", "continue", False),
        m.NewSession(16, "name", "whatever", False),
        m.GetServerInfo(11),
        m.GetDump(17),
        m.CheckNetwork(40),
        m.Explain(18, session, array("I")),
        m.ExplainTasks(19, session, 0, LAST),
        m.ListSessions(31, 0),
        m.ListSessions(32, session),
        m.ListTasks(33, session, 0, LAST, b"", ""),
        m.ListTasks(34, session, UNKNOWN, FIRST, b"\3\4", "name"),
        m.ListObjects(35, session, 0, LAST, 0, ""),
        m.ListObjects(36, session, FIRST, LAST, 1, "label"),
        m.GetSpecs(37, session, array("I")),
        m.StopServer(12),
        *(m.StopWorkers(40, names, now) for names in WORKERS_TO_STOP for now in (False, True)),
        m.ConstantPiece(session, 30, 50, 100, b"y" * 50),
        m.ConstantPiece(session, 30, 7, 100, b"gap"),
        m.ConstantPiece(session, LAST, 0, 3, b"abc"),
        _chunk(session, tasks=[50], outputs=[51], inputs=[LAST]),
        _chunk(session, tasks=[FIRST], outputs=[MADE], inputs=[UNKNOWN]),
        _block(session, first=60, inputs=[CONSTANT], start=0),
        _block(session, first=60, inputs=[CONSTANT], start=9),
        _block(session, first=LAST, inputs=[UNKNOWN], start=0),
        *_linked_blocks(session),
    ]
    for number in ids:
        columns = [array("I", [number, number])]
        if ids is ARRAY_IDS:
            columns.append(array("I", range(number, number + MEMBERS)))
        for column in columns:
            made += [
                m.Wait(20, session, m.WAIT_ALL, column),
                m.Wait(21, session, m.WAIT_SOME, column),
                m.FetchObjects(22, session, column, ["10.2.0.2:9000"]),
                m.UnkeepObjects(23, session, column),
                m.GetInfos(24, session, column),
                m.GetStates(25, session, column),
                m.GetCounts(30, session, column[:1], array("I", [column[-1] - number + 1])),
                m.Explain(27, session, column),
                m.GetTaskLog(41, session, column[-1], "stdout", 0, 1 << 20),
                m.GetSpecs(38, session, column),
                m.Cancel(26, session, column),
            ]
    return made


def worker_messages(session: int, ids: tuple[int, ...] = IDS) -> list[Any]:
    """Every message of workers, with ids and runs of every sort."""
    made: list[Any] = [
        m.WorkerHello("10.2.0.9:9000", {"cpus": 1}, "host", 2, "3.11.4"),
        m.WorkerHello("0.0.0.0:9000", {"cpus": -1}, "host", 2, "3.11.4"),
        m.WorkerInfo(1, {"tasks": [], "objects": [], "objects_to_delete": []}),
        m.WorkerInfo(99, {}),
        m.WorkerDigest(0, 0, 0),
        m.WorkerDigest(9, 9, 9),
        m.WorkerMonitoring({}),
        m.WorkerMonitoring({"cpu_usage": "wrong"}),
        m.WorkerRuns(9, array("I", [session, 99]), array("I", [ids[1], UNKNOWN]), array("I", [1, 7])),
        m.WorkerRuns(0, array("I"), array("I"), array("I")),
        m.WorkerMonitoring({"cpu_usage": [5.0], "mem_usage": 1.0, "net_stat": {"lo": [1, 2]}}),
        m.WorkerMonitoring({"cpu_usage": "all"}),
        m.TaskLogRead(1, b"printed", 0, 7, True, ""),
        m.TaskLogRead(1, b"printed", 0, 1, True, ""),
        m.TaskLogRead(99, b"", 0, 0, True, "nothing"),
        m.PeersProbed(2, [""]),
        m.PeersProbed(2, ["no route", ""]),
        m.PeersProbed(99, []),
    ]
    for number in ids:
        one = array("I", [number])
        made += [
            m.ObjectsStored(session, one),
            m.ObjectsMissing(session, number, ["10.2.0.2:9000", "10.2.0.3:9000", "10.0.0.1:7210"]),
        ]
        for run in (0, 1, 2, 7):
            runs = array("I", [run])
            made += [
                m.TasksStarted(session, one, runs),
                m.TasksReturned(session, one, runs),
                m.TasksStopped(session, one, runs),
                m.TaskFailed(session, number, run, Failure("task", "boom").to_map(), 1.0, 0.1),
                m.TaskFailed(session, number, run, Failure("task", "boom", retriable=False).to_map(), 0.0, 0.0),
                _done(session, number, run, None),
                *(_done(session, number, run, end) for end in BLOCK_ENDS),
            ]
    return made


BLOCK_ENDS = (
    BlockEnd(None, 1),
    BlockEnd(None, MEMBERS - 1),
    BlockEnd(None, MEMBERS),
    BlockEnd(LATE, 0),
    BlockEnd(FULL, MEMBERS - 1),
    BlockEnd(STORED, 0),
    BlockEnd(STORED, MEMBERS - 2),
    BlockEnd("failed", 3),
    BlockEnd("failed", MEMBERS),
    BlockEnd("failed", 0, retriable=False),
)


def _done(session: int, task: int, run: int, end: BlockEnd | None) -> m.TasksDone:
    """A run of a task with one output, or of a block."""
    columns = DoneColumns(session)
    if end is not None:
        columns.add_block(run, range(task, task + MEMBERS + 1), LAST, end)
    else:
        columns.add(task, run, (LAST,), True, 0.2)
    return columns.message()


def _block(session: int, *, first: int, inputs: list[int], start: int) -> m.SubmitBlock:
    args = b"\x92\x91\x01\x80"
    return m.SubmitBlock(session, [], 0, first, 10, start, array("I", inputs), True, args, array("I", [len(args)]))


def _linked_blocks(session: int) -> list[m.SubmitBlock]:
    """Sound ones, the last of which has an input twice, and others that no client should send."""
    member = LinkedMember(0, (CONSTANT,), True, b"\x92\x91\x01\x80")
    chosen = [member, replace(member, inputs=(CONSTANT, 60)), replace(member, inputs=(CONSTANT, OUTPUTS + 4, 61))]
    sound = linked_block(session, [], 60, 3, 0, chosen)
    kept = replace(sound, keeps=b"\1\0\1", first=70, inputs=array("I", [CONSTANT, OUTPUTS]))
    return [
        sound,
        kept,
        replace(sound, inputs=array("I", [CONSTANT, CONSTANT])),
        replace(sound, link=b"no link"),
        replace(sound, inputs=array("I", [CONSTANT])),
        replace(sound, inputs=array("I", [CONSTANT, UNKNOWN])),
        replace(sound, inputs=array("I", [CONSTANT, 62])),
        replace(sound, template=99),
        linked_block(session, [], 60, 3, 0, [replace(one, template=99) for one in chosen]),
        linked_block(session, [], 60, 4, 1, chosen),
    ]


def _chunk(session: int, *, tasks: list[int], outputs: list[int], inputs: list[int]) -> m.SubmitChunk:
    return m.SubmitChunk(
        session=session,
        templates=[],
        tasks=array("I", tasks),
        task_templates=array("I", [0] * len(tasks)),
        args=[],
        input_counts=array("I", [len(inputs)] * len(tasks)),
        inputs=array("I", inputs * len(tasks)),
        output_counts=array("I", [1] * len(outputs)),
        outputs=array("I", outputs),
        output_flags=bytes(len(outputs)),
        objects=array("I"),
        object_flags=b"",
        object_specs=[],
        values=[],
    )


def other_events(scene: Scene) -> list[ServerEvent]:
    peers = [*scene.world.clients, *scene.world.workers, 999]
    found: list[ServerEvent] = [Tick(), PeerJoined(900, "client", "10.1.0.9:1", "10.0.0.1:7210", "3.12.0")]
    found.append(PeerJoined(901, "worker", "10.2.0.9:1", "10.0.0.1:7210", "3.12.0"))
    found += [PeerLeft(peer, "test") for peer in peers]
    found += [CopyUnreadable(s, n, w) for s in (scene.session, 99) for n in scene.ids for w in (0, 1, 2, 9)]
    return found


def events_of(scene: Scene) -> list[ServerEvent]:
    """Everything that can come, in this state, from anybody."""
    messages = [
        *(message for session in (scene.session, 99) for message in client_messages(session, scene.ids)),
        *(message for session in (scene.session, 99) for message in worker_messages(session, scene.ids)),
    ]
    peers = [*scene.world.clients, *scene.world.workers, 999]
    return [*other_events(scene), *(PeerSaid(peer, message) for message in messages for peer in peers)]


def test_all_messages_are_in_the_matrix() -> None:
    made = {type(message) for message in client_messages(1) + worker_messages(1)}
    wanted = {m.Heartbeat, *get_args(m.ClientMessage), *get_args(m.WorkerMessage)}
    assert made == wanted
    assert all(fields(kind) is not None for kind in wanted)


@pytest.mark.parametrize("build", SCENES)
def test_every_event(build: Callable[[], Scene]) -> None:
    scene = build()
    frozen = pickle.dumps(scene.world.core)
    for event in events_of(scene):
        core, now = pickle.loads(frozen), scene.world.now
        for batch in ([event], [event], [Tick()]):
            now += 0.5
            try:
                actions = core.handle(batch, now)
                core.sanity_check()
            except Exception as error:
                raise AssertionError(f"{build.__name__}: {event}: {error!r}") from error
            internal = [a.text for a in actions if isinstance(a, Log) and "internal error" in a.text]
            assert not internal, f"{build.__name__}: {event}: {internal}"
            answers = [(a.peer, getattr(a.message, "seq", 0)) for a in actions if isinstance(a, Send)]
            requests = [answer for answer in answers if answer[0] in scene.world.clients and answer[1]]
            assert len(requests) == len(set(requests)), f"{build.__name__}: {event}: answered twice"


@pytest.mark.parametrize("position", range(len(_linked_blocks(1))))
def test_a_linked_block_is_taken_or_refused(position: int) -> None:
    """Only the first three can be."""
    scene = linked_assigned()
    block = _linked_blocks(scene.session)[position]
    events: list[ServerEvent] = [PeerSaid(scene.client.peer, block)]
    events.append(PeerSaid(scene.client.peer, m.SubmitCommit(9009, scene.session, False)))
    answers = [a.message for a in scene.world.core.handle(events, scene.world.now) if isinstance(a, Send)]
    scene.world.core.sanity_check()
    (answer,) = [one for one in answers if getattr(one, "seq", 0) == 9009]
    assert isinstance(answer, m.Accepted if position < 3 else m.Refused), answer
    if isinstance(answer, m.Refused):
        assert Failure.from_map(answer.failure).kind == "invalid"
