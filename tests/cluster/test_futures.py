"""Plain functions, task arrays, futures, failure policy and cancelling, with real processes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from rain.client import (
    Client,
    DataObject,
    LocalCluster,
    RainException,
    RainTimeoutError,
    Session,
    Task,
    TaskCancelled,
    TaskException,
    as_completed,
    blob,
    delayed,
    gather,
    tasks,
)
from rain.executor.context import get_context


class Failed(Exception):
    """An error of this module, which no worker can import."""


def helper(value: int) -> int:
    return value * value


def square(value: int) -> int:
    return helper(value)


def pause(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def when_there(path: str, value: Any) -> Any:
    while not os.path.exists(path):
        time.sleep(0.01)
    return value


def fail_at(value: int, bad: int) -> int:
    if value == bad:
        raise Failed(f"no {value}")
    return value


def factorial(n: int) -> int:
    return n * factorial(n - 1) if n > 1 else 1


@delayed
def add(a: Any, b: Any) -> Any:
    return a + b


@delayed
def total(values: list[int]) -> int:
    return sum(values)


def until(condition: Callable[[], Any], limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    with client.new_session() as session:
        yield session


@pytest.fixture
def careful(client: Client) -> Iterator[Session]:
    with client.new_session(on_failure="continue") as session:
        yield session


# --- delayed ----------------------------------------------------------------------------------------


def test_values_of_all_kinds(session: Session) -> None:
    numpy = pytest.importorskip("numpy")
    echo = delayed(lambda value: value)
    values = [1, 1.5, True, None, "ü", b"raw", (1, [2, {3}]), {"a": None}, 1 << 80, Failed("x")]
    made = [echo(value) for value in values]
    results = gather(made)
    assert results[:-1] == values[:-1]
    assert [type(value) for value in results] == [type(value) for value in values]
    assert echo(bytearray(b"x")).result() == b"x"
    array = numpy.arange(1 << 17)
    task = echo(array)
    doubled = add(task, task)
    assert (doubled.result() == array + array).all()
    assert not task.result().flags.writeable
    assert delayed(lambda: 5, outputs=0)().result() is None
    assert delayed(lambda: (1, "b"), outputs=2)().result() == [1, "b"]
    assert delayed(lambda data: data + b"!")(blob(b"raw")).result() == b"raw!"
    assert delayed(lambda: get_context().spec.name).options(name="me")().result() == "me"
    assert delayed(factorial)(20).result() == factorial(20)


def test_a_graph_of_calls(session: Session) -> None:
    leaves = [delayed(square)(n) for n in range(20)]
    pairs = [add(a, b) for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
    nested = total([*pairs, 1000])
    assert nested.result() == sum(n * n for n in range(20)) + 1000
    value = leaves[3]
    for _ in range(50):
        value = add(value, 1)
    assert value.result() == 59
    assert leaves[0].info is None


def test_large_arguments(session: Session) -> None:
    text, data = "text" * 50_000, os.urandom(3 << 20)
    length = delayed(len)
    assert gather(length(text), length(data), length([data, text])) == [len(text), len(data), 2]
    assert add(data, b"").result() == data
    assert len(session._static_data) == 2 + 3


def test_errors_name_the_call(session: Session) -> None:
    task = delayed(fail_at)(3, 3)  # the line the error must name
    with pytest.raises(TaskException, match="no 3") as caught:
        task.result()
    assert "# the line the error must name" in str(caught.value)
    assert isinstance(caught.value.cause, Failed)
    assert caught.value.task is task
    assert isinstance(task.exception(), TaskException)
    assert task.state is not None
    assert task.state.name == "failed"


def test_dropped_results_leave_the_workers(client: Client, session: Session) -> None:
    def held() -> int:
        return sum(len(entry["objects"]) for entry in client.get_server_info()["workers"])

    large = delayed(lambda n: bytes([n]) * (70 << 10))
    made = [large(n) for n in range(50)]
    array = session.map(square, range(200))
    last = add(made[0], made[1])
    assert len(gather(made)) == 50
    assert len(array.result()) == 200
    assert len(last.result()) == 140 << 10
    number = last.id.id
    assert held() >= 50  # small values of arrays and loops are at the server
    del made, array
    gc.collect()
    until(lambda: held() < 20)
    assert len(last.result()) == 140 << 10
    del last
    gc.collect()
    until(lambda: session._find(number) is None)
    assert session.counts()["finished"] == 251


# --- arrays -----------------------------------------------------------------------------------------


def test_map(session: Session) -> None:
    made = session.map(square, range(20_000))
    assert made.result() == [n * n for n in range(20_000)]
    assert made.done()
    assert made.counts() == {"finished": 20_000}
    assert made[77].result() == 77 * 77
    made.wait()
    assert made[5].state is not None
    assert made[5].state.name == "finished"
    assert total(made).result() == sum(n * n for n in range(20_000))
    sums = session.map(add, made, made)
    assert sums.result()[-1] == 2 * 19_999 * 19_999
    assert session.map(add, ["a", "b"], [add("x", "y"), "z"]).result() == ["axy", "bz"]
    member = made[1]
    member.update()
    assert member.info is not None
    assert member.info.attempts == 1


def test_members_of_all_kinds(session: Session) -> None:
    """Values that ride in the reports of blocks, and such that do not, in one array, of one function."""
    kinds: list[Callable[[int], Any]] = [
        lambda n: n,
        str,
        lambda n: b"%d" % n,
        lambda n: None,
        lambda n: [n, {"n": n}],
        lambda n: bytes([n % 256]) * (70 << 10),
    ]

    def make(n: int) -> Any:
        return kinds[0 if n % 50 else n // 50 % len(kinds)](n)

    wanted = [make(n) for n in range(2000)]
    made = session.map(make, range(2000))
    assert made.result() == wanted
    assert [made[n].result() for n in range(0, 2000, 50)] == wanted[::50]
    assert dict(enumerate(made.iter_results())) == dict(enumerate(wanted))


def test_infos_of_members(session: Session) -> None:
    def slow_once(n: int) -> int:
        if n == 700:
            time.sleep(0.3)
        return n

    made = session.map(slow_once, range(1000))
    made.result()
    members = made[690:711]
    session.update(members)
    infos = [member.info for member in members if member.info is not None]
    assert len(infos) == len(members)
    assert {info.attempts for info in infos} == {1}
    assert all(info.governor for info in infos)
    durations = [info.duration for info in infos]
    assert durations[10] >= 0.3
    assert median(durations) < 0.3
    assert all(info.start_time for info in infos)
    outputs = [member.output for member in members]
    session.update(outputs)
    assert all(output.size and output.content_type == "pickle5" for output in outputs)


def test_members_as_inputs(session: Session) -> None:
    made = session.map(square, range(1000))
    some = [add(made[n], made[999 - n]) for n in range(0, 500, 50)]
    sums = session.map(add, made, range(1000))
    array_sum = total(made)
    session.submit()
    assert gather(some) == [n * n + (999 - n) ** 2 for n in range(0, 500, 50)]
    assert sums.result() == [n * n + n for n in range(1000)]
    assert array_sum.result() == sum(n * n for n in range(1000))
    slow = session.map(lambda n: pause(0.001, n), range(1000))
    session.submit()
    late = add(slow[998], slow[1])  # while the array runs
    assert late.result() == 999
    assert total(slow).result() == sum(range(1000))
    unkept = session.map(delayed(square, keep=False), range(300))
    assert total(unkept).result() == sum(n * n for n in range(300))


def test_single_members_unkept(session: Session) -> None:
    made = session.map(square, range(500))
    made[3].output.unkeep()
    session.submit()
    assert made[4].result() == 16
    made.wait()
    outputs = [made[n].output for n in (5, 6, 7)]
    session.unkeep(outputs)
    assert [output.is_kept() for output in outputs] == [False] * 3
    assert made[8].result() == 64
    for n in (3, 6):
        with pytest.raises(RainException, match="not kept"):
            made[n].result()
    made.unkeep()
    with pytest.raises(RainException, match="not kept"):
        made.result()


def test_failing_members_and_retries(session: Session, careful: Session, tmp_path: Path) -> None:
    def fails_once(n: int) -> int:
        if n % 100 == 77:
            with open(tmp_path / str(n), "a") as file:
                file.write("x")
            if len((tmp_path / str(n)).read_text()) < 2:
                raise Failed(f"no {n}")
        return n

    made = careful.map(fails_once, range(500), retries=1)
    assert made.result() == list(range(500))
    members = [made[n] for n in (77, 78, 177)]
    careful.update(members)
    assert [member.info and member.info.attempts for member in members] == [2, 1, 2]
    bad = careful.map(fail_at, range(500), [123] * 500)
    with pytest.raises(TaskException, match="no 123") as caught:
        bad.result()
    assert caught.value.task is bad[123]
    assert bad[124].result() == 124
    careful.wait_all(check=False)
    assert bad.counts() == {"finished": 499, "failed": 1}
    hopeless = session.map(fail_at, range(500), [321] * 500)
    with pytest.raises(TaskException, match="no 321") as caught:
        hopeless.result()
    assert caught.value.task is hopeless[321]


def test_a_member_that_kills_its_executor(careful: Session) -> None:
    def dies(n: int) -> int:
        if n == 250:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    made = careful.map(dies, range(500))
    careful.submit()
    with pytest.raises(TaskException):
        made.wait()
    careful.wait_all(check=False)
    assert made.counts() == {"finished": 499, "failed": 1}
    assert made[250].exception() is not None
    assert made[499].result() == 499


def test_single_members_cancelled(careful: Session) -> None:
    made = careful.map(pause, [0.005] * 400, range(400))
    careful.submit()
    assert made[390].cancel()
    assert made[395].cancel()
    assert [made[n].result() for n in (0, 389, 391, 399)] == [0, 389, 391, 399]
    with pytest.raises(TaskCancelled):
        made[390].result()
    careful.wait_all()
    assert made.counts() == {"finished": 398, "cancelled": 2}


def test_an_array_cancelled_while_it_runs(careful: Session) -> None:
    made = careful.map(pause, [0.002] * 3000, range(3000))
    careful.submit()
    assert made[200].result() == 200
    stopped = made.cancel()
    counts = made.counts()
    assert 0 < stopped < 2999
    assert counts == {"finished": 3000 - stopped, "cancelled": stopped}
    assert made.cancel() == 0
    assert made[200].result() == 200
    assert careful.map(square, range(100)).result()[99] == 99 * 99


def test_large_results_of_arrays(session: Session) -> None:
    made = session.map(lambda n: bytes([n]) * (1 << 17), range(20))
    assert made.result() == [bytes([n]) * (1 << 17) for n in range(20)]
    middling = session.map(lambda n: bytes([n % 256]) * 30_000, range(1500))
    assert [len(value) for value in middling.result()] == [30_000] * 1500


def test_iter_results(session: Session) -> None:
    seconds = [1.0, 0.0, 0.3]
    assert list(session.map(pause, seconds, range(3)).iter_results()) == [0, 1, 2]
    assert list(session.map(pause, seconds, range(3)).iter_results(ordered=False)) == [1, 2, 0]
    with pytest.raises(RainTimeoutError):
        session.map(pause, [5]).result(timeout=0.1)


def test_arrays_cancelled_and_failed(careful: Session) -> None:
    made = careful.map(fail_at, range(6), [4] * 6)
    careful.submit()
    with pytest.raises(TaskException, match="no 4"):
        made.wait()
    with pytest.raises(TaskException, match="no 4"):
        made.result()
    values = made.iter_results()
    assert [next(values) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(TaskException, match="no 4"):
        next(values)
    assert made[5].result() == 5
    assert made.counts() == {"finished": 5, "failed": 1}
    waiting = careful.map(pause, [30] * 10)
    careful.submit()
    assert waiting.cancel() == 10
    assert waiting.done()
    with pytest.raises(TaskCancelled):
        waiting[9].result()


# --- as_completed, gather, await --------------------------------------------------------------------


def test_as_completed_over_clients(cluster: LocalCluster, client: Client, session: Session, tmp_path: Path) -> None:
    patient = delayed(when_there, cpus=0)
    with cluster.client() as other, other.new_session() as second:
        first = [patient(str(tmp_path / "1"), "second"), delayed(pause)(0.0, "first")]
        more = patient.options(session=session)(str(tmp_path / "2"), "third")
        found = []
        for task in as_completed([*first, more]):
            found.append(task.result())
            (tmp_path / str(len(found))).touch()
        assert found == ["first", "second", "third"]
        assert first[0].session is second
        assert gather({"a": first, "b": more}) == {"a": ["second", "first"], "b": "third"}
        with pytest.raises(RainTimeoutError):
            list(as_completed([delayed(pause)(5.0), more], timeout=0.2))


def test_as_completed_of_many(session: Session) -> None:
    made = session.map(square, range(3000))
    found = list(as_completed(made))
    assert len(found) == 3000
    assert [task.result() for task in found[:20]] == [(task.id.id - made[0].id.id) ** 2 for task in found[:20]]
    assert {task.id for task in found} == {task.id for task in made}


def test_the_first_failure_is_raised_at_once(client: Client, careful: Session) -> None:
    other = client.new_session()
    slow = delayed(pause).options(session=other)(1000)
    bad = delayed(fail_at)(1, 1)
    good = add(1, 1)
    with pytest.raises(TaskException, match="no 1"):
        gather(slow, bad)
    with pytest.raises(TaskException, match="no 1"):
        gather(good, bad)
    assert not slow.done()
    found = gather([good, {"bad": bad}], return_exceptions=True)
    assert found[0] == 2
    assert isinstance(found[1]["bad"], TaskException)
    assert {task.exception() is None for task in as_completed([good, bad])} == {True, False}
    other.close()


def test_await(session: Session) -> None:
    made = [delayed(pause)(0.3, n) for n in range(2)]
    large = delayed(bytes)(1 << 20)
    array = session.map(square, range(1000))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    async def main() -> None:
        counting = asyncio.create_task(count())
        assert await asyncio.gather(*made, large.output) == [0, 1, bytes(1 << 20)]
        assert await array == [n * n for n in range(1000)]
        assert [task.result() async for task in as_completed(made)]
        endless = delayed(pause)(30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endless, 0.2)
        assert not endless.done()
        assert await asyncio.to_thread(endless.cancel)
        with pytest.raises(TaskCancelled):
            await endless
        assert await add(1, 2) == 3
        counting.cancel()

    asyncio.run(main())
    assert turns > 20
    assert add(2, 2).result() == 4


def test_threads_and_awaits_share_a_connection(client: Client, session: Session) -> None:
    async def main() -> list[int]:
        awaited = [asyncio.ensure_future(_result(add(n, 1))) for n in range(30)]
        blocking = [asyncio.to_thread(_blocking, session, n) for n in range(10)]
        return list(await asyncio.gather(*awaited, *blocking))

    assert asyncio.run(main()) == [n + 1 for n in range(30)] + [2 * n for n in range(10)]


async def _result(task: Task) -> Any:
    return await task


def _blocking(session: Session, n: int) -> Any:
    return add.options(session=session)(n, n).result()


# --- failure policy ---------------------------------------------------------------------------------


def test_only_dependents_of_a_failed_task_are_aborted(careful: Session) -> None:
    good = add(1, 1)
    bad = delayed(fail_at)(1, 1)
    after = add(bad, 1)
    last = tasks.concat([after])
    last.keep_outputs()
    careful.submit()
    careful.wait_all(check=False)
    things: list[Task | DataObject] = [bad, after, last, good, after.output]
    names = [thing.state.name for thing in things if thing.state is not None]
    assert names == ["failed", "aborted", "aborted", "finished", "aborted"]
    calls: list[Callable[[], object]] = [
        careful.wait_all,
        bad.wait,
        last.wait,
        after.result,
        lambda: careful.fetch(last.output),
        lambda: careful.wait([good, last]),
    ]
    for call in calls:
        with pytest.raises(TaskException, match="no 1") as caught:
            call()
        assert caught.value.task is bad
    finished, objects = careful.wait_some([last], [good.output])
    assert (finished, objects) == ([last], [good.output])
    careful.update([bad, after, last.output])
    assert bad.info is not None
    assert "no 1" in (bad.info.error or "")
    last.unkeep_outputs()
    late = add(after, 5)
    careful.submit()
    assert late.done()
    with pytest.raises(TaskException, match="no 1"):
        late.result()
    assert add(good, 1).result() == 3
    assert careful.counts() == {"finished": 2, "failed": 1, "aborted": 3}


def test_a_failure_fails_the_whole_session_by_default(session: Session) -> None:
    good = add(1, 1)
    assert good.result() == 2
    bad = delayed(fail_at)(1, 1)
    session.submit()
    for check in (True, False):
        with pytest.raises(TaskException, match="no 1"):
            session.wait_all(check=check)
    for call in (good.result, lambda: gather(good), good.wait):
        with pytest.raises(TaskException, match="no 1"):
            call()
    assert bad.done()
    assert list(as_completed([good, bad])) == [good, bad]
    assert bad.cancel() is False
    assert session.cancel() == 0


# --- cancel -----------------------------------------------------------------------------------------


def test_waiting_tasks_are_dropped(session: Session) -> None:
    running = [delayed(pause)(30) for _ in range(2)]
    waiting = add(1, 1)
    after = add(waiting, 1)
    session.submit()
    before = time.monotonic()
    assert waiting.cancel() is True
    assert time.monotonic() - before < 15
    assert waiting.cancel() is False
    for task in (waiting, after):
        with pytest.raises(TaskCancelled) as caught:
            task.result()
        assert caught.value.task is waiting
    assert waiting.state is not None
    assert waiting.state.name == "cancelled"
    assert session.cancel() == 2
    session.wait_all()
    assert session.counts() == {"cancelled": 3, "aborted": 1}
    assert [task.state.name for task in (*running, after) if task.state] == ["cancelled"] * 2 + ["aborted"]
    late = add(after, 1)
    session.submit()
    with pytest.raises(TaskCancelled):
        late.result()
    assert add(2, 2).result() == 4


def test_running_tasks_are_stopped(session: Session, tmp_path: Path) -> None:
    task = delayed(_stubborn)(str(tmp_path))
    session.submit()
    until(lambda: (tmp_path / "pid").exists())
    pid = int((tmp_path / "pid").read_text())
    before = time.monotonic()
    with pytest.raises(RainTimeoutError):
        task.cancel(timeout=0.2)
    assert session.cancel() == 0
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert time.monotonic() - before > 1.5
    assert (tmp_path / "asked").exists()
    with pytest.raises(TaskCancelled):
        task.wait()
    session.wait_all()
    assert add(1, 1).result() == 2


def _stubborn(folder: str) -> None:
    def asked(*_: object) -> None:
        Path(folder, "asked").touch()

    signal.signal(signal.SIGTERM, asked)
    part = Path(folder, "part")
    part.write_text(str(os.getpid()))
    part.rename(Path(folder, "pid"))
    while True:
        time.sleep(1)


def test_finished_results_survive_a_cancel(session: Session) -> None:
    done = add(1, 2)
    assert done.result() == 3
    slow = delayed(pause)(30)
    session.submit()
    assert session.cancel() == 1
    assert done.result() == 3
    assert done.cancel() is False
    assert slow.done()
