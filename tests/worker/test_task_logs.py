"""What tasks wrote: ranges of the logs of executors, ends of what programs wrote, and reading both."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rain.common.comm import FrameError
from rain.protocol.messages import ReadTaskLog, TaskLogRead
from rain.worker.core.actions import Run
from rain.worker.core.events import ExecutorLost, ExecutorStopped, RunResult
from rain.worker.task_logs import KEPT_OF_PROGRAM, LONGEST_ANSWER, TaskLogs, UnderWay
from tests.worker.builtin_rig import Rig as Programs
from tests.worker.test_executors import FOREIGN, Rig as Executors, no_leaks, script, until
from tests.worker.test_foreign_executors import SPEAKER
from tests.worker.test_programs import shell


def run(task: int, attempt: int = 1, members: int = 0, session: int = 1) -> Run:
    return Run((session, task, attempt), 0, {}, None, (), (), members=members)


def ask(task: int, stream: str = "stdout", offset: int = 0, limit: int = 1 << 20, session: int = 1) -> ReadTaskLog:
    return ReadTaskLog(9, session, task, stream, offset, limit)


def read(logs: TaskLogs, task: int, stream: str = "stdout", under_way: UnderWay | None = None, **more: Any) -> Any:
    answer = logs.read(ask(task, stream, **more), under_way)
    assert isinstance(answer, TaskLogRead)
    assert answer.seq == 9
    assert answer.offset + len(answer.data) <= answer.size
    return answer


class TestRanges:
    """Without executors."""

    @pytest.fixture
    def logs(self, tmp_path: Path) -> TaskLogs:
        logs = TaskLogs(tmp_path)
        (tmp_path / "executors").mkdir()
        (tmp_path / "executors/executor-3.out").write_bytes(b"0123456789")
        (tmp_path / "executors/executor-3.err").write_bytes(b"abcdefghij")
        return logs

    def test_of_tasks(self, logs: TaskLogs) -> None:
        due = [run(1), run(2), run(5, 2), run(6)]
        ends = logs.executor_wrote(3, due, [[1, 1, 0, 4, 0, 0], [5, 2, 4, 4, 1, 5]])
        assert ends == (4, 5)
        assert read(logs, 1) == TaskLogRead(9, b"0123", 0, 4, True, "")
        assert read(logs, 1, offset=2, limit=1) == TaskLogRead(9, b"2", 2, 4, True, "")
        assert read(logs, 1, offset=9) == TaskLogRead(9, b"", 4, 4, True, "")
        assert read(logs, 5, "stderr").data == b"bcde"
        assert read(logs, 5).hint == "the task wrote nothing to stdout"
        assert read(logs, 2) == TaskLogRead(9, b"", 0, 0, True, "the task wrote nothing")
        assert read(logs, 1, session=2).hint == "the task wrote nothing"

    def test_of_members(self, logs: TaskLogs) -> None:
        logs.executor_wrote(3, [run(1), run(10, 1, members=5)], [[11, 1, 0, 1, 0, 0], [14, 1, 1, 3, 0, 0]])
        assert [read(logs, number).data for number in range(10, 15)] == [b"", b"0", b"", b"", b"12"]

    def test_the_last_run_counts(self, logs: TaskLogs) -> None:
        logs.executor_wrote(3, [run(1)], [[1, 1, 0, 1, 0, 0]])
        logs.executor_wrote(3, [run(1, 2)], [[1, 2, 5, 7, 0, 0]])
        assert read(logs, 1).data == b"56"

    @pytest.mark.parametrize(
        "written", [[2, 1, 0, 1, 0, 0], [1, 2, 0, 1, 0, 0], [15, 1, 0, 1, 0, 0], [9, 1, 0, 1, 0, 0]]
    )
    def test_of_runs_that_are_not_due(self, logs: TaskLogs, written: list[int]) -> None:
        with pytest.raises(FrameError, match="which is not due"):
            logs.executor_wrote(3, [run(1), run(10, 1, members=5)], [written])

    def test_not_in_order(self, logs: TaskLogs) -> None:
        with pytest.raises(FrameError, match="which is not due"):
            logs.executor_wrote(3, [run(1), run(2)], [[2, 1, 0, 1, 0, 0], [1, 1, 1, 2, 0, 0]])

    def test_no_more_than_so_many(self, tmp_path: Path) -> None:
        logs = TaskLogs(tmp_path, runs=20)
        for number in range(50):
            logs.executor_wrote(3, [run(number)], [[number, 1, 0, 1, 0, 0]])
        known = [number for number in range(50) if "so long ago" not in read(logs, number).hint]
        assert known == list(range(50 - len(known), 50))
        assert 18 <= len(known) <= 20
        assert read(logs, 0).hint == "the task wrote nothing, or so long ago that it is not kept"

    def test_long_ones_come_in_parts(self, logs: TaskLogs, tmp_path: Path) -> None:
        data = os.urandom(LONGEST_ANSWER + 1000)
        (tmp_path / "executors/executor-3.out").write_bytes(b"x" + data)
        logs.executor_wrote(3, [run(1)], [[1, 1, 1, 1 + len(data), 0, 0]])
        first = read(logs, 1)
        assert (first.data, first.size) == (data[:LONGEST_ANSWER], len(data))
        assert read(logs, 1, offset=LONGEST_ANSWER).data == data[LONGEST_ANSWER:]

    def test_the_log_is_gone(self, logs: TaskLogs, tmp_path: Path) -> None:
        logs.executor_wrote(3, [run(1)], [[1, 1, 0, 4, 0, 0]])
        (tmp_path / "executors/executor-3.out").unlink()
        assert "cannot be read: [Errno 2] No such file" in read(logs, 1).hint

    def test_something_else_is_in_its_place(self, logs: TaskLogs, tmp_path: Path) -> None:
        logs.executor_wrote(3, [run(1)], [[1, 1, 0, 4, 0, 0]])
        path = tmp_path / "executors/executor-3.out"
        path.unlink()
        os.mkfifo(path)
        assert "it is not a file any more" in read(logs, 1).hint

    def test_one_that_runs(self, logs: TaskLogs) -> None:
        assert read(logs, 1, under_way=UnderWay(3, (6, 10), False)) == TaskLogRead(9, b"6789", 0, 4, False, "")
        quiet = read(logs, 1, "stderr", under_way=UnderWay(3, (6, 10), False))
        assert quiet == TaskLogRead(9, b"", 0, 0, False, "the task has written nothing so far to stderr")
        assert "members of a block" in read(logs, 1, under_way=UnderWay(3, (6, 10), True)).hint

    def test_the_next_server_knows_other_tasks(self, logs: TaskLogs) -> None:
        logs.executor_wrote(3, [run(1)], [[1, 1, 0, 4, 0, 0]])
        logs.forget()
        assert read(logs, 1).hint == "the task wrote nothing"


class TestExecutors:
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[Executors]:
        with no_leaks():
            rig = Executors(tmp_path)
            yield rig
            await rig.pool.close()
            rig.store.close()

    def text(self, rig: Executors, one: Run, stream: str = "stdout", member: int = 0) -> Any:
        """What is read of a run now."""
        session, task, _ = one.key
        task += member
        return read(rig.task_logs, task, stream, rig.pool.under_way(session, task))

    async def test_a_batch(self, rig: Executors) -> None:
        await rig.ready()
        rig.function(lambda n: print("task", n) if n % 2 else None)
        runs = rig.call((0,), (1,), (2,), (3,))
        await rig.results(4)
        assert [self.text(rig, one).data for one in runs] == [b"", b"task 1\n", b"", b"task 3\n"]

    async def test_while_it_runs(self, rig: Executors, tmp_path: Path) -> None:
        go = str(tmp_path / "go")

        def work(number: int) -> None:
            print("before", number)
            while number and not os.path.exists(go):
                time.sleep(0.001)
            print("after", number, file=sys.stderr)

        await rig.ready()
        rig.function(work)
        quick, slow, later = rig.call((0,), (1,), (0,))
        await rig.results(1)
        await until(lambda: self.text(rig, slow).data == b"before 1\n")
        assert not self.text(rig, slow).ended
        assert self.text(rig, quick).data == b"before 0\n"
        assert self.text(rig, later).hint == "the task wrote nothing"
        assert rig.pool.conditions() == {"busy": 1}
        os.mkdir(go)
        await rig.results(2)
        assert self.text(rig, slow).ended
        assert self.text(rig, slow, "stderr").data == b"after 1\n"
        assert rig.pool.conditions() == {"idle": 1}

    async def test_a_block(self, rig: Executors) -> None:
        await rig.ready()
        rig.function(lambda n: print("member", n) if n % 4 == 1 else None)
        one = rig.block([(n,) for n in range(10)])
        await rig.results(1)
        wrote = [self.text(rig, one, member=n).data for n in range(10)]
        assert wrote == [f"member {n}\n".encode() if n % 4 == 1 else b"" for n in range(10)]

    async def test_a_block_that_runs(self, rig: Executors) -> None:
        await rig.ready()
        rig.function(lambda n: print("member", n) or time.sleep(60 * n))
        one = rig.block([(0,), (1,)])
        await until(lambda: self.text(rig, one, member=1).data == b"member 0\nmember 1\n")
        assert "members of a block" in self.text(rig, one).hint
        assert rig.pool.under_way(1, one.key[1] + 2) is None
        rig.pool.kill(1)
        await until(lambda: rig.pool.conditions() == {})
        assert self.text(rig, one).ended

    async def test_one_that_crashes(self, rig: Executors) -> None:
        await rig.ready()
        rig.function(lambda n: print("task", n) or (n and (time.sleep(0.2), os._exit(3))))
        runs = rig.call((0,), (1,), (0,))
        await rig.results(1)
        lost = await rig.event(ExecutorLost)
        assert lost.running == runs[1].key
        await until(lambda: not rig.work_directories)
        assert [self.text(rig, one).data for one in runs] == [b"task 0\n", b"task 1\n", b""]

    @pytest.mark.parametrize("grace", [0.0, 5.0])
    async def test_one_that_is_killed(self, rig: Executors, grace: float) -> None:
        def work() -> None:
            print("begun")
            try:
                time.sleep(60)
            finally:
                print("ended")

        await rig.ready()
        rig.function(work)
        (one,) = rig.call(())
        await until(lambda: self.text(rig, one).data == b"begun\n")
        rig.pool.kill(1, grace)
        if grace:
            assert rig.pool.conditions() == {"stopping": 1}
            await rig.event(ExecutorStopped)
        await until(lambda: not rig.work_directories)
        answer = self.text(rig, one)
        assert (answer.data, answer.ended) == (b"begun\n", True)

    @pytest.mark.parametrize(
        "written", ["5", "[5]", "[[101, 1, 0, 1, 0]]", "[[101, 1, 0, 1, 0, 1.5]]", "[[101, 1, 2, 1, 0, 0]]",
                    "[[101, 1, -1, 1, 0, 0]]", "[[101, 1, 0, 1, 0, 1 << 62]]", "[[7, 1, 0, 1, 0, 1]]",
                    "[[101, 1, 0, 1, 0, 0]], 5"]
    )  # fmt: skip
    async def test_lies(self, tmp_path: Path, written: str) -> None:
        with no_leaks():
            text = f"{FOREIGN}\nregister()\nreceive()\nreceive()\nsend(['results', [], [], {written}])\ntime.sleep(100)"
            rig = await Executors(tmp_path, commands={"py": script(tmp_path, text)}).ready()
            rig.function(lambda: 0)
            rig.call(())
            lost = await rig.event(ExecutorLost)
            assert lost.failure.message.startswith("Malformed message from the executor: ")
            await rig.pool.close()
            rig.store.close()

    async def test_executors_that_know_no_tasks(self, tmp_path: Path) -> None:
        program = f"""{SPEAKER}
print("before the first", flush=True)
register()
for number in range(3):
    data = call()
    if number != 1:
        print("call", number, flush=True)
    answer(data)
data = call()
print("the last", file=sys.stderr, flush=True)
time.sleep(100)
"""
        with no_leaks():
            rig = await Executors(tmp_path, commands={"x": script(tmp_path, program)}).ready(kind="x")
            runs = [Run((1, number, 1), 0, {"task_type": "x/"}, None, (), ()) for number in range(1, 5)]
            rig.pool.call(1, runs)
            results = await rig.results(3)
            assert all(isinstance(result, RunResult) for result in results)
            await until(lambda: self.text(rig, runs[3], "stderr").data == b"the last\n")
            assert [self.text(rig, one).data for one in runs] == [b"call 0\n", b"", b"call 2\n", b""]
            assert not self.text(rig, runs[3]).ended
            await rig.pool.close()
            rig.store.close()


class TestPrograms:
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[Programs]:
        rig = Programs(tmp_path)
        yield rig
        await rig.close()

    async def wrote(self, rig: Programs, command: str, outputs: tuple[str, ...] = ()) -> Run:
        """A program that has run."""
        one = rig.start("!run", [], config=shell(command, outputs=list(outputs)), outputs=["blob"] * len(outputs))
        await rig.end()
        return one

    async def test_both_streams(self, rig: Programs) -> None:
        one = await self.wrote(rig, "echo out; echo error >&2")
        assert read(rig.task_logs, one.key[1]) == TaskLogRead(9, b"out\n", 0, 4, True, "")
        assert read(rig.task_logs, one.key[1], "stderr").data == b"error\n"

    async def test_only_one(self, rig: Programs) -> None:
        one = await self.wrote(rig, "echo error >&2")
        assert read(rig.task_logs, one.key[1]).hint == "the program wrote nothing to stdout"
        assert read(rig.task_logs, one.key[1], "stderr").data == b"error\n"

    async def test_nothing(self, rig: Programs, tmp_path: Path) -> None:
        one = await self.wrote(rig, "true")
        assert read(rig.task_logs, one.key[1]).hint == "the task wrote nothing"
        assert list((tmp_path / "log/programs").iterdir()) == []

    async def test_outputs(self, rig: Programs) -> None:
        one = await self.wrote(rig, "echo out; echo error >&2", ("+out",))
        assert "stdout of the program is an output of the task" in read(rig.task_logs, one.key[1]).hint
        assert read(rig.task_logs, one.key[1], "stderr").data == b"error\n"

    async def test_outputs_of_programs_that_fail(self, rig: Programs) -> None:
        one = await self.wrote(rig, "echo out; exit 3", ("+out",))
        assert read(rig.task_logs, one.key[1]).data == b"out\n"

    async def test_long_ones(self, rig: Programs, tmp_path: Path) -> None:
        one = await self.wrote(rig, "seq 1 30000")
        whole = "".join(f"{n}\n" for n in range(1, 30001)).encode()
        answer = read(rig.task_logs, one.key[1])
        assert (answer.offset, answer.size) == (len(whole) - KEPT_OF_PROGRAM, len(whole))
        assert answer.data == whole[-KEPT_OF_PROGRAM:]
        assert answer.hint == "only the last 65,536 bytes are kept"
        end = read(rig.task_logs, one.key[1], offset=len(whole) - 10)
        assert (end.data, end.hint) == (whole[-10:], "")
        (kept,) = (tmp_path / "log/programs").iterdir()
        assert kept.stat().st_size == KEPT_OF_PROGRAM

    async def test_while_it_runs(self, rig: Programs) -> None:
        one = rig.start("!run", [], config=shell("echo begun; sleep 60", outputs=["+out"]))
        await until(lambda: read(rig.task_logs, one.key[1]).data == b"begun\n")
        assert not read(rig.task_logs, one.key[1]).ended
        rig.builtins.stop(one.key)
        await until(lambda: read(rig.task_logs, one.key[1]).ended)
        assert read(rig.task_logs, one.key[1]).data == b"begun\n"

    @pytest.mark.parametrize("place", ["ln -s /etc/passwd +out", "mkfifo +out", "mkdir +out", "true"])
    async def test_something_else_in_its_place(
        self, rig: Programs, place: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = await self.wrote(rig, f"echo out; rm +out; {place}")
        assert read(rig.task_logs, one.key[1]).data == b""
        assert (place == "mkfifo +out") != ("stdout is not kept" in caplog.text)

    async def test_the_second_run_counts(self, rig: Programs) -> None:
        one = await self.wrote(rig, "echo first; echo error >&2; false")
        again = Run((1, one.key[1], 2), 0, one.template_data, one.args, (), ())
        assert again.args is not None
        again.args = again.args.replace(b"first", b"2nd! ").replace(b">&2; false", b"; true    ")
        rig.builtins.run(again)
        await rig.end()
        assert read(rig.task_logs, one.key[1]).data == b"2nd!\nerror\n"
        assert read(rig.task_logs, one.key[1], "stderr").data == b""

    async def test_no_more_than_so_many(self, tmp_path: Path) -> None:
        logs = TaskLogs(tmp_path, programs=3)
        sandbox = tmp_path / "sandbox"
        sandbox.mkdir()
        (sandbox / "+out").write_bytes(b"out")
        (sandbox / "+err").write_bytes(b"")
        for number in range(5):
            logs.program_started((1, number, 1), str(sandbox))
            logs.program_ended((1, number, 1))
        assert [read(logs, number).data for number in range(5)] == [b"", b"", b"out", b"out", b"out"]
        assert "so long ago" in read(logs, 0).hint
        kept = tmp_path / "programs"
        assert sorted(path.name for path in kept.iterdir()) == ["1-2.out", "1-3.out", "1-4.out"]
        logs.forget()
        assert list(kept.iterdir()) == []
        logs.program_ended((1, 4, 1))
        assert read(logs, 4).hint == "the task wrote nothing"

    def test_what_a_worker_before_this_one_left(self, tmp_path: Path) -> None:
        kept = tmp_path / "programs"
        kept.mkdir()
        (kept / "1-2.out").touch()
        (kept / "somebody's").touch()
        TaskLogs(tmp_path)
        assert [path.name for path in kept.iterdir()] == ["somebody's"]
