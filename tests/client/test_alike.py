"""Loops of delayed calls travel like task arrays (`rain.client.alike`)."""

from __future__ import annotations

import gc
import threading
from array import array
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rain.client import InputDir, Session, Task, delayed, gather, remote
from rain.client.alike import FEWEST
from rain.client.arguments import ArgumentPacker
from rain.client.client import Client
from rain.common.errors import RainException
from rain.protocol.messages import FetchObjects, SubmitBlock, SubmitChunk, UnkeepObjects
from rain.testing.fake_channel import FakeChannel
from tests.client.conftest import ScriptedServer, connected

N = FEWEST + 8


@delayed
def double(value: int) -> int:
    return 2 * value


@delayed
def add(a: int, b: int) -> int:
    return a + b


def blocks(server: ScriptedServer) -> list[SubmitBlock]:
    return server.all(SubmitBlock)


def single_tasks(server: ScriptedServer) -> list[int]:
    return [number for chunk in server.all(SubmitChunk) for number in chunk.tasks]


def test_a_loop_is_a_block(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(N)]
    session.submit()
    (block,) = blocks(server)
    assert (block.members, block.start, len(block.arg_sizes), block.keep) == (N, 0, N, True)
    assert single_tasks(server) == []
    function = calls[0]._inputs[0]
    assert list(block.inputs) == [function._number]
    assert [call.output._number for call in calls] == list(range(block.first, block.first + N))
    assert [call._number for call in calls] == list(range(block.first + N, block.first + 2 * N))
    assert all(session._find(call._number) is call for call in calls)
    assert all(session._find(call.output._number) is call.output for call in calls)
    assert [call.id.id for call in calls] == [call._number for call in calls]


def test_large_arguments_make_several_blocks(session: Session, server: ScriptedServer, monkeypatch: Any) -> None:
    monkeypatch.setattr("rain.client.submit.MAX_CHUNK", 5000)
    calls = [double("x" * 500) for _ in range(N)]
    session.submit()
    found = blocks(server)
    assert len(found) > 3
    assert {(block.first, block.members) for block in found} == {(calls[0].output._number, N)}
    starts = [block.start for block in found]
    ends = [block.start + len(block.arg_sizes) for block in found]
    assert starts == [0, *ends[:-1]]
    assert ends[-1] == N


def test_few_calls_stay_tasks(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(FEWEST - 1)]
    session.submit()
    assert not blocks(server)
    assert single_tasks(server) == [call._number for call in calls]


def test_what_others_need_stays_a_task(session: Session, server: ScriptedServer) -> None:
    leaves = [double(n) for n in range(N)]
    sums = [add(a, b) for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
    session.submit()
    assert not blocks(server)
    assert len(single_tasks(server)) == len(leaves) + len(sums)


def test_one_that_is_needed_splits_the_loop(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(2 * N + 1)]
    last = double(calls[N])
    session.submit()
    assert [block.members for block in blocks(server)] == [N, N]
    assert set(single_tasks(server)) == {calls[N]._number, last._number}
    numbers = [thing._number for call in [*calls, last] for thing in (call, call.output)]
    assert len(set(numbers)) == len(numbers)


def test_members_of_a_map_know_their_inputs(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(N)]
    session.map(double, calls)
    others = [double(n) for n in range(N)]
    session.submit()
    assert [block.first for block in blocks(server)] == [others[0].output._number]
    chunk = next(chunk for chunk in server.all(SubmitChunk) if len(chunk.inputs) == 2 * N)
    assert list(chunk.inputs[1::2]) == [call.output._number for call in calls]


def test_an_id_that_somebody_saw_stays(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(3 * N)]
    seen = calls[N].id
    output = calls[N].output.id
    session.submit()
    assert calls[N].id == seen
    assert calls[N].output.id == output
    (block,) = blocks(server)
    assert block.first == calls[N + 1].output._number
    assert block.members == 2 * N - 1


def test_edited_specs_and_other_options_stay_apart(session: Session, server: ScriptedServer) -> None:
    first = [double(n) for n in range(N)]
    slow = [double.options(timeout=60)(n) for n in range(N)]
    wide = [double.options(cpus=2)(n) for n in range(N)]
    dropped = [delayed(lambda n: n, keep=False)(n) for n in range(N)]
    unkept = [double(n) for n in range(N)]
    for call in unkept:
        call.output._keep = False
    session.submit()
    assert {block.first for block in blocks(server)} == {first[0].output._number, unkept[0].output._number}
    assert {block.keep for block in blocks(server)} == {True, False}
    assert set(single_tasks(server)) == {call._number for call in [*slow, *wide, *dropped]}


def test_a_submit_that_was_refused_can_be_repeated(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(N)]
    foreign = Session.__new__(Session)
    inputs = calls[0]._inputs
    extra = double(1)
    extra._inputs = (type(inputs[0]).__new__(type(inputs[0])),)
    extra._inputs[0]._session = foreign
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever: the packer stops in the middle
        session.submit()
    extra._inputs = inputs
    before = {call: (call._number, call.output._number) for call in calls}
    session.submit()
    assert {call: (call._number, call.output._number) for call in calls} == before


def test_results_are_asked_for_by_the_new_ids(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(N)]
    assert calls[-1].result() == b"value"
    fetched = server.all(FetchObjects)[0]
    assert list(fetched.ids) == [calls[-1].output._number]
    assert gather(calls) == [b"value"] * N
    assert list(server.all(FetchObjects)[1].ids) == [call.output._number for call in calls]


def test_outputs_nobody_refers_to_are_unkept(client: Client, session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(N)]
    session.submit()
    gone = [calls[3].output._number, calls[7].output._number]
    del calls[7], calls[3]
    gc.collect()
    done = threading.Event()
    for _ in range(100):
        if {number for message in server.all(UnkeepObjects) for number in message.ids} == set(gone):
            break
        done.wait(0.05)
    assert {number for message in server.all(UnkeepObjects) for number in message.ids} == set(gone)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["double", "add", "look", "map", "blob"]), st.integers(0, 300)), max_size=8))
def test_ids_are_all_there_once_whatever_is_built(plan: list[tuple[str, int]]) -> None:
    """Everything is submitted exactly once, under the id its handle has."""
    server = ScriptedServer()
    with connected(FakeChannel(server)) as client, client.new_session().bind_only() as session:
        calls: list[Any] = []
        for kind, count in plan:
            if kind == "double":
                calls += [double(n) for n in range(count)]
            elif kind == "add" and calls:
                calls += [add(calls[n % len(calls)], calls[-1 - n % len(calls)]) for n in range(count)]
            elif kind == "look" and calls:
                repr(calls[count % len(calls)])
            elif kind == "map":
                session.map(double, calls[:count] or range(count))
        session.submit()
        declared = array("I")
        for message in server.received:
            if isinstance(message, SubmitChunk):
                declared += message.tasks + message.outputs
                declared += array("I", [n for n, f in zip(message.objects, message.object_flags, strict=True) if f & 2])
            elif isinstance(message, SubmitBlock) and not message.start:
                declared.extend(range(message.first, message.first + 2 * message.members))
        assert len(set(declared)) == len(declared)
        for call in calls:
            assert {call._number, call.output._number} <= set(declared)
            assert session._find(call._number) is call


# --- handles of outputs -------------------------------------------------------------------------------


def until(condition: Any) -> None:
    done = threading.Event()
    for _ in range(100):
        if condition():
            return
        done.wait(0.05)
    raise AssertionError("it did not happen")


def unkept(server: ScriptedServer) -> list[int]:
    return [number for message in server.all(UnkeepObjects) for number in message.ids]


@delayed(outputs=2)
def both(value: int) -> tuple[int, int]:
    return value, value


def test_results_need_no_handles_of_outputs(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(N)]
    assert gather(calls) == [b"value"] * N
    assert all(call._made is None for call in calls)  # type: ignore[attr-defined]
    assert list(server.all(FetchObjects)[0].ids) == [call.output._number for call in calls]


@pytest.mark.parametrize("count", [3, N])
def test_calls_without_handles_of_outputs_are_unkept(session: Session, server: ScriptedServer, count: int) -> None:
    calls = [double(n) for n in range(count)] + [both(1)]
    session.submit()
    first = calls[0]._number - (count if count == N else 1)
    gone = [calls[-1]._number - 2, calls[-1]._number - 1, first]
    assert not unkept(server)
    del calls[-1], calls[0]
    until(lambda: sorted(unkept(server)) == sorted(gone))
    assert calls


@pytest.mark.parametrize("count", [3, N])
@pytest.mark.parametrize("is_late", [False, True])
def test_an_output_outlives_its_call(session: Session, server: ScriptedServer, count: int, is_late: bool) -> None:
    calls = [double(n) for n in range(count)]
    output = None if is_late else calls[1].output
    session.submit()
    output = output or calls[1].output
    number = output._number
    calls.clear()
    until(lambda: len(unkept(server)) == count - 1)
    assert session._find(number) is output
    assert number not in unkept(server)
    del output
    until(lambda: number in unkept(server))
    assert session._find(number) is None


def test_outputs_are_found_by_their_numbers(session: Session, server: ScriptedServer) -> None:
    calls = [*[both(n) for n in range(2)], *[double(n) for n in range(N)]]
    session.submit()
    for call in calls:
        assert call._made is None  # type: ignore[attr-defined]
        numbers = list(call._output_numbers())  # type: ignore[attr-defined]
        assert [session._find(number) for number in numbers] == list(call._outputs)
    assert {thing._number for thing in session._things} == set(range(10, 10 + 2 + 6 + 2 * N))


def test_handles_of_outputs_are_made_once(session: Session, server: ScriptedServer) -> None:
    calls = [double(n) for n in range(200)]
    session.submit()
    found: list[list[Any]] = []
    threads = [threading.Thread(target=lambda: found.append([call.output for call in calls])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one is other for row in found for one, other in zip(row, found[0], strict=True))


def test_handles_that_are_gone_are_forgotten(session: Session, server: ScriptedServer) -> None:
    kept = []
    for _ in range(5):
        calls = [double(n) for n in range(N)]
        session.submit()
        kept.append(calls[7])
        del calls
    session._registry._sweep()
    assert len(session._registry._blocks) == 1  # that of the function
    assert [session._find(call._number) for call in kept] == kept
    assert [session._find(call.output._number) for call in kept] == [call.output for call in kept]


# --- remote functions ---------------------------------------------------------------------------------


@remote
def increment(ctx: Any, value: int) -> bytes:
    return b"%d" % (value + 1)


@pytest.mark.parametrize("keep", [False, True])
def test_a_loop_of_remote_calls_is_a_block(session: Session, server: ScriptedServer, keep: bool) -> None:
    for n in range(N):
        call = increment(n)
        if keep:
            call.keep_outputs()
    session.submit()
    (block,) = blocks(server)
    assert (block.members, block.keep) == (N, keep)
    numbers = range(block.first, block.first + 2 * N)
    things = [session._find(number) for number in numbers]  # the session holds what it has submitted
    assert [thing._number for thing in things if thing is not None] == list(numbers)
    if keep:
        assert gather(things[N:]) == [b"value"] * N
    else:
        with pytest.raises(RainException, match="is not kept"):
            gather(things[N:])


def test_results_of_remote_calls_are_kept(session: Session, server: ScriptedServer) -> None:
    calls = [increment(n) for n in range(N)]
    assert gather(calls) == [b"value"] * N
    assert blocks(server)[0].keep
    assert all(call.output.is_kept() for call in calls)
    others = [increment(n) for n in range(N)]
    session.submit()
    with pytest.raises(RainException, match="is not kept"):
        gather([*others, increment(1)])


def test_kept_ones_stay_apart_from_others(session: Session, server: ScriptedServer) -> None:
    calls = [increment(n) for n in range(3 * N)]
    for call in calls[N : 2 * N]:
        call.output.keep()
    session.submit()
    assert [(block.members, block.keep) for block in blocks(server)] == [(N, False), (N, True), (N, False)]


def test_numbers_stay_in_step_after_an_interrupt(session: Session, server: ScriptedServer) -> None:
    """Ctrl-C may come at any instruction: also before the next number is noted."""
    calls = [double(n) for n in range(3)]
    session._registry.next -= 2
    calls.append(double(3))
    session._registry.next -= 2
    array_ = session.map(double, range(3))
    calls.append(double(4))
    session.submit()
    numbers = [thing._number for call in [*calls, *array_] for thing in (call, call.output)]
    assert len(set(numbers)) == len(numbers)
    assert [session._find(call._number) for call in calls] == calls


def test_the_garbage_collector_is_as_it_was(session: Session, server: ScriptedServer) -> None:
    assert gc.isenabled()
    for is_on in (True, False):
        if not is_on:
            gc.disable()
        try:
            calls = [double(n) for n in range(N)]
            session.submit()
            assert gc.isenabled() is is_on
        finally:
            gc.enable()
    assert calls


def test_calls_that_get_nothing_but_results(session: Session, server: ScriptedServer, monkeypatch: Any) -> None:
    first, second = double(1), double(2)
    packer = ArgumentPacker(session)
    arguments: list[tuple[Any, ...]] = [(first,), (first, second), (second.output, first), (first, first.output)]
    quick = [packer.pack(args, {}) for args in arguments]
    monkeypatch.setattr("rain.client.arguments.pack_references", lambda args: None)
    assert [packer.pack(args, {}) for args in arguments] == quick
    assert [len(inputs) for _, inputs in quick] == [1, 2, 2, 1]


@pytest.mark.parametrize("fn", [lambda ctx, first, second=None: first, lambda ctx, *values: values])
def test_remote_calls_that_get_nothing_but_results(
    session: Session, server: ScriptedServer, monkeypatch: Any, fn: Any
) -> None:
    function = remote(fn, name="f")
    first, second = double(1), double(2)
    function(1)
    arguments: list[tuple[Any, ...]] = [(first,), (second.output,), (first, second), (second, first), (first, first)]
    quick = [function(*args) for args in arguments * 2]
    monkeypatch.setattr("rain.client.pycode.pack_references", lambda args: None)
    slow = [function(*args) for args in arguments * 2]
    for one, other in zip(quick, slow, strict=True):
        assert (one._args, one._shape.packed) == (other._args, other._shape.packed)
        assert one._input_objects == other._input_objects
    assert [len(task._inputs) for task in quick[:5]] == [2, 2, 3, 3, 3]


def test_options_of_remote_calls_that_get_nothing_but_results(session: Session, server: ScriptedServer) -> None:
    first = increment(1)
    names = [fn(first).name for _ in range(2) for fn in (increment, increment.options(name="other"))]
    assert names == ["increment", "other"] * 2


@pytest.mark.parametrize("fn", [double, increment])
def test_a_call_stands_for_its_only_output(session: Session, server: ScriptedServer, fn: Any) -> None:
    first: Any = fn(1)
    users = [fn(first) for _ in range(3)]
    assert first._made is None
    assert users[0].inputs[1] is first.output
    users.append(fn(first))
    session.submit()
    (chunk,) = server.all(SubmitChunk)
    assert list(chunk.inputs)[2::2] == [first.output._number] * 4
    assert all(user.inputs[1]._number == first.output._number for user in users)


def test_the_output_of_a_submitted_call_is_kept_until_those_that_use_it_are_submitted(
    session: Session, server: ScriptedServer
) -> None:
    first: Any = double(1)
    session.submit()
    number = first._value_number
    user = double(first)
    del first
    session.submit()
    until(lambda: number in unkept(server))
    used = user.inputs[1]
    assert (used._number, used.is_kept()) == (number, True)
    with pytest.raises(RainException, match="2 outputs"):
        double(both(1))


@pytest.mark.parametrize("is_later", [False, True])
def test_tasks_do_not_hold_the_outputs_that_they_use(
    session: Session, server: ScriptedServer, is_later: bool
) -> None:
    call: Any = double(1)
    if is_later:
        session.submit()
    users = [Task("a/b", None, [call], 1), increment(call)]
    session.submit()
    number = call._value_number
    del call
    until(lambda: unkept(server) == [number])
    assert [user.inputs[-1]._number for user in users] == [number] * 2


def test_what_is_known_of_an_output_is_known_of_it_as_an_input(session: Session, server: ScriptedServer) -> None:
    first = double(1)
    user = double(first)
    first.output._keep = False
    session.submit()
    assert not user.inputs[1].is_kept()


def test_maps_over_calls_and_values(session: Session, server: ScriptedServer) -> None:
    calls: list[Any] = [double(1), double(2)]
    members = session.map(double, [calls[0], 5, calls[1]])
    assert [[one._number for one in member.inputs[1:]] for member in members] == [
        [calls[0]._value_number],
        [],
        [calls[1]._value_number],
    ]


def test_declared_inputs_of_remote_calls_are_looked_at(session: Session, server: ScriptedServer) -> None:
    function = remote(lambda ctx, data: data, inputs={"data": InputDir()})
    made = double(1)
    for _ in range(2):
        with pytest.raises(TypeError, match="needs a directory"):
            function(made)
    assert remote(lambda ctx, data: data)(made)._input_objects[1] is made.output
