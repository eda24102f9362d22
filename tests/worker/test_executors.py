"""The executor pool with real processes."""

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from array import array
from pathlib import Path

import cloudpickle
import psutil
import pytest

from rain.client.embedding import reference_pickle
from rain.common.blocks import STORED, BlockResult, joined
from rain.common.content_type import decode_value
from rain.common.links import Link, pack_assigned
from rain.common.packing import PickledValue, pack, pack_args, unpack
from rain.worker.core.actions import Run, RunInput, RunLink
from rain.worker.core.events import (
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    RunFailed,
    RunKept,
    RunResult,
    RunsEnded,
    RunSkipped,
    StoreFailed,
)
from rain.worker.executor_process import ExecutorProcess, python_command
from rain.worker.executors import ExecutorPool
from rain.worker.store import Store, StoreError
from rain.worker.task_logs import TaskLogs

FUNCTION = (1, 10)
PLAIN = {"task_type": "py/", "config": {"plain": True}, "outputs": [{}]}
TIMEOUT = 20


def belongings():
    """Children (zombies too), descriptors and shared memory of this process."""
    children = {f"{child.pid} {child.name()}" for child in psutil.Process().children(recursive=True)}
    descriptors = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            descriptors.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")
    shared = {str(path) for path in Path("/dev/shm").glob(f"rain-*-{os.getpid()}-*")}
    return {entry for entry in children | descriptors | shared if f"/proc/{os.getpid()}/fd" not in entry}


@contextlib.contextmanager
def no_leaks():
    before = belongings()
    yield
    assert belongings() <= before


class Rig:
    """A pool, its store, and what it reported."""

    def __init__(self, root, register_timeout=20.0, memory_budget=None, **options):
        (root / "data").mkdir()
        self.root = root
        self.store = Store(str(root / "data"), memory_budget=memory_budget)
        self.task_logs = TaskLogs(root / "log")
        self.events = []
        self.new_event = asyncio.Event()
        self.pool = ExecutorPool(
            loop=asyncio.get_running_loop(),
            workdir=root / "work",
            logdir=root / "log",
            store=self.store,
            task_logs=self.task_logs,
            report=self.report,
            hear=lambda read: read(),
            register_timeout=register_timeout,
            **options,
        )
        self.task = 100

    def report(self, event):
        self.events.append(event)
        self.new_event.set()

    async def event(self, kind):
        """The next event, which must be of this kind."""
        async with asyncio.timeout(TIMEOUT):
            while not self.events:
                self.new_event.clear()
                await self.new_event.wait()
        event = self.events.pop(0)
        assert isinstance(event, kind), event
        return event

    async def ready(self, number=1, kind="py", env=()):
        self.pool.start(number, kind, env)
        assert await self.event(ExecutorReady) == ExecutorReady(number)
        return self

    async def results(self, count):
        found = []
        while len(found) < count:
            found += (await self.event(RunsEnded)).results
        return found

    def function(self, function):
        self.store.delete([FUNCTION])
        self.store.put(FUNCTION, cloudpickle.dumps(function))

    def runs(self, arguments, *, inputs=(), template=0, data=PLAIN, cached=False, outputs=1):
        all_inputs = (RunInput(FUNCTION, None, None, cached), *inputs)
        runs = []
        for args in arguments:
            self.task += 1
            numbers = tuple(1000 * self.task + index for index in range(outputs))
            runs.append(Run((1, self.task, 1), template, data, pack_args(args, {}), all_inputs, numbers))
        return runs

    def block(self, arguments, *, executor=1, data=PLAIN, template=0):
        """Call a block; returns its run."""
        first = self.task + 1
        self.task += len(arguments)
        args = joined(len(arguments), b"".join(pack_args(args, {}) for args in arguments))
        inputs = (RunInput(FUNCTION, None, None, False),)
        run = Run((1, first, 1), template, data, args, inputs, (1000 * first,), members=len(arguments))
        self.pool.call(executor, [run])
        return run

    def linked(self, templates, which=b""):
        """Call a linked block of three members, each of which gets the value of the one before; returns its run."""
        first = self.task + 1
        self.task += 3
        one = PickledValue(reference_pickle("{0}", 1, None, None))
        args = joined(3, b"".join([pack_args([0], {}), *[pack_args([one], {})] * 2]))
        link = Link([number for number, _ in templates], which, bytes([1, 2, 2]), array("H", [0, 0, 1, 0, 2]), 1)
        packed = RunLink(pack_assigned(link.pack(), b"\0\0\1"), tuple(templates), which)
        number, data = packed.template(0)
        inputs = (RunInput(FUNCTION, None, None, False),)
        run = Run((1, first, 1), number, data, args, inputs, (1000 * first,), members=3, link=packed)
        self.pool.call(1, [run])
        return run

    def call(self, *arguments, executor=1, **options):
        runs = self.runs(arguments, **options)
        self.pool.call(executor, runs)
        return runs

    @property
    def work_directories(self):
        return sorted(path.name for path in (self.root / "work/executors/work").iterdir())


async def until(condition):
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def rig(tmp_path):
    with no_leaks():
        rig = Rig(tmp_path)
        yield rig
        await rig.pool.close()
        assert rig.work_directories == []
        rig.store.close()
        assert rig.events == []


def script(tmp_path, text):
    path = tmp_path / "program.py"
    path.write_text(text)
    return [sys.executable, str(path)]


@pytest.fixture
async def scripted(tmp_path):
    """Makes pools whose `py` executor is a script."""
    with no_leaks():
        rigs = []

        def make(text, **options):
            rig = Rig(tmp_path, commands={"py": script(tmp_path, text)}, **options)
            rigs.append(rig)
            return rig

        yield make
        for rig in rigs:
            await rig.pool.close()
            rig.store.close()


async def test_a_batch(rig):
    await rig.ready()
    rig.function(lambda a, b: a + b)
    runs = rig.call(*[(n, 1) for n in range(300)])
    event = await rig.event(RunsEnded)
    assert event.executor == 1
    assert event.cached == [FUNCTION]
    results = event.results + (await rig.results(300 - len(event.results)) if len(event.results) < 300 else [])
    assert [result.key for result in results] == [run.key for run in runs]
    for number, (run, result) in enumerate(zip(runs, results, strict=True)):
        ((size, info, value),) = result.outputs
        assert unpack(info) == {"content_type": "pickle5"}
        assert size == len(value)
        assert decode_value(value, "pickle5") == number + 1
        assert rig.store.get((1, run.outputs[0])) == value
    rig.call((1, 2), cached=True)
    assert len(await rig.results(1)) == 1


def chain(rig, *lengths):
    """Calls, each with the output of the one before as its input; made of so many bytes."""
    runs, live = [], ()
    for length in lengths:
        (run,) = rig.runs([(length,)], inputs=live)
        live = (RunInput((1, run.outputs[0]), None, None, False, live=True),)
        runs.append(run)
    return runs


async def test_an_input_may_be_made_by_the_same_batch(rig):
    await rig.ready()
    rig.function(bytes)
    runs = chain(rig, 10, 20, 30)
    rig.pool.call(1, runs)
    results = await rig.results(3)
    assert [result.outputs[0][0] for result in results] == [10, 20, 30]
    assert rig.store.get((1, runs[1].outputs[0])) == bytes(20)


async def test_calls_are_skipped_whose_input_the_executor_does_not_have_any_more(rig):
    await rig.ready()
    rig.function(bytes)
    runs = chain(rig, 200_000, 20, 30)
    rig.pool.call(1, runs)
    first, *others = await rig.results(3)
    assert isinstance(first, RunResult)
    assert others == [RunSkipped(run.key) for run in runs[1:]]
    rig.pool.call(1, chain(rig, 5))
    assert len(await rig.results(1)) == 1


async def test_failures_and_results_keep_their_order(rig):
    await rig.ready()

    def function(number):
        if number % 2:
            raise ValueError(number)
        return number

    rig.function(function)
    rig.call((0,), (1,), (2,))
    kinds = [type(result) for result in await rig.results(3)]
    assert kinds == [RunResult, RunFailed, RunResult]


async def test_a_failure_is_complete(rig):
    await rig.ready()

    def function():
        raise KeyError("x")

    rig.function(function)
    (run,) = rig.call(())
    (result,) = await rig.results(1)
    assert result.failure.kind == "task"
    assert "KeyError: 'x'" in result.failure.message
    assert isinstance(pickle.loads(result.failure.exception), KeyError)
    assert (result.failure.task, result.failure.attempts) == (run.key[1], 1)


@pytest.mark.parametrize("budget", [None, 0])
async def test_large_values_go_by_file_both_ways(tmp_path, budget):
    with no_leaks():
        rig = await Rig(tmp_path, memory_budget=budget).ready()
        rig.function(lambda: bytes(200_000))
        (run,) = rig.call(())
        (result,) = await rig.results(1)
        assert result.outputs == [(200_000, None, None)]
        key = (1, run.outputs[0])
        path = rig.store.get(key)
        assert isinstance(path, Path)
        assert path.read_bytes() == bytes(200_000)

        from tests.executor.driver import Input

        rig.function(lambda data: len(data))
        template = {**PLAIN, "name": "other"}
        rig.pool.drop_cached(1, [FUNCTION])
        inputs = (RunInput(FUNCTION, None, None, False), RunInput(key, None, None, False))
        args = pack_args([Input(1)], {}, cloudpickle.dumps)
        rig.pool.call(1, [Run((1, 50, 1), 1, template, args, inputs, (51,))])
        (result,) = await rig.results(1)
        assert decode_value(result.outputs[0][2], "pickle5") == 200_000
        await rig.pool.close()
        rig.store.close()


async def test_an_input_passed_through_is_shared(rig):
    await rig.ready()
    for number, size in ((20, 10), (21, 100_000)):
        rig.store.put((1, number), b"x" * size)
    from tests.executor.driver import Input

    rig.function(lambda ctx, a: a)
    data = {"task_type": "py/", "config": {"encode_outputs": [None]}, "outputs": [{}]}
    args = pack_args([Input(1)], {}, cloudpickle.dumps)
    for number, size, inline in ((20, 10, b"x" * 10), (21, 100_000, None)):
        inputs = (RunInput(FUNCTION, None, None, False), RunInput((1, number), None, None, False))
        rig.pool.call(1, [Run((1, number + 10, 1), 0, data, args, inputs, (number + 20,))])
        (result,) = await rig.results(1)
        assert result.outputs == [(size, None, inline)]
        assert rig.store.size((1, number + 20)) == size


async def test_templates_are_sent_once_per_session(rig):
    await rig.ready()
    for session in range(1, 40):
        for task in (1, 2):
            rig.store.put((session, 10), cloudpickle.dumps(lambda: 0))
            run = Run((session, task, 1), 5, PLAIN, None, (RunInput((session, 10), None, None, False),), (50 + task,))
            rig.pool.call(1, [run])
    results = await rig.results(78)
    assert all(isinstance(result, RunResult) for result in results)
    rig.pool.end_session(39)


async def test_a_block(rig):
    await rig.ready()
    rig.function(lambda n: n + 1)
    run = rig.block([(n,) for n in range(300)])
    event = await rig.event(RunsEnded)
    assert event.cached == [FUNCTION]
    (result,) = event.results
    assert (result.key, result.outputs, result.info) == (run.key, [], None)
    assert (result.block.ran, result.block.stored) == (300, None)
    told = BlockResult.unpack(result.block.packed)
    assert (told.done, told.end) == (300, None)
    assert decode_value(told.value(0, 0), "pickle5") == 1
    assert rig.store.get((1, run.outputs[0])) is None


async def test_a_block_between_calls(rig):
    await rig.ready()
    rig.function(lambda n: n)
    before, run, after = rig.call((1,), (2,)), rig.block([(3,)] * 4), rig.call((5,))
    assert [result.key for result in await rig.results(4)] == [one.key for one in (*before, run, *after)]


async def test_a_large_value_of_a_member_is_stored(rig):
    await rig.ready()
    rig.function(lambda n: bytes(100_000) if n == 2 else n)
    run = rig.block([(n,) for n in range(5)])
    (result,) = await rig.results(1)
    assert (result.block.ran, result.block.stored) == (3, run.outputs[0] + 2)
    assert BlockResult.unpack(result.block.packed).end == STORED
    assert result.outputs == [(100_000, None, None)]
    assert rig.store.size((1, run.outputs[0] + 2)) == 100_000


async def test_a_member_that_fails(rig):
    await rig.ready()
    rig.function(lambda n: 1 // n)
    run = rig.block([(1,), (0,), (1,)])
    (result,) = await rig.results(1)
    told = BlockResult.unpack(result.block.packed)
    assert (told.done, result.block.ran, told.end["task"]) == (1, 2, run.key[1] + 1)


async def test_a_value_of_a_member_that_cannot_be_stored_fails_the_block(rig, monkeypatch):
    await rig.ready()

    def full(key, path):
        raise StoreError("No room", path=str(path))

    monkeypatch.setattr(rig.store, "put_file", full)
    rig.function(lambda: bytes(100_000))
    run = rig.block([(), ()])
    (result,) = await rig.results(1)
    assert isinstance(result, RunFailed)
    assert (result.key, result.failure.task, result.failure.message) == (run.key, run.key[1], "No room")


async def test_a_crash_blames_the_block_that_ran(rig):
    await rig.ready()

    def function(number):
        import os

        if number == 2:
            os._exit(3)

    rig.function(function)
    run = rig.block([(n,) for n in range(5)])
    rig.call((0,))
    assert (await rig.event(ExecutorLost)).running == run.key


async def test_a_linked_block(rig):
    """Templates are sent with it unless the executor has them."""
    await rig.ready()
    rig.function(lambda number: number + 1)
    other = {**PLAIN, "outputs": [{"label": "x"}]}
    for templates, which in (([(0, PLAIN)], b""), ([(1, other), (0, PLAIN)], b"\1\0\1"), ([(0, PLAIN)], b"")):
        run = rig.linked(templates, which)
        (result,) = await rig.results(1)
        assert (result.key, result.block.ran, result.block.stored) == (run.key, 3, None)
        told = BlockResult.unpack(result.block.packed)
        assert (told.end, array("q", told.values).tolist()) == (None, [0, 0, 3])


async def test_an_output_of_a_linked_block_is_stored_as_its_template_says(rig):
    await rig.ready()

    def function(ctx, number):
        import os

        if number == 0:
            return ctx.blob(b"first")
        os.mkdir("made")
        with open("made/file", "w") as file:
            file.write("x" * 100_000)
        return ctx.stage_directory("made")

    rig.function(function)
    blob, directory = ({"task_type": "py/", "outputs": [{"data_type": kind}]} for kind in ("blob", "dir"))
    run = rig.linked([(0, blob), (1, directory)], b"\0\1\1")
    (result,) = await rig.results(1)
    assert (result.block.ran, result.block.stored) == (2, run.outputs[0] + 1)
    assert (rig.store.get((1, run.outputs[0] + 1)) / "file").stat().st_size == 100_000


async def test_a_crash_blames_the_linked_block_that_ran(rig):
    await rig.ready()

    def function(number):
        import os

        if number == 2:
            os._exit(3)
        return number + 1

    rig.function(function)
    run = rig.linked([(0, PLAIN)])
    rig.call((0,))
    assert (await rig.event(ExecutorLost)).running == run.key


async def test_own_specs_of_outputs(rig):
    await rig.ready()
    rig.function(lambda ctx: ctx.blob(b"1", content_type="text"))
    data = {"task_type": "py/", "config": {}, "outputs": [{"label": "x"}]}
    shared, own = rig.runs([(), ()], data=data)
    own.output_specs = (pack({"label": "mine", "content_type": "json"}),)
    rig.pool.call(1, [shared, own])
    succeeded, failed = await rig.results(2)
    assert isinstance(succeeded, RunResult)
    assert "Output 'mine' has content type 'json'" in failed.failure.message


async def test_a_crash_blames_only_the_call_that_ran(rig):
    await rig.ready()

    def function(number):
        import os

        print("last words", number, flush=True)
        if number == 2:
            os._exit(3)
        return number

    rig.function(function)
    runs = rig.call(*[(n,) for n in range(5)])
    events = []
    while not events or not isinstance(events[-1], ExecutorLost):
        events.append(await rig.event((RunsEnded, ExecutorLost)))
    lost = events[-1]
    assert lost.running == runs[2].key
    assert lost.failure.message.startswith("Lost connection to executor\nExecutor terminated with exit code 3\n")
    assert "last words 2" in lost.failure.message
    assert lost.failure.task == runs[2].key[1]
    assert "Content of stderr (last 0 bytes):" in lost.failure.message


async def test_a_signal_is_told(rig):
    await rig.ready()

    def function():
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    rig.function(function)
    (run,) = rig.call(())
    lost = await rig.event(ExecutorLost)
    assert lost.running == run.key
    assert "signal 9 (SIGKILL)" in lost.failure.message


async def test_the_death_of_an_idle_executor_blames_nobody(rig):
    await rig.ready()
    rig.function(os.getpid)
    rig.call(())
    (result,) = await rig.results(1)
    os.kill(decode_value(result.outputs[0][2], "pickle5"), signal.SIGTERM)
    lost = await rig.event(ExecutorLost)
    assert lost.running is None
    assert "signal 15 (SIGTERM)" in lost.failure.message


async def test_grandchildren_die_with_the_executor(rig, tmp_path):
    await rig.ready()

    def function(path):
        import os
        import subprocess

        child = subprocess.Popen(["sleep", "100"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        os._exit(1)

    rig.function(function)
    rig.call((str(tmp_path / "pid"),))
    await rig.event(ExecutorLost)
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not _is_running(pid))


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_kill_is_silent_and_leaves_nothing(rig, tmp_path):
    await rig.ready()

    def function(path):
        import time

        open(path, "w").close()
        time.sleep(100)

    rig.function(function)
    rig.call((str(tmp_path / "started"),), (str(tmp_path / "started"),))
    await until((tmp_path / "started").exists)
    rig.pool.kill(1)
    rig.pool.kill(1)
    rig.pool.call(1, rig.runs([()]))
    rig.pool.drop_cached(1, [FUNCTION])
    await until(lambda: not rig.work_directories)
    assert rig.events == []


def stubborn(path):
    """Says when SIGTERM came, and goes on."""
    import signal
    import time

    signal.signal(signal.SIGTERM, lambda *_: open(path + ".term", "w").close())
    open(path, "w").close()
    time.sleep(100)


async def test_grace_between_the_signals(rig, tmp_path):
    await rig.ready()
    rig.function(stubborn)
    mark, second = tmp_path / "started", tmp_path / "second"
    rig.call((str(mark),), (str(second),))
    await until(mark.exists)
    rig.pool.kill(1, 0.4)
    await until((tmp_path / "started.term").exists)
    assert rig.events == []
    rig.pool.call(1, rig.runs([()]))
    assert await rig.event(ExecutorStopped) == ExecutorStopped(1)
    assert rig.work_directories == []
    assert not second.exists()
    rig.pool.kill(1, 0.4)
    assert await rig.event(ExecutorStopped) == ExecutorStopped(1)


async def test_a_run_that_ends_in_its_grace_is_the_last(rig, tmp_path):
    await rig.ready()

    def function(path):
        import signal
        import time

        begun = []
        signal.signal(signal.SIGTERM, lambda *_: begun.append(1))
        open(path, "w").close()
        while not begun:
            time.sleep(0.01)

    rig.function(function)
    rig.call(*[(str(tmp_path / name),) for name in ("a", "b", "c")])
    await until((tmp_path / "a").exists)
    rig.pool.kill(1, 15.0)
    assert await rig.event(ExecutorStopped) == ExecutorStopped(1)
    assert not (tmp_path / "b").exists()


async def test_grace_is_cut_short_by_a_kill(rig, tmp_path):
    await rig.ready()
    rig.function(stubborn)
    rig.call((str(tmp_path / "started"),))
    await until((tmp_path / "started").exists)
    rig.pool.kill(1, 60.0)
    rig.pool.kill(1)
    await until(lambda: not rig.work_directories)
    assert rig.events == []


async def test_a_forbidden_run_does_not_begin(rig, tmp_path):
    await rig.ready()
    gate = tmp_path / "gate"

    def function(path, gate):
        import os
        import time

        open(path, "w").close()
        while not os.path.exists(gate):
            time.sleep(0.001)

    rig.function(function)
    runs = rig.call(*[(str(tmp_path / name), str(gate)) for name in ("a", "b", "c")])
    await until((tmp_path / "a").exists)
    rig.pool.forbid(1, runs[0].key)  # too late: nothing is said
    rig.pool.forbid(1, (1, 99, 1))
    rig.pool.forbid(1, runs[1].key)
    assert await rig.event(RunKept) == RunKept(1, runs[1].key)
    gate.touch()
    assert [result.key for result in await rig.results(1)] == [runs[0].key]
    lost = await rig.event(ExecutorLost)
    assert (lost.executor, lost.running) == (1, None)
    assert not (tmp_path / "b").exists()


async def test_an_executor_goes_on_if_the_forbidden_run_has_begun(rig, tmp_path):
    await rig.ready()
    gate = tmp_path / "gate"

    def function(path, gate):
        import os
        import time

        open(path, "w").close()
        while not os.path.exists(gate):
            time.sleep(0.001)

    rig.function(function)
    runs = rig.call(*[(str(tmp_path / name), str(gate)) for name in ("a", "b")])
    await until((tmp_path / "a").exists)
    rig.pool.forbid(1, runs[0].key)
    await asyncio.sleep(0.1)
    gate.touch()
    assert [result.key for result in await rig.results(2)] == [run.key for run in runs]


async def test_what_runs_with_a_memory_request_is_watched(rig, tmp_path):
    await rig.ready()
    rig.function(stubborn)
    data = {**PLAIN, "name": "large", "resources": {"memory": 1000}}
    (run,) = rig.call((str(tmp_path / "started"),), data=data, template=3)
    await until((tmp_path / "started").exists)
    ((key, pid, allowed),) = rig.pool.watched()
    assert (key, allowed) == (run.key, 1000)
    assert pid in {child.pid for child in psutil.Process().children()}


async def test_environment_and_files(rig, monkeypatch):
    monkeypatch.setenv("RAIN_TOKEN", "secret")
    monkeypatch.setenv("RAIN_TOKEN_FILE", "secret")
    monkeypatch.setenv("REMOVED", "x")
    await rig.ready(number=5, env=(("ADDED", "1"), ("REMOVED", None)))

    def function():
        import os
        import sys

        print("out", end="")
        print("err", end="", file=sys.stderr)
        return dict(os.environ), os.getcwd(), os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid(), sys.path[0]

    rig.function(function)
    rig.call((), executor=5)
    (result,) = await rig.results(1)
    environment, cwd, leads_group, leads_session, first = decode_value(result.outputs[0][2], "pickle5")
    directory = Path(environment["RAIN_EXECUTOR_SOCKET"]).parent
    assert directory.parent == rig.root / "work/executors/work"
    assert directory.name.startswith("5.")
    assert environment["RAIN_EXECUTOR_SOCKET"] == environment["RAIN_SUBWORKER_SOCKET"] == f"{directory}/socket"
    assert environment["RAIN_EXECUTOR_ID"] == environment["RAIN_SUBWORKER_ID"] == "5"
    assert environment["ADDED"] == "1"
    assert not {"REMOVED", "RAIN_TOKEN", "RAIN_TOKEN_FILE"} & set(environment)
    assert (leads_group, leads_session) == (True, True)
    assert cwd == str(directory / "task")
    assert first != str(directory)
    assert (rig.root / "log/executors/executor-5.out").read_text() == "out"
    assert (rig.root / "log/executors/executor-5.err").read_text() == "err"


async def test_long_work_directories(tmp_path):
    root = tmp_path / ("d" * 100) / ("e" * 100)
    root.mkdir(parents=True)
    with no_leaks():
        rig = await Rig(root).ready()
        await rig.pool.close()
        rig.store.close()


async def test_large_batches_are_sent_in_pieces(rig):
    await rig.ready()
    rig.function(lambda data: len(data))
    rig.call(*[(bytes(60_000),)] * 500)
    assert len(await rig.results(500)) == 500


async def test_an_input_that_is_not_in_the_store_is_told(rig):
    await rig.ready()
    rig.call(())
    assert (await rig.event(StoreFailed)).object == FUNCTION
    (result,) = await rig.results(1)
    assert "was not sent" in result.failure.message


async def test_unknown_types_and_programs(tmp_path):
    rig = Rig(tmp_path, commands={"bad": ["/no/such/program"]})
    rig.pool.start(1, "x", ())
    assert (await rig.event(ExecutorLost)).failure.message == "Executor 'x' is not registered"
    rig.pool.start(2, "bad", ())
    assert "Executor 'bad' cannot be started: [Errno 2]" in (await rig.event(ExecutorLost)).failure.message
    assert rig.work_directories == []
    await rig.pool.close()
    rig.store.close()


async def test_an_executor_that_exits_before_it_registers(scripted):
    rig = scripted("import sys; print('o' * 1000); print('wrong', file=sys.stderr); sys.exit(4)")
    rig.pool.start(1, "py", ())
    lost = await rig.event(ExecutorLost)
    assert lost.running is None
    message = lost.failure.message
    assert message.startswith("Executor unexpectedly terminated with exit code 4\n")
    assert "\nContent of stdout (last 600 bytes):\nooo" in message
    assert message.endswith("Content of stderr (last 6 bytes):\nwrong\n")


async def test_an_executor_that_never_registers(scripted):
    rig = scripted("import time; print('hello', flush=True); time.sleep(100)", register_timeout=0.5)
    rig.pool.start(1, "py", ())
    message = (await rig.event(ExecutorLost)).failure.message
    assert message.startswith("Executor did not register within 0.5 s\nContent of stdout (last ")


FOREIGN = """
import os, socket, struct, sys, time
import msgpack
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["RAIN_EXECUTOR_SOCKET"])
def send(message):
    raw(msgpack.packb(message))
def raw(data):
    s.sendall(struct.pack("<I", len(data)) + data)
def receive():
    (length,) = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))
    return msgpack.unpackb(s.recv(length, socket.MSG_WAITALL))
def register(protocol="rain-py-1", type="py"):
    send(["register", {"protocol": protocol, "executor_id": 1, "executor_type": type}])
"""


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (
            "register('msgpack-7')",
            "protocol 'msgpack-7' and type 'py', expected were protocol 'msgpack-1' or 'rain-py-1'",
        ),
        ("register('cbor-1')", "by MessagePack with protocol 'cbor-1'"),
        ("register(type='other')", "type 'other'"),
        ("raw(b'\\x82garbage')", "CBOR"),
        ("send(['hello', {}])", "not 'register'"),
        ("raw(b'')", "CBOR"),
        ("s.sendall(b'\\xff' * 8)", "exceeds the limit"),
    ],
)
async def test_wrong_registrations(scripted, first, expected):
    rig = scripted(f"{FOREIGN}\n{first}\ntime.sleep(100)")
    rig.pool.start(1, "py", ())
    lost = await rig.event(ExecutorLost)
    assert lost.running is None
    assert lost.failure.message.startswith("Registration of the executor refused: ")
    assert expected in lost.failure.message


@pytest.mark.parametrize(
    ("answer", "defect"),
    [
        ("raw(b'\\xc1')", "not MessagePack"),
        ("raw(msgpack.packb(5))", "not a list"),
        ("send(['other'])", "unknown message 'other'"),
        ("send(['results', 5, []])", "does not have its lists"),
        ("send(['results', [], [1]])", "cached object"),
        ("send(['results', [[101, 9, 0.0, 0.0, None, []]], []])", "task 101, run 9; due was task 101, run 1"),
        ("send(['results', [[7, 1, 0.0, 0.0, None, []]], []])", "due was task 101, run 1"),
        ("send(['results', [[101, 1, 0.0, 0.0, None, []]], []])", "0 outputs of task 101, which has 1"),
        ("send(['results', [[101, 1, 0.0, 0.0, None, [[b'', None]]]], []])", "an output is not a list of"),
        ("send(['results', [[101, 1, 0.0, 0.0, {'kind': 'task', 'strange': 1}]], []])", "wrong form"),
        ("send(['results', [[101, 1, 0.0, 0.0, None, [['/etc/passwd', None, 1]]]], []])", "outside of the executor's"),
        ("send(['results', [[101, 1, 0.0, 0.0, None, [[77, None, 1]]]], []])", "no input of task 101"),
        ("send(['results', [[101, 1, 0.0, 0.0, None, [[1.5, None, 1]]]], []])", "a value of type 'float'"),
        ("s.sendall(b'\\xff' * 8)", "exceeds the limit"),
    ],
)
async def test_malformed_messages_blame_the_running_task(scripted, answer, defect):
    rig = scripted(f"{FOREIGN}\nregister()\nreceive()\nreceive()\n{answer}\ntime.sleep(100)")
    await rig.ready()
    rig.function(lambda: 0)
    runs = rig.call((), ())
    lost = await rig.event(ExecutorLost)
    assert lost.running == runs[0].key
    assert lost.failure.message.startswith("Malformed message from the executor: ")
    assert defect in lost.failure.message


async def test_results_before_a_malformed_one_count(scripted):
    row = "[101, 1, 1.0, 0.5, None, [[b'v', None, 1]]]"
    rig = scripted(f"{FOREIGN}\nregister()\nreceive()\nreceive()\nsend(['results', [{row}, 5], []])\ntime.sleep(100)")
    await rig.ready()
    rig.function(lambda: 0)
    runs = rig.call((), ())
    (result,) = await rig.results(1)
    assert result == RunResult(runs[0].key, 1.0, 0.5, None, [(1, None, b"v")])
    assert (await rig.event(ExecutorLost)).running == runs[1].key


async def test_a_closed_connection_ends_the_process(scripted):
    rig = scripted(f"{FOREIGN}\nregister()\nreceive()\ns.close()\ntime.sleep(100)")
    await rig.ready()
    lost = await rig.event(ExecutorLost)
    assert "signal 9 (SIGKILL)" in lost.failure.message


async def test_an_executor_that_does_not_read_does_not_block_the_loop(scripted):
    rig = scripted(f"{FOREIGN}\nregister()\nreceive()\ntime.sleep(100)")
    await rig.ready()
    rig.function(lambda: 0)
    rig.call(*[(bytes(60_000),)] * 100)
    rig.pool.kill(1)


async def test_an_executor_that_was_started_before_is_used_for_its_number(tmp_path):
    with no_leaks():
        for name in ("work/executors/work", "log/executors"):
            (tmp_path / name).mkdir(parents=True)
        first = ExecutorProcess(
            1, python_command(), (), work=tmp_path / "work/executors/work", logs=tmp_path / "log/executors"
        )
        rig = Rig(tmp_path, first=first)
        await rig.ready(2)
        assert rig.pool.processes()[2] is not first
        await rig.ready(1)
        assert rig.pool.processes()[1] is first
        await rig.pool.close()
        rig.store.close()


async def test_one_that_was_never_used_ends_too(tmp_path):
    with no_leaks():
        for name in ("work/executors/work", "log/executors"):
            (tmp_path / name).mkdir(parents=True)
        first = ExecutorProcess(
            1, python_command(), (), work=tmp_path / "work/executors/work", logs=tmp_path / "log/executors"
        )
        rig = Rig(tmp_path, first=first)
        await rig.pool.close()
        rig.store.close()
        assert not first.directory.exists()
