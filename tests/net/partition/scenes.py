"""Scenes: what is cut and healed while a cluster works, and what must hold.

Times are those of the failure semantics: who is silent for 15 s is lost; the last sign of life may be 5 s old when a
cut begins. SOON allows for a busy machine.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from rain.client import RainConnectionError, RainTimeoutError, Session, Task, aio, blob, gather
from tests.net.partition.cluster import CLIENT, SERVER, NetCluster, await_ended, await_true, takes
from tests.net.partition.functions import linger, make, measure, work

SILENCE = 15.0
HEARTBEAT = 5.0
SOON = 5.0
ENOUGH = 60.0
"""For what has no limit of its own in the failure semantics."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Attributes:
    play: what happens, on the host of the client.
    workers: cpus of the workers by host.
    late: workers which the scene starts itself.
    reconnect_timeout: of the workers.
    delays: of packets, by host.
    """

    play: Callable[[NetCluster], None]
    workers: dict[str, int]
    late: tuple[str, ...]
    reconnect_timeout: float
    delays: dict[str, float]

    def run(self) -> None:
        """Make the cluster, play, and see that nothing is left."""
        cluster = NetCluster(self.workers, reconnect_timeout=self.reconnect_timeout, delays=self.delays)
        try:
            cluster.start(*self.late)
            with cluster.network[CLIENT].entered():
                self.play(cluster)
        except BaseException as error:
            error.add_note(cluster.story())
            raise
        finally:
            cluster.close()


SCENES: dict[str, Scene] = {}
"""By name."""


def scene(
    *,
    late: tuple[str, ...] = (),
    reconnect_timeout: float = 30.0,
    delays: dict[str, float] | None = None,
    **workers: int,
) -> Callable[[Callable[[NetCluster], None]], Callable[[NetCluster], None]]:
    """Declare a scene with these workers."""

    def add(play: Callable[[NetCluster], None]) -> Callable[[NetCluster], None]:
        SCENES[play.__name__] = Scene(play, workers, late, reconnect_timeout, delays or {})
        return play

    return add


def retries_are_frequent() -> bool:
    """Whether this kernel can be told to try again every two seconds, as Linux 6.15 can."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, 44, 2000)
        except OSError:
            return False
    return True


def submit_work(session: Session, cluster: NetCluster, names: list[str], seconds: float) -> dict[str, Task]:
    """Submit independent tasks whose results are kept."""
    made = {name: work(cluster.history, name, seconds, session=session) for name in names}
    for task in made.values():
        task.output.keep()
    session.submit()
    return made


def results(made: dict[str, Task]) -> dict[str, str]:
    """The result of each task."""
    return {name: task.output.fetch().get_str() for name, task in made.items()}


def check_tickets(cluster: NetCluster, tickets: dict[str, str]) -> None:
    """Each result is that of a run which came to its end."""
    ended = {mark.ticket for mark in cluster.marks("end")}
    assert set(tickets.values()) <= ended
    assert all(ticket.split()[2] == name for name, ticket in tickets.items())


def in_background(cluster: NetCluster, host: str, call: Callable[[], object]) -> Future[object]:
    """Call in a thread on a host."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            with cluster.network[host].entered():
                future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=f"on-{host}", daemon=True).start()
    return future


# --- between two workers --------------------------------------------------------------------------


@scene(one=1, two=1, late=("two",))
def cut_within_a_transfer(cluster: NetCluster) -> None:
    """The only holder cannot be reached by the one worker that may run the consumer: the server hands the value on."""
    size = 17_000_000
    with cluster.client() as client, client.new_session() as session:
        value = make(cluster.history, "value", size, session=session)
        value.output.keep()
        session.submit()
        session.wait_all(timeout=ENOUGH)
        cluster.start_worker("two")
        cluster.network.limit("one", "20mbit")
        consumer = measure.options(resources={"two": 1})(cluster.history, "sum", value, session=session)
        consumer.output.keep()
        session.submit()
        time.sleep(2.0)  # a third is there
        cluster.network.part("one", "two")
        session.wait([consumer], timeout=ENOUGH)
        expected = bytes(value % 251 for value in range(1000)) * (size // 1000)
        assert consumer.output.fetch().get_str() == f"{size}:{sum(expected[:: size // 1000])}"
        assert [(mark.task, mark.host) for mark in cluster.marks("start")] == [("value", "one"), ("sum", "two")]
        assert set(cluster.pids(client)) == {"one", "two"}, "nobody is lost: the server reaches both"


@scene(one=1, two=1, three=1)
def cut_between_holders(cluster: NetCluster) -> None:
    """A value of two workers comes from the one that can be reached; a client that reaches none asks the server."""
    size = 2_000_000
    with cluster.client() as client, client.new_session() as session:
        value = make.options(resources={"one": 1})(cluster.history, "value", size, session=session)
        copy = measure.options(resources={"three": 1})(cluster.history, "copy", value, session=session)
        for task in (value, copy):
            task.output.keep()
        session.submit()
        session.wait_all(timeout=ENOUGH)
        cluster.network.part("one", "two")
        cluster.network.part(CLIENT, "one")
        cluster.network.part(CLIENT, "three")
        consumer = measure.options(resources={"two": 1})(cluster.history, "sum", value, session=session)
        consumer.output.keep()
        session.submit()
        with takes(0, 20 + SOON):
            assert consumer.output.fetch().get_bytes() == copy.output.fetch().get_bytes()
        with takes(0, 2 * SOON + SOON):
            assert len(value.output.fetch().get_bytes()) == size
        with takes(0, 4):  # it knows by now
            assert value.output.fetch().get_bytes() == value.output.fetch().get_bytes()
        assert len([mark for mark in cluster.marks("start") if mark.task == "value"]) == 1


# --- a worker and the server ----------------------------------------------------------------------


def lose_a_worker(
    cluster: NetCluster, cut: Callable[[], None], heal: Callable[[], None], *, heard: bool = False
) -> None:
    """A worker is cut off for 20 s: it is lost in 15 s, its tasks run elsewhere and are stopped there; it comes back as
    a new one, and what it did meanwhile counts nothing, unless it was `heard`."""
    with cluster.client() as client, client.new_session() as session:
        early = submit_work(session, cluster, ["early-0", "early-1", "early-2"], 0.3)
        session.wait_all(timeout=ENOUGH)
        early_tickets = results(early)
        first = cluster.pids(client)
        for name in ("stuck-0", "stuck-1"):
            linger.options(resources={"seat": 1})(cluster.history, name, "one", session=session)
        made = submit_work(session, cluster, [f"task-{number}" for number in range(6)], 3.0)
        await_true(lambda: len(cluster.running("one")) == 2, ENOUGH, "work at one")
        began = time.monotonic()
        cut()
        with takes(SILENCE - HEARTBEAT - 1, SILENCE + SOON):
            cluster.await_log(SERVER, "(incarnation 1) lost", ENOUGH)
        lost = time.monotonic()
        (endless,) = cluster.running("one", "stuck-0") | cluster.running("one", "stuck-1")
        await_ended({endless}, began + SILENCE + SOON - lost)
        session.wait(list(made.values()), timeout=ENOUGH)
        tickets = results(made)
        time.sleep(max(0.0, began + 20 - time.monotonic()))
        heal()
        await_true(lambda: set(cluster.pids(client)) == {"one", "two"}, 10 + SOON, "the worker is back")
        assert cluster.pids(client) == first
        session.wait_all(timeout=ENOUGH)
        assert {mark.host for mark in cluster.marks("end") if mark.task.startswith("stuck")} == {"two"}
        assert results(made) == tickets
        assert results(early) == early_tickets
        check_tickets(cluster, tickets)
        check_tickets(cluster, early_tickets)
        cut_off = {mark.ticket for mark in cluster.marks("end", "one") if began < mark.when < lost + SOON}
        assert cut_off, "nothing was finished there meanwhile"
        assert heard or not cut_off & set(tickets.values()), "a result of the lost worker was taken"
        late = submit_work(session, cluster, [f"late-{number}" for number in range(12)], 0.3)
        session.wait_all(timeout=ENOUGH)
        assert {ticket.split()[0] for ticket in results(late).values()} == {"one", "two"}


@scene(one=2, two=2)
def worker_cut_off(cluster: NetCluster) -> None:
    """From everybody."""
    lose_a_worker(cluster, lambda: cluster.network.isolate("one"), cluster.network.heal_all)


@scene(one=2, two=2)
def worker_cut_off_from_the_server_alone(cluster: NetCluster) -> None:
    """The other worker and the client reach it all the time."""
    lose_a_worker(cluster, lambda: cluster.network.part("one", SERVER), cluster.network.heal_all)


@scene(one=2, two=2)
def worker_hears_but_is_not_heard(cluster: NetCluster) -> None:
    """One way."""
    lose_a_worker(cluster, lambda: cluster.network.cut("one", SERVER), cluster.network.heal_all)


@scene(one=2, two=2)
def worker_is_heard_but_hears_nothing(cluster: NetCluster) -> None:
    """The other way."""
    lose_a_worker(cluster, lambda: cluster.network.cut(SERVER, "one"), cluster.network.heal_all, heard=True)


@scene(one=2, two=2)
def cable_of_a_worker_out(cluster: NetCluster) -> None:
    """Its own interface says so."""
    lose_a_worker(cluster, lambda: cluster.network.unplug("one"), lambda: cluster.network.plug("one"))


@scene(one=2, two=2)
def short_cuts(cluster: NetCluster) -> None:
    """A cut of 1 s costs nothing. Then 20 s of cuts that come and go: all work ends, with the same results."""
    network = cluster.network
    with cluster.client() as client, client.new_session() as session:
        made = submit_work(session, cluster, [f"task-{number}" for number in range(24)], 0.5)
        await_true(lambda: len(cluster.marks("start", "one")) >= 2, ENOUGH, "work at one")
        network.isolate("one")
        time.sleep(1.0)
        network.heal_all()
        session.wait_all(timeout=ENOUGH)
        assert "lost" not in cluster.log(SERVER)
        assert sorted(mark.task for mark in cluster.marks("start")) == sorted(made), "something ran twice"
        check_tickets(cluster, results(made))
        parts = [make(cluster.history, f"part-{number}", 200_000, session=session) for number in range(40)]
        sums = [measure(cluster.history, f"sum-{n}", *parts[n : n + 5], session=session) for n in range(0, 40, 5)]
        slow = [
            work(cluster.history, f"slow-{number}", 0.7, *sums[number % 8 :: 8], session=session)
            for number in range(80)
        ]
        for task in (*sums, *slow):
            task.output.keep()
        session.submit()
        dice = random.Random(12)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            name = dice.choice(("one", "two"))
            (network.isolate if dice.random() < 0.7 else network.unplug)(name)
            time.sleep(dice.uniform(0.3, 2.0))
            network.heal_all()
            network.plug(name)
            time.sleep(dice.uniform(0.3, 2.0))
        session.wait_all(timeout=ENOUGH)
        assert {task.output.fetch().get_str() for task in sums} == {_sums(5, 200_000)}
        check_tickets(cluster, {f"slow-{n}": task.output.fetch().get_str() for n, task in enumerate(slow)})
        await_true(lambda: set(cluster.pids(client)) == {"one", "two"}, 10 + SOON, "both workers are there")


def _sums(count: int, size: int) -> str:
    data = bytes(value % 251 for value in range(1000)) * (size // 1000)
    return " ".join([f"{size}:{sum(data[:: size // 1000])}"] * count)


@scene(one=1, two=1)
def server_cut_off_for_a_while(cluster: NetCluster) -> None:
    """Shorter than the limit: nobody is lost, nothing runs twice, and calls go on waiting."""
    with cluster.client() as client, client.new_session() as session:
        made = submit_work(session, cluster, [f"task-{number}" for number in range(20)], 1.0)
        await_true(lambda: len(cluster.marks("start")) >= 2, ENOUGH, "both work")
        waiting = in_background(cluster, CLIENT, lambda: session.wait_all(timeout=ENOUGH))
        cluster.network.isolate(SERVER)
        time.sleep(8.0 if retries_are_frequent() else 3.0)
        cluster.network.heal_all()
        ended = len(cluster.marks("end"))
        await_true(lambda: len(cluster.marks("end")) > ended + 2, 3 + SOON, "work goes on soon")
        waiting.result(ENOUGH)
        check_tickets(cluster, results(made))
        assert "no sign of life" not in cluster.log(SERVER)
        assert sorted(mark.task for mark in cluster.marks("start")) == sorted(made)


@scene(one=1, two=1, three=1, four=1)
def cuts_as_long_as_the_limit(cluster: NetCluster) -> None:
    """Some workers are lost the moment they are heard again; none does work twice that was taken from it."""
    with cluster.client() as client, client.new_session() as session:
        made = submit_work(session, cluster, [f"task-{number}" for number in range(32)], 2.0)
        await_true(lambda: len(cluster.marks("start")) >= 4, ENOUGH, "all work")
        cuts = {"one": 10.5, "two": 12.5, "three": 14.0, "four": 15.5}
        for host in cuts:
            cluster.network.part(host, SERVER)
        began = time.monotonic()
        for host, seconds in cuts.items():
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            cluster.network.join(host, SERVER)
        session.wait_all(timeout=ENOUGH)
        check_tickets(cluster, results(made))
        lost = cluster.log(SERVER).count(") lost: ")
        assert len(cluster.marks("start")) <= len(made) + 2 * lost, (
            "each worker runs one task, and may just begin another"
        )
        await_true(lambda: set(cluster.pids(client)) == set(cuts), 10 + SOON, "all workers are there")


@scene(one=1, two=1, reconnect_timeout=3.0)
def server_unreachable_for_good(cluster: NetCluster) -> None:
    """Workers stop their tasks and end with code 3; a client learns it as soon."""
    with cluster.client() as client:
        session = client.new_session()
        submit_work(session, cluster, ["left", "right"], 100.0)
        await_true(lambda: len(cluster.marks("start")) == 2, ENOUGH, "both run")
        running = cluster.running("one") | cluster.running("two")
        began = time.monotonic()
        cluster.network.isolate(SERVER)
        with takes(SILENCE - HEARTBEAT - 1, SILENCE + SOON), pytest.raises(RainConnectionError, match=cluster.address):
            session.wait_all(timeout=ENOUGH)
        await_ended(running, SILENCE + SOON - (time.monotonic() - began))
        for host in ("one", "two"):
            left = SILENCE + 3.0 + 2 * SOON - (time.monotonic() - began)
            assert cluster.await_exit(host, left) == 3
            assert not cluster.network[host].processes()
        with takes(0, SOON + 1), pytest.raises((RainConnectionError, RainTimeoutError)):
            cluster.client(connection_timeout=5)
        cluster.network.heal_all()
        with cluster.client() as another:
            assert cluster.pids(another) == {}


# --- a client and the server ----------------------------------------------------------------------


@scene(one=2, two=2)
def client_cut_off(cluster: NetCluster) -> None:
    """Whatever it does, it learns it in 15 s; its session is closed, its tasks are stopped; other clients go on."""
    network = cluster.network
    with ExitStack() as stack:
        client, uploading = (stack.enter_context(cluster.client()) for _ in range(2))
        with network[SERVER].entered():
            steady = stack.enter_context(stack.enter_context(cluster.client()).new_session())
        session = client.new_session()
        value = make.options(resources={"one": 1})(cluster.history, "value", 8_000_000, session=session)
        value.output.keep()
        session.submit()
        session.wait_all(timeout=ENOUGH)
        waiting = submit_work(session, cluster, ["waiting"], 100.0)["waiting"]
        fine = submit_work(steady, cluster, ["fine"], 20.0)["fine"]
        await_true(lambda: cluster.running("one") | cluster.running("two"), ENOUGH, "both run")
        upload = uploading.new_session()
        measure(cluster.history, "never", blob(bytes(30_000_000), session=upload), session=upload)
        calls_in_loop = in_one_loop(cluster)
        network.limit(CLIENT, "2mbit")
        calls = {
            **calls_in_loop,
            "wait": in_background(cluster, CLIENT, lambda: waiting.wait(timeout=ENOUGH)),
            "fetch": in_background(cluster, CLIENT, value.output.fetch),
            "submit": in_background(cluster, CLIENT, upload.submit),
        }
        await_true(lambda: len(cluster.marks("start")) >= 5, ENOUGH, "all have begun")
        time.sleep(1.0)
        assert not any(call.done() for call in calls.values())
        endless = cluster.running("one", "waiting") | cluster.running("two", "waiting")
        began = time.monotonic()
        network.isolate(CLIENT)
        late = [name for name, call in calls.items() if not _fails_in_time(call, began + SILENCE + SOON)]
        assert not late, f"not within {SILENCE + SOON:g} s: {late}"
        with takes(0, 1), pytest.raises(RainConnectionError):
            session.wait_all()
        cluster.await_log(SERVER, "no sign of life for 15 s", began + SILENCE + SOON - time.monotonic())
        await_ended(endless, began + SILENCE + SOON - time.monotonic())
        network.unlimit(CLIENT)
        network.heal_all()
        with cluster.client() as another, another.new_session() as fresh:
            again = submit_work(fresh, cluster, ["again"], 0.1)
            fresh.wait_all(timeout=ENOUGH)
            check_tickets(cluster, results(again))
        with network[SERVER].entered():
            steady.wait_all(timeout=ENOUGH)
            assert fine.output.fetch().get_str().endswith(" fine")
        assert [mark.task for mark in cluster.marks("start")].count("fine") == 1


def lose_a_client(cluster: NetCluster, cut: Callable[[], None]) -> None:
    """Its call fails, its task is stopped."""
    with cluster.client() as client:
        session = client.new_session()
        submit_work(session, cluster, ["waiting"], 100.0)
        await_true(lambda: cluster.running("one"), ENOUGH, "it runs")
        running = cluster.running("one")
        began = time.monotonic()
        cut()
        with takes(SILENCE - HEARTBEAT - 1, SILENCE + SOON), pytest.raises(RainConnectionError):
            session.wait_all(timeout=ENOUGH)
        await_ended(running, began + SILENCE + SOON - time.monotonic())


@scene(one=1)
def client_is_not_heard(cluster: NetCluster) -> None:
    """One way."""
    lose_a_client(cluster, lambda: cluster.network.cut(CLIENT, SERVER))


@scene(one=1)
def client_hears_nothing(cluster: NetCluster) -> None:
    """The other way."""
    lose_a_client(cluster, lambda: cluster.network.cut(SERVER, CLIENT))


def in_one_loop(cluster: NetCluster) -> dict[str, Future[object]]:
    """What an asyncio client does at the same time: it waits, fetches and uploads."""
    futures: dict[str, Future[object]] = {name: Future() for name in ("async wait", "async fetch", "async submit")}
    ready = threading.Event()

    async def use() -> None:
        async with await aio.create_client(cluster.address, token=cluster.token) as client:
            session, upload = await client.new_session(), await client.new_session()
            value = make.options(resources={"one": 1})(cluster.history, "async-value", 8_000_000, session=session)
            value.output.keep()
            waiting = work(cluster.history, "async-waiting", 100.0, value, session=session)
            await session.submit()
            await value.wait()
            measure(cluster.history, "never", blob(bytes(30_000_000), session=upload), session=upload)
            ready.set()
            calls = waiting.wait(), value.output.fetch(), upload.submit()
            await asyncio.gather(*(settle(call, future) for call, future in zip(calls, futures.values(), strict=True)))

    async def settle(call: Awaitable[object], future: Future[object]) -> None:
        try:
            future.set_result(await call)
        except BaseException as error:
            future.set_exception(error)

    in_background(cluster, CLIENT, lambda: asyncio.run(use()))
    assert ready.wait(ENOUGH)
    return futures


def _fails_in_time(call: Future[object], end: float) -> bool:
    """Whether a call raises RainConnectionError before `end`."""
    try:
        error = call.exception(max(end - time.monotonic(), 0.001))
    except TimeoutError:
        return False
    assert isinstance(error, RainConnectionError), repr(error)
    return True


# --- slow ways ------------------------------------------------------------------------------------


@scene(one=1, two=1, delays={"one": 0.2, CLIENT: 0.2})
def long_wires(cluster: NetCluster) -> None:
    """Answers take 400 ms, between a client and the far worker 800 ms: all works, and nobody waits needlessly often."""
    size = 1_500_000
    data = bytes(value % 251 for value in range(1000)) * (size // 1000)
    with cluster.client() as client, client.new_session() as session:
        uploaded = blob(data, session=session)
        values = [
            make.options(resources={host: 1})(cluster.history, f"value-{host}", size, session=session)
            for host in ("one", "two")
        ]
        sums = [
            measure.options(resources={host: 1})(cluster.history, f"sum-{host}", uploaded, *values, session=session)
            for host in ("one", "two")
        ]
        for task in (*values, *sums):
            task.output.keep()
        session.submit()
        assert {task.output.fetch().get_str() for task in sums} == {_sums(3, size)}
        assert [task.output.fetch().get_bytes() for task in values] == [data, data]
        made = submit_work(session, cluster, [f"task-{number}" for number in range(200)], 0.01)
        session.wait_all(timeout=ENOUGH)
        with takes(0.4, 10 + SOON):
            fetched = gather(list(made.values()), timeout=ENOUGH)
        check_tickets(cluster, {name: str(value) for name, value in zip(made, fetched, strict=True)})
        assert {mark.host for mark in cluster.marks("start") if mark.task.startswith("task")} == {"one", "two"}
        with takes(0.4, SOON):
            assert set(cluster.pids(client)) == {"one", "two"}
        assert "lost" not in cluster.log(SERVER)


@scene(one=1, two=1, late=("two",))
def slow_links(cluster: NetCluster) -> None:
    """Transfers that take longer than the limit of silence: uploading, from worker to worker, and fetching. Nobody is
    taken for lost."""
    size = 5_000_000
    data = bytes(value % 251 for value in range(1000)) * (size // 1000)
    with cluster.client() as client, client.new_session() as session:
        value = make(cluster.history, "value", size, session=session)
        value.output.keep()
        session.submit()
        session.wait_all(timeout=ENOUGH)
        cluster.start_worker("two")
        for host in (CLIENT, "two"):
            cluster.network.limit(host, "2mbit")
        on_two = measure.options(resources={"two": 1})
        moved = on_two(cluster.history, "moved", value, session=session)
        moved.output.keep()
        session.submit()
        uploaded = measure(cluster.history, "uploaded", blob(data, session=session), session=session)
        uploaded.output.keep()
        with takes(SILENCE, ENOUGH):
            session.submit()
        with takes(0, ENOUGH):
            assert value.output.fetch().get_bytes() == data
        session.wait_all(timeout=ENOUGH)
        assert moved.output.fetch().get_str() == uploaded.output.fetch().get_str() == _sums(1, size)
        assert "lost" not in cluster.log(SERVER)
        assert "no sign of life" not in cluster.log(SERVER) + cluster.log("one") + cluster.log("two")
        assert set(cluster.pids(client)) == {"one", "two"}
