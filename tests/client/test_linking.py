"""Calls that use each other's outputs travel in linked blocks (`rain.client.linking`)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rain.client import DataObject, InvalidRequestError, Session, Task, blob, delayed, linking, registry, remote
from rain.client.array import TaskArray
from rain.client.linking import FEWEST_LINKED, HARD, SOFT, clustered
from rain.common.links import Link
from rain.protocol.messages import KEEP, SubmitBlock, SubmitChunk, UnkeepObjects
from rain.testing.fake_channel import FakeChannel
from tests.client.conftest import ScriptedServer, connected

N = FEWEST_LINKED


@delayed
def one(value: Any) -> Any:
    return value


@delayed(keep=False)
def dropped(*values: Any) -> Any:
    return values


@delayed
def many(*values: Any) -> Any:
    return values


@remote
def far(ctx: Any, *values: Any) -> bytes:
    return b""


@delayed(outputs=2)
def both(value: Any) -> tuple[Any, Any]:
    return value, value


@dataclass
class Sent:
    """A task as the server gets it. node: of the block, or of itself alone."""

    template: bytes
    args: bytes | None
    inputs: list[int]
    outputs: list[int]
    kept: list[bool]
    node: int


def sent_tasks(server: ScriptedServer) -> dict[int, Sent]:
    """Every task of the submits by its number; each linked block is checked by itself."""
    found: dict[int, Sent] = {}
    templates: list[bytes] = []
    for position, message in enumerate(server.received):
        if isinstance(message, SubmitChunk):
            templates += message.templates
            found |= chunk_tasks(message, templates)
        elif isinstance(message, SubmitBlock):
            templates += message.templates
            found |= block_tasks(message, templates, -1 - position)
    return found


def chunk_tasks(chunk: SubmitChunk, templates: list[bytes]) -> dict[int, Sent]:
    found = {}
    inputs, outputs, flags = list(chunk.inputs), list(chunk.outputs), list(chunk.output_flags)
    args = chunk.args or [None] * len(chunk.tasks)
    columns = zip(chunk.tasks, chunk.task_templates, args, chunk.input_counts, chunk.output_counts, strict=True)
    for number, template, packed, of_inputs, of_outputs in columns:
        found[number] = Sent(
            templates[template],
            packed,
            inputs[:of_inputs],
            outputs[:of_outputs],
            [bool(flag & KEEP) for flag in flags[:of_outputs]],
            number,
        )
        del inputs[:of_inputs], outputs[:of_outputs], flags[:of_outputs]
    return found


def block_tasks(block: SubmitBlock, templates: list[bytes], node: int) -> dict[int, Sent]:
    found = {}
    size = len(block.arg_sizes)
    assert len(block.args) == sum(block.arg_sizes)
    link = Link.unpack(block.link, size, len(block.inputs)) if block.link else None
    assert len(set(block.inputs)) == len(block.inputs)
    own = range(block.first + block.start, block.first + block.start + size)
    if link is not None:
        assert link.template(0) == block.template
        assert len(set(link.templates)) == len(link.templates)
        assert set(block.inputs).isdisjoint(own)
        assert len(block.keeps) in (0, size)
        assert not block.keeps or (block.keep and set(block.keeps) == {0, KEEP})
    ends = list(accumulate(block.arg_sizes))
    for k in range(size):
        inputs = list(block.inputs)
        if link is not None:
            known = [*block.inputs, *own[:k]]
            inputs = [known[reference] for reference in link.references_of(k)]
        found[own[k] + block.members] = Sent(
            templates[block.template if link is None else link.template(k)],
            block.args[ends[k] - block.arg_sizes[k] : ends[k]],
            inputs,
            [own[k]],
            [bool(block.keeps[k] & KEEP) if block.keeps else block.keep],
            node,
        )
    return found


def check_order(server: ScriptedServer, tasks: dict[int, Sent]) -> None:
    """No way leads out of a block and into it again, and linked blocks come behind what they use."""
    producer = {output: task for task in tasks.values() for output in task.outputs}
    graph: dict[int, set[int]] = {task.node: set() for task in tasks.values()}
    for task in tasks.values():
        graph[task.node] |= {producer[number].node for number in task.inputs if number in producer}
        graph[task.node].discard(task.node if task.node < 0 else 0)
    TopologicalSorter(graph).prepare()
    known: set[int] = set()
    for position, message in enumerate(server.received):
        if isinstance(message, SubmitBlock) and message.link:
            assert {number for number in message.inputs if number in producer} <= known
        if isinstance(message, SubmitBlock):
            known.update(*[task.outputs for task in tasks.values() if task.node == -1 - position])
        elif isinstance(message, SubmitChunk):
            known.update(message.outputs)


def check_call(tasks: dict[int, Sent], call: Any) -> None:
    """A call is sent as it was made."""
    sent = tasks[call._number]
    assert sent.template == call._shape.packed
    assert sent.args == call._args
    assert sent.inputs == [used._value_number for used in call._inputs]
    assert sent.outputs == [output._number for output in call._outputs]
    assert sent.kept == [output._keep for output in call._outputs]


def links(server: ScriptedServer) -> list[SubmitBlock]:
    return [block for block in server.all(SubmitBlock) if block.link]


def members(server: ScriptedServer) -> int:
    return sum(len(block.arg_sizes) for block in links(server))


def single_tasks(server: ScriptedServer) -> set[int]:
    return {number for chunk in server.all(SubmitChunk) for number in chunk.tasks}


def chain(length: int, fn: Any = one) -> list[Any]:
    calls = [fn(0)]
    for _ in range(length - 1):
        calls.append(fn(calls[-1]))
    return calls


def tree(leaves: int, fn: Any = many) -> list[Any]:
    calls = level = [fn(number) for number in range(leaves)]
    while len(level) > 1:
        level = [fn(*pair) for pair in zip(level[::2], level[1::2], strict=True)]
        calls = calls + level
    return calls


# --- which calls --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [many, dropped, far])
def test_a_tree_is_linked(session: Session, server: ScriptedServer, fn: Any) -> None:
    calls = tree(N, fn)
    calls[-1].output._keep = True
    session.submit()
    assert members(server) == len(calls)
    assert not single_tasks(server)
    tasks = sent_tasks(server)
    check_order(server, tasks)
    for call in calls:
        check_call(tasks, call)
        assert session._find(call._number) is call
        assert session._find(call.output._number) is call.output
        assert call.id.id == call._number
    firsts = {(block.first, block.members) for block in links(server)}
    assert firsts == {(min(call.output._number for call in calls), len(calls))}
    assert {call._number for call in calls} | {call.output._number for call in calls} == set(
        range(min(firsts)[0], session._registry.next)
    )


@pytest.mark.parametrize("fn", [one, far])
def test_calls_and_the_handles_of_their_outputs_are_the_same(
    session: Session, server: ScriptedServer, fn: Any
) -> None:
    calls = [fn(0)]
    users: list[Any] = []
    for _ in range(N):
        last = calls[-1]
        users.append(fn(last))
        calls.append(fn(last.output))  # from here on there is a handle
        users.append(fn(last))
    assert all(call._made is None for call in users)
    session.submit()
    assert members(server) == len(calls) + len(users)
    tasks = sent_tasks(server)
    check_order(server, tasks)
    for call in [*calls, *users]:
        check_call(tasks, call)
    for position, call in enumerate(calls[:-1]):
        following = [users[2 * position], calls[position + 1], users[2 * position + 1]]
        assert [tasks[user._number].inputs[1:] for user in following] == [[call.output._number]] * 3


def test_few_calls_stay_tasks(session: Session, server: ScriptedServer) -> None:
    calls = chain(N - 1)
    before = [(call._number, call.output._number) for call in calls]
    session.submit()
    assert not server.all(SubmitBlock)
    assert [(call._number, call.output._number) for call in calls] == before


def test_calls_that_use_nothing_of_each_other_are_not_linked(session: Session, server: ScriptedServer) -> None:
    source = blob(b"x")
    calls = [one(source) for _ in range(N)] + [one([blob(b"y")]) for _ in range(N)]
    linked = chain(N)
    session.submit()
    assert {call._number for call in calls[N:]} == single_tasks(server)
    assert [block.members for block in server.all(SubmitBlock) if not block.link] == [N]
    assert members(server) == N
    tasks = sent_tasks(server)
    for call in [*calls, *linked]:
        check_call(tasks, call)


def test_of_two_kinds_the_more_frequent_one_is_linked(session: Session, server: ScriptedServer) -> None:
    kept, unkept = chain(N), chain(N + 1, dropped)
    session.submit()
    assert members(server) == N + 1
    assert single_tasks(server) == {call._number for call in kept}
    tasks = sent_tasks(server)
    for call in [*kept, *unkept]:
        check_call(tasks, call)


def test_only_calls_with_the_same_options_are_linked(session: Session, server: ScriptedServer) -> None:
    urgent = one.options(priority=1)
    calls = chain(N)
    calls += chain(N // 2, one.options(name="other"))
    others = [*chain(N, urgent), *chain(N, one.options(timeout=10)), *chain(N, one.options(retries=1))]
    session.submit()
    assert members(server) == len(calls)
    assert single_tasks(server) == {call._number for call in others}
    assert {len(Link.unpack(b.link, len(b.arg_sizes), len(b.inputs)).templates) for b in links(server)} <= {1, 2}
    tasks = sent_tasks(server)
    for call in [*calls, *others]:
        check_call(tasks, call)


def test_large_arguments_and_many_inputs_are_not_linked(session: Session, server: ScriptedServer) -> None:
    calls = chain(N)
    large = many("x" * 3000, calls[0])
    wide = many(*calls[:70])
    session.submit()
    assert members(server) == N
    assert single_tasks(server) == {large._number, wide._number}
    tasks = sent_tasks(server)
    for call in [*calls, large, wide]:
        check_call(tasks, call)
    assert large._number > calls[-1]._number  # behind what it uses


def test_too_many_templates_are_not_linked(session: Session, server: ScriptedServer) -> None:
    last = one(0)
    for number in range(N + 10):
        last = one.options(name=f"call {number}")(last)
    session.submit()
    assert not links(server)


def test_declared_objects_stop_linking(session: Session, server: ScriptedServer) -> None:
    declared = DataObject("late")
    calls = [one(declared)]
    for _ in range(N):
        calls.append(one(calls[-1]))
    Task("a/b", None, [], [declared])
    session.submit()
    assert not links(server)


def test_an_object_of_another_session_is_refused(session: Session, server: ScriptedServer, client: Any) -> None:
    other = client.new_session("other")
    with other.bind_only():
        foreign = one(1).output
    calls = chain(N)
    calls.append(many(foreign, calls[-1]))
    with pytest.raises(InvalidRequestError, match="belongs to session"):
        session.submit()
    other.close()


def test_alike_calls_with_an_object_of_another_session_are_refused(session: Session, client: Any) -> None:
    other = client.new_session("other")
    with other.bind_only():
        foreign = one(1).output
    calls = [many(foreign, number) for number in range(N)]
    with pytest.raises(InvalidRequestError, match="belongs to session"):
        session.submit()
    other.close()
    assert calls


# --- other tasks --------------------------------------------------------------------------------------


def test_what_depends_on_linked_calls_through_others_is_not_linked(session: Session, server: ScriptedServer) -> None:
    source = Task("a/b", None, [], 1)
    calls = [one(source.output), *chain(N)]
    calls.append(many(calls[0], calls[-1]))
    through = Task("a/b", None, [calls[5].output], 1)
    late = one(through.output)
    later = many(late, calls[9])
    session.submit()
    assert members(server) == len(calls)
    assert single_tasks(server) == {source._number, through._number, late._number, later._number}
    assert source._number < calls[0].output._number < calls[-1]._number < through._number < late._number
    tasks = sent_tasks(server)
    check_order(server, tasks)
    for call in [*calls, late, later]:
        check_call(tasks, call)
    assert [thing._number for thing in session._things] == sorted(thing._number for thing in session._things)
    for thing in (source, through, *source._outputs, *through._outputs):
        assert session._find(thing._number) is thing


def test_maps_over_linked_calls_know_their_new_ids(session: Session, server: ScriptedServer) -> None:
    calls = tree(N)
    made = session.map(one, calls)
    pairs = session.map(many, calls, calls[::-1])
    listed = session.map(one, [[call, 1] for call in calls])
    following = [*chain(N), one(made[3])]
    session.submit()
    assert members(server) >= len(calls) + N - 1  # packing lists may show the first id
    tasks = sent_tasks(server)
    check_order(server, tasks)
    for call in [*calls, *following]:
        check_call(tasks, call)
    numbers = [call.output._number for call in calls]
    for array, expected in (
        (made, [[number] for number in numbers]),
        (pairs, [list(pair) for pair in zip(numbers, numbers[::-1], strict=True)]),
        (listed, [[number] for number in numbers]),
    ):
        assert [tasks[number].inputs[1:] for number in array._task_numbers()] == expected


def test_functions_between_the_calls(session: Session, server: ScriptedServer) -> None:
    """Each function is a constant, registered with its first call."""
    calls = chain(20)
    for number in range(20):
        fn = delayed(lambda value: value, name=f"function {number}")
        calls.append(fn(calls[-1]))
        for _ in range(20):
            calls.append(fn(calls[-1]))
    session.submit()
    assert members(server) == len(calls)
    tasks = sent_tasks(server)
    for call in calls:
        check_call(tasks, call)
        assert session._find(call._inputs[0]._number) is call._inputs[0]


# --- ids that are known, and submits that are repeated ----------------------------------------------------


def test_an_id_that_somebody_saw_stays(session: Session, server: ScriptedServer) -> None:
    calls = chain(3 * N)
    seen = [calls[N].output.id, calls[N].id]
    session.submit()
    assert [calls[N].output.id, calls[N].id] == seen
    assert members(server) == 2 * N - 1
    tasks = sent_tasks(server)
    check_order(server, tasks)
    for call in calls:
        check_call(tasks, call)


def test_a_submit_that_was_refused_can_be_repeated(session: Session, server: ScriptedServer) -> None:
    calls = tree(N)
    session._registry.take()
    before = [(call._number, call.output._number) for call in calls]
    calls += [*chain(N), one(calls[-1])]
    session._registry.take()
    calls += [many(calls[0], calls[-1])]
    session.submit()
    assert [(call._number, call.output._number) for call in calls[: len(before)]] == before
    assert members(server) == len(before) + N
    tasks = sent_tasks(server)
    for call in calls:
        check_call(tasks, call)


@pytest.mark.parametrize("what", ["task", "output"])
def test_specs_that_are_edited_after_a_refused_submit(session: Session, server: ScriptedServer, what: str) -> None:
    calls = chain(N)
    session._registry.take()
    before = [(call._number, call.output._number) for call in calls]
    spec = calls[7].spec if what == "task" else calls[7].output.spec
    spec.user["k"] = 1
    session.submit()
    assert not server.all(SubmitBlock)
    assert single_tasks(server) == {number for number, _ in before}
    assert [(call._number, call.output._number) for call in calls] == before


def test_ids_that_are_seen_after_a_refused_submit(session: Session, server: ScriptedServer) -> None:
    calls = chain(N)
    session._registry.take()
    seen = [call.id for call in calls]
    calls[3].output._keep = False
    session.submit()
    assert members(server) == N
    assert [call.id for call in calls] == seen
    check_call(sent_tasks(server), calls[3])


def test_interrupts_are_held_back(session: Session, server: ScriptedServer, monkeypatch: Any) -> None:
    """Ctrl-C at any moment leaves all numbers as they were, or all new."""
    calls = chain(N)
    write = linking.CallBlock.write_numbers

    def interrupted(block: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write(block)

    monkeypatch.setattr(linking.CallBlock, "write_numbers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.submit()
    monkeypatch.undo()
    assert [session._find(call._number) for call in calls] == calls
    numbers = {number for call in calls for number in (call._number, call.output._number)}
    assert len(numbers) == 2 * N
    session.submit()
    assert members(server) == N
    tasks = sent_tasks(server)
    for call in calls:
        check_call(tasks, call)


def test_nothing_is_renumbered_when_choosing_fails(session: Session, monkeypatch: Any) -> None:
    """The second of two stretches cannot be looked at."""
    calls = chain(N)
    session.map(one, range(3))
    calls += chain(N)
    before = [(call._number, call.output._number) for call in calls]
    found: list[Any] = []

    def fails(some: Any) -> Any:
        found.append(some)
        if len(found) == 2:
            raise MemoryError
        return clustered(some)

    monkeypatch.setattr(linking, "clustered", fails)
    with pytest.raises(MemoryError):
        session._registry.take()
    assert [(call._number, call.output._number) for call in calls] == before
    assert [session._find(call._number) for call in calls] == calls


# --- handles ----------------------------------------------------------------------------------------------


def check_unkept(server: ScriptedServer, expected: set[int]) -> None:
    """The server is told of these outputs, of each once."""
    unkept: list[int] = []
    for _ in range(200):
        unkept = [number for message in server.all(UnkeepObjects) for number in message.ids]
        if len(unkept) >= len(expected):
            break
        time.sleep(0.02)
    assert sorted(unkept) == sorted(expected)


@pytest.mark.parametrize("when", ["before the submit", "after it", "never"])
def test_handles_that_are_gone_are_unkept(session: Session, server: ScriptedServer, when: str) -> None:
    calls = chain(N)
    outputs = [call.output for call in calls] if when == "before the submit" else []
    session.submit()
    inner = {call._value_number for call in calls[:-1]}
    if when != "never":
        outputs = [call.output for call in calls]
        outputs[3]._keep = False
        inner.remove(outputs[3]._number)
    last = calls[-1]
    del calls, outputs
    check_unkept(server, inner)
    assert session._find(last._number) is last


def test_what_nobody_has_at_the_submit_is_unkept(session: Session, server: ScriptedServer) -> None:
    calls = chain(N)
    tasks, outputs = [calls[10], calls[11], calls[20], calls[-1]], [calls[20].output, calls[30].output]
    del calls
    session.submit()
    first = tasks[0]._value_number - 10
    places = [10, 11, 20, N - 1]
    check_unkept(server, set(range(first, first + N)) - {first + place for place in [*places, 30]})
    assert [task._value_number - first for task in tasks] == places
    assert [session._find(task._number) for task in tasks] == tasks
    assert [session._find(output._number) for output in outputs] == outputs
    for task, place in zip(tasks, places, strict=True):
        (used,) = task.inputs[1:]
        assert used._number == first + place - 1
        assert used.is_kept()
        assert session._find(used._number) is not used  # it owns nothing


# --- clusters -----------------------------------------------------------------------------------------


def test_each_long_chain_has_clusters_of_its_own(graph: Session) -> None:
    calls = [call for _ in range(4) for call in chain(2 * HARD)]
    clusters = clustered(calls)
    assert [len(cluster.calls) for cluster in clusters] == [HARD] * 8
    assert [cluster.level for cluster in clusters] == [0] * 4 + [1] * 4


def test_short_chains_share_clusters(graph: Session) -> None:
    calls = [call for _ in range(4000) for call in chain(10)]
    clusters = clustered(calls)
    assert sum(len(cluster.calls) for cluster in clusters) == len(calls)
    assert {cluster.level for cluster in clusters} == {0}
    assert {len(cluster.calls) for cluster in clusters[:-1]} == {SOFT // 10 * 10 + 10}


def test_a_tree_is_cut_into_subtrees(graph: Session) -> None:
    clusters = clustered(tree(1 << 12))
    assert sum(len(cluster.calls) for cluster in clusters) == (1 << 13) - 1
    assert [cluster.level for cluster in clusters] == [0] * 64 + [1]
    assert {len(cluster.calls) for cluster in clusters} == {127, 63}


def test_inputs_of_a_cluster_are_bounded(graph: Session) -> None:
    sources = [blob(b"x") for _ in range(60)]
    calls = [many(0)]
    for _ in range(1000):
        calls.append(many(calls[-1], *sources))
    clusters = clustered(calls)
    assert all(sum(len(call._inputs) - 1 for call in cluster.calls) <= linking._ROOM + 2000 for cluster in clusters)
    assert len(clusters) > 10


# --- anything -----------------------------------------------------------------------------------------


def build(rng: random.Random, session: Session, steps: int) -> Iterator[Any]:
    """Anything that can be built; yields every task and task array."""
    made: list[Any] = []
    sources: list[Any] = [blob(b"x")]
    kinds = rng.choices(
        ["call", "dropped", "far", "urgent", "both", "task", "blob", "map", "look", "keep", "take", "submit", "loop"],
        [20, rng.choice([0, 20]), rng.choice([0, 20]), 1, 1, 1, 1, 0.3, 0.1, 3, 0.3, 0.1, 1],
        k=steps,
    )

    def some(most: int) -> list[Any]:
        near = made[-rng.choice([3, 10, 1000]) :] or sources
        found = [rng.choice(near) for _ in range(rng.randint(0, most))]
        return found + ([rng.choice(sources)] if rng.random() < 0.1 else [])

    for kind in kinds:
        new: list[Any] = []
        match kind:
            case "call":
                new = [rng.choice([many, many, many.options(name="other")])(*some(3))]
            case "dropped":
                new = [dropped(some(3), 1) if rng.random() < 0.2 else dropped(*some(3))]
            case "far":
                new = [far(*some(2))]
            case "urgent":
                new = [many.options(priority=2)(*some(2))]
            case "both":
                yield (call := both(some(1)))
                sources.append(call.outputs[0])
            case "task":
                new = [Task("a/b", None, [getattr(one, "output", one) for one in some(3)], 1)]
            case "blob":
                sources.append(blob(b"y"))
            case "map":
                yield (array := session.map(one, some(5) or ["text"]))
                sources += list(array)
            case "look" if made:
                repr(rng.choice(made).id)
            case "keep" if made:
                output = rng.choice(made).output
                if not output._is_submitted:
                    output._keep = rng.random() < 0.5
            case "take":
                session._registry.take()
            case "submit":
                session.submit()
            case "loop":
                new = [many(k) for k in range(40)]
        yield from new
        made += new


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 300), st.integers(2, 12), st.booleans())
def test_whatever_is_built_is_sent_as_it_was_made(seed: int, steps: int, size: int, has_room: bool) -> None:
    rng = random.Random(seed)
    server = ScriptedServer()
    with pytest.MonkeyPatch.context() as patch, connected(FakeChannel(server)) as client:
        patch.setattr(linking, "FEWEST_LINKED", 4)
        patch.setattr(registry, "FEWEST", 4)
        patch.setattr(linking, "SOFT", size)
        patch.setattr(linking, "HARD", 2 * size)
        patch.setattr(linking, "_FEWEST_LEAVES", 2)
        patch.setattr(linking, "_ROOM", 1000 if has_room else 8)
        with client.new_session().bind_only() as session:
            made = list(build(rng, session, steps))
            session.submit()
            tasks = sent_tasks(server)
            check_order(server, tasks)
            for thing in made:
                if isinstance(thing, TaskArray):
                    for member in thing:
                        check_call(tasks, member)
                    continue
                check_call(tasks, thing)
                assert session._find(thing._number) is thing
                assert [session._find(output._number) for output in thing._outputs] == list(thing._outputs)
            numbers = [number for number, task in tasks.items() for number in (number, *task.outputs)]
            assert len(set(numbers)) == len(numbers)
            assert max(numbers, default=0) < session._registry.next
