"""Plain functions and task arrays: calls, arguments, columns, and what is unkept when."""

from __future__ import annotations

import functools
import gc
import itertools
import math
import pickle
import time
from array import array
from collections import deque

import msgpack
import pytest

from rain.client import (
    Delayed,
    RainException,
    Session,
    SessionException,
    Task,
    TaskArray,
    blob,
    delayed,
    remote,
)
from rain.client.background import forget_dropped
from rain.client.submit import SubmitPacker
from rain.common.content_type import decode_value, encode_value
from rain.common.number_arguments import NumberArguments
from rain.common.packing import unpack_args
from rain.protocol.messages import (
    KEEP,
    Cancel,
    FetchObjects,
    GetCounts,
    SubmitBlock,
    SubmitChunk,
    SubmitCommit,
    UnkeepObjects,
)


@delayed
def add(a, b=1):
    return a + b


def double(value):
    return 2 * value


def chunks(session):
    return list(SubmitPacker(session, {}).messages(session._unsubmitted()))


def template(task):
    return msgpack.unpackb(task._shape.packed)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- delayed ----------------------------------------------------------------------------------------


def test_call(graph):
    task = add(1, b=2)
    assert isinstance(task, Task)
    assert [thing.id.id for thing in graph._things] == [10, 11, 12]
    function, output, last = graph._things
    assert (task.task_type, task.name, task.spec.resources) == ("py/", "add", {"cpus": 1})
    assert last is task
    assert task.output is output
    assert output.is_kept()
    assert task.inputs.data == [function]
    assert pickle.loads(function.data)(3) == 4
    assert template(task)["config"] == {"plain": True}
    assert unpack_args(task._args) == ([1], {"b": 2})
    add(2)
    assert graph.dataobj_count == 3  # the function is there once


def test_forms():
    assert delayed(double).fn is double
    assert delayed(cpus=2)(double).options()._shape.options.resources == {"cpus": 2}
    assert delayed(double, outputs=2, keep=False).keep is False
    assert isinstance(add, Delayed)
    assert repr(add) == "<Delayed add>"
    assert delayed(functools.partial(double, 1)).default_name == "partial"
    for wrong in (5, "text"):
        with pytest.raises(RainException, match="must be applied to a function"):
            delayed(wrong)
    with pytest.raises(RainException, match="must be applied to a function"):
        delayed()(5)
    with pytest.raises(TypeError):
        delayed(colour="red")
    with pytest.raises(ValueError, match="at least 0"):
        delayed(double, retries=-1)


def test_wrong_arguments(graph):
    for call in (lambda: add(), lambda: add(1, 2, 3), lambda: add(1, c=3)):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError, match="required argument: 'a'"):
        add()
    with pytest.raises(RainException, match="cannot be pickled"):
        add(n for n in [])
    assert not graph._things


def test_keywords_belong_to_the_function(graph):
    task = delayed(lambda name, session, output, outputs, timeout: 0)(
        name=1, session=2, output=3, outputs=4, timeout=5
    )
    assert unpack_args(task._args)[1] == {"name": 1, "session": 2, "output": 3, "outputs": 4, "timeout": 5}
    assert task.name == "<lambda>"


def test_functions_without_a_signature(graph):
    assert unpack_args(delayed(max)(1, 2)._args) == ([1, 2], {})
    assert delayed(math.sqrt)(4).name == "sqrt"


def test_options(graph):
    other = Session(None, 2)
    special = add.options(name="special", cpus=3, priority=5, session=other)
    task = special(1)
    assert task.session is other
    assert (task.name, task.spec.resources, task.spec.priority) == ("special", {"cpus": 3}, 5)
    assert add(1).name == "add"
    with pytest.raises(TypeError):
        add.options(outputs=2)


def test_outputs(graph):
    none, two = delayed(double, outputs=0)(1), delayed(double, outputs=2)(1)
    assert len(none.outputs) == 0
    assert len(two.outputs) == 2
    assert all(output.is_kept() for output in two.outputs)
    assert not delayed(double, keep=False)(1).output.is_kept()


def test_closed_session(graph):
    graph.close()
    with pytest.raises(SessionException):
        add(1)
    with pytest.raises(SessionException):
        graph.map(double, [1])


def test_data_objects_anywhere_in_the_arguments(graph):
    one, two, three = add(1), blob("x"), graph.map(double, range(2))
    task = add([one, {"k": two}], b=(three, lambda: one))
    assert task.inputs.data[1:] == [one.output, two, three[0].output, three[1].output]
    assert add(one, one).inputs.data[1:] == [one.output]
    with pytest.raises(RainException, match="2 outputs"):
        add(delayed(double, outputs=2)(1))
    with pytest.raises(RainException, match="cannot be pickled"):
        pickle.dumps(one)
    with pytest.raises(RainException, match="cannot be pickled"):
        pickle.dumps(three)


def test_large_arguments_are_constants(graph):
    limit = 64 << 10
    assert not add(b"x" * limit).inputs.data[1:]
    values = [b"x" * (limit + 1), "ü" * limit, list(range(limit)), bytearray(limit + 1)]
    for value in values:
        task = add(value, b=value)
        (constant,) = task.inputs.data[1:]
        assert constant.is_kept()
        if not isinstance(value, bytes):
            assert decode_value(constant.data, constant.content_type) == value
        assert add(value).inputs.data[1:] == [constant]
        assert len(task._args) < 500
    assert add([values[0], 1]).inputs.data[1:]


def test_buffers_go_out_of_band(graph):
    numpy = pytest.importorskip("numpy")
    value = numpy.arange(100_000)
    (constant,) = add(value).inputs.data[1:]
    assert constant.content_type == "pickle5"
    assert (decode_value(constant.data, "pickle5") == value).all()
    small = numpy.arange(10)
    assert (unpack_args(add(small)._args)[0][0] == small).all()


def test_odd_plain_values(graph):
    for value in (1 << 70, "\ud800", -(1 << 63)):
        assert unpack_args(add(value)._args)[0] == [value]


# --- unkeeping --------------------------------------------------------------------------------------


def unkept(server):
    """What the server was told to unkeep, in order."""
    return [number for message in server.all(UnkeepObjects) for number in message.ids]


def test_dropped_results_are_unkept_in_batches(session, server):
    tasks = [add(n) for n in range(5)]
    numbers = {task.output.id.id for task in tasks}
    session.submit()
    kept = tasks[0].output
    alive = tasks[1]
    del tasks
    gc.collect()
    dropped = numbers - {kept.id.id, alive.output.id.id}
    until(lambda: set(unkept(server)) == dropped)
    assert len(server.all(UnkeepObjects)) <= 2  # the background thread may look while the list is being dropped
    assert session._find(alive.id.id) is alive
    del kept, alive
    until(lambda: set(unkept(server)) == numbers)
    assert len(unkept(server)) == len(numbers)


def test_what_is_not_unkept(session, server):
    unsubmitted, plain, let_go = add(0), delayed(double, keep=False)(1), add(5)
    numbers = [plain.id.id]
    del unsubmitted, plain
    gc.collect()
    assert session.task_count == 3
    session.submit()
    let_go.output.unkeep()
    assert isinstance(session._find(numbers[0]), Task)
    server.received.clear()
    del let_go
    gc.collect()
    until(lambda: server.all(UnkeepObjects))
    assert [len(message.ids) for message in server.all(UnkeepObjects)] == [1]  # that of `unsubmitted`


def test_a_consumer_does_not_hold_what_it_consumes(session, server):
    first = add(1)
    second = add(first)
    third = remote(lambda ctx, x: b"")(second)
    numbers = {first.output.id.id, second.output.id.id}
    session.submit()
    assert second.inputs[1].id == first.output.id
    del first, second
    until(lambda: server.all(UnkeepObjects))
    until(lambda: {n for message in server.all(UnkeepObjects) for n in message.ids} == numbers)
    assert third.inputs[1].id.id in numbers


def test_what_was_dropped_of_a_closed_session_is_forgotten(client):
    dropped = deque([(1, 7, 3), (2, 8, 1), (1, 20, 1)])
    forget_dropped(dropped, 1)
    assert list(dropped) == [(2, 8, 1)]
    session = client.new_session()
    client._dropped.append((session.session_id, 7, 3))
    session.close()
    assert session.session_id not in {number for number, _, _ in client._dropped}


def test_dropped_arrays_are_unkept(session, server):
    made = session.map(double, range(10))
    first = made._first
    session.submit()
    made[3].output.unkeep()
    member = made[5]
    server.received.clear()
    del made
    gc.collect()
    time.sleep(0.7)
    assert not server.all(UnkeepObjects)
    assert member.session is session
    del member
    until(lambda: unkept(server) == [first + n for n in range(10) if n != 3])


def test_single_kept_outputs_of_a_dropped_array_are_unkept(session, server):
    made = session.map(delayed(double, keep=False), range(10))
    first = made._first
    for index in (2, 3, 7):
        made[index].output.keep()
    session.submit()
    made[3].output.unkeep()
    server.received.clear()
    del made
    gc.collect()
    until(lambda: unkept(server) == [first + 2, first + 7])


def test_dead_handles_are_swept(session, monkeypatch):
    session._registry._sweep_at = 50
    for _ in range(40):
        add(1)
        session.submit()
    assert len(session._registry._weak) < 60


# --- arrays -----------------------------------------------------------------------------------------


def test_map(graph):
    made = graph.map(double, range(3), cpus=2, name="many")
    assert isinstance(made, TaskArray)
    assert len(made) == 3
    function = graph._things[0]
    first = function.id.id + 1
    assert [task.output.id.id for task in made] == [first, first + 1, first + 2]
    assert [task.id.id for task in made] == [first + 3, first + 4, first + 5]
    task = made[-1]
    assert task is made[2]
    assert (task.name, task.spec.resources, task.task_type) == ("many", {"cpus": 2}, "py/")
    assert task.output.is_kept()
    assert task.inputs.data == [function]
    assert [one.id for one in made[::2]] == [made[0].id, made[2].id]
    with pytest.raises(IndexError):
        made[3]
    assert (graph.task_count, graph.dataobj_count) == (3, 4)
    assert "TaskArray of 3 tasks" in repr(made)
    assert graph._find(task.id.id) is task
    assert graph._find(task.output.id.id) is task.output


def test_wrong_maps(graph):
    with pytest.raises(RainException, match="must be applied"):
        graph.map(5, [1])
    with pytest.raises(TypeError, match="at least one iterable"):
        graph.map(double)
    with pytest.raises(ValueError, match="one output"):
        graph.map(delayed(double, outputs=2), [1])
    with pytest.raises(TypeError):
        graph.map(double, [1], [2])
    with pytest.raises(TypeError, match="session"):
        graph.map(double, [1], session=graph)
    assert not graph._things


def packed(made):
    return [unpack_args(task._args)[0] for task in made]


def test_columns(graph):
    assert packed(graph.map(add, [1, 2, 3], "ab")) == [[1, "a"], [2, "b"]]
    assert packed(graph.map(add, itertools.count(), iter([5, 6]))) == [[0, 5], [1, 6]]
    assert packed(graph.map(double, (n for n in range(2)))) == [[0], [1]]
    assert packed(graph.map(double, [[1], (2,), {3}])) == [[[1]], [(2,)], [{3}]]
    assert packed(graph.map(double, [1 << 70, 1])) == [[1 << 70], [1]]
    assert packed(graph.map(double, {"a": 1})) == [["a"]]
    assert len(graph.map(double, [])) == 0


def test_messages_of_arrays(graph):
    first = graph.map(double, range(3))
    second = graph.map(add, first, range(3), name="second")
    third = graph.map(double, [[first[0], first[1]], 5])
    sent = chunks(graph)
    assert [type(message) for message in sent] == [SubmitChunk, SubmitBlock, *[SubmitChunk] * 3]
    block, one, two = (message for message in sent if isinstance(message, SubmitBlock) or message.tasks)
    function = first[0].inputs[0].id.id
    assert (block.first, block.members, block.start) == (first[0].output.id.id, 3, 0)
    assert (list(block.inputs), block.keep) == ([function], True)
    assert list(one.input_counts) == [2] * 3
    assert list(one.tasks) == [task.id.id for task in second]
    assert list(one.outputs) == [task.output.id.id for task in second]
    assert one.output_flags == bytes([KEEP]) * 3
    other = second[0].inputs[0].id.id
    assert list(one.inputs) == [n for k in range(3) for n in (other, first[k].output.id.id)]
    assert [task.inputs[1] for task in second] == [task.output for task in first]
    assert list(two.input_counts) == [3, 1]
    assert list(two.inputs) == [function, first[0].output.id.id, first[1].output.id.id, function]
    assert third[0].inputs.data[1:] == [first[0].output, first[1].output]
    assert [len(message.templates) for message in sent] == [1, 0, 1, 0, 0]  # the third is equal to the first
    assert (block.template, list(one.task_templates), list(two.task_templates)) == (0, [1] * 3, [0] * 2)


def arguments(block):
    """The unpacked arguments of the members of a block."""
    if block.column:
        return [unpack_args(packed)[0] for packed in NumberArguments(block.column, block.args)]
    found, start = [], 0
    for size in block.arg_sizes:
        found.append(unpack_args(block.args[start : start + size])[0])
        start += size
    assert start == len(block.args)
    return found


def test_blocks(graph):
    made = graph.map(add, [1, (2,), "x"], itertools.count(), cpus=2)
    plain = graph.map(delayed(double, keep=False), [1.5])
    chunk, one, other_template, two = chunks(graph)
    assert list(chunk.objects) == [made[0].inputs[0].id.id]
    assert msgpack.unpackb(chunk.templates[0])["resources"] == {"cpus": 2}
    assert arguments(one) == [[1, 0], [(2,), 1], ["x", 2]]
    assert other_template.tasks == array("I")
    assert (two.session, two.template, two.first, two.keep) == (1, 1, plain[0].output.id.id, False)
    assert arguments(two) == [[1.5]]
    assert [len(one.templates), len(two.templates)] == [0, 0]


def test_messages_are_bounded(graph):
    graph.map(double, range(100_000))
    chunk, *blocks = chunks(graph)
    assert len(chunk.tasks) == 0
    assert [(block.start, len(block.arg_sizes), block.members) for block in blocks] == [
        (0, 40_000, 100_000),
        (40_000, 40_000, 100_000),
        (80_000, 20_000, 100_000),
    ]
    assert [args for block in blocks for args in arguments(block)] == [[n] for n in range(100_000)]
    graph = Session(None, 3)
    made = graph.map(double, [b"x" * 1000] * 100)
    sizes = [len(block.args) for block in made._messages(0, 10_000)]
    assert len(sizes) > 10
    assert max(sizes) <= 10_000
    made[7].output.unkeep()
    chunked = list(made._messages(0, 10_000))
    assert {type(message) for message in chunked} == {SubmitChunk}
    assert max(sum(map(len, chunk.args)) for chunk in chunked) <= 10_000
    assert sum(len(chunk.tasks) for chunk in chunked) == 100
    one = Session(None, 4)
    large = one.map(double, [b"x" * 1000] * 2)
    assert [len(block.args) for block in large._messages(0, 10)] == [len(task._args) for task in large]


def test_an_array_with_further_inputs_goes_as_chunks(graph):
    source = add(1)
    made = graph.map(lambda value, n: value + n, [source] * 12_000, range(12_000))
    assert [len(chunk.tasks) for chunk in chunks(graph)][-3:] == [5000, 5000, 2000]
    assert made[11_999].inputs[1] is source.output


def test_two_lists_of_objects_and_large_values(graph):
    tasks = [add(n) for n in range(3)]
    made = graph.map(add, tasks, [task.output for task in tasks])
    assert made[2].inputs.data[1:] == [tasks[2].output, tasks[2].output]
    large = graph.map(double, [b"x" * 100_000] * 3)
    assert len({task.inputs[1] for task in large}) == 1
    other = Session(None, 2)
    with pytest.raises(RainException, match="belongs to session 1"):
        other.map(double, tasks)
    with pytest.raises(RainException, match="belongs to session 1"):
        other.map(double, made)
    with pytest.raises(RainException, match="belongs to session 1"):
        other.map(double, [[tasks[0]]])


def test_keep_flags(graph, client):
    made = graph.map(double, range(3))
    member = made[0]
    made.unkeep()
    assert not member.output.is_kept()
    assert not made[1].output.is_kept()
    with pytest.raises(RainException, match="not kept"):
        made.unkeep()
    made.keep()
    made[1].output.unkeep()
    _, chunk = chunks(graph)
    assert chunk.output_flags == bytes([KEEP, 0, KEEP])
    made.unkeep()
    assert not any(task.output.is_kept() for task in made)
    _, block = chunks(graph)
    assert not block.keep
    made[2].output.keep()
    assert made[2].output.is_kept()
    assert not made[1].output.is_kept()
    _, chunk = chunks(graph)
    assert chunk.output_flags == bytes([0, 0, KEEP])
    made[2].output.unkeep()
    assert isinstance(chunks(graph)[1], SubmitBlock)
    assert not graph.map(delayed(double, keep=False), [1])[0].output.is_kept()
    graph.keep_all()
    assert all(thing.is_kept() for thing in graph._things if not isinstance(thing, Task))


def test_results(session, server, pack):
    made = session.map(double, range(3))
    for index, task in enumerate(made):
        server.values[task.output.id.id] = encode_value(index, "pickle5")
        server.infos[task.output.id.id] = pack({"content_type": "pickle5"})
    assert not made.done()
    assert made.counts() == {}
    assert made.result() == [0, 1, 2]
    assert len(server.all(SubmitCommit)) == 1
    assert made[1].result() == 1
    assert list(made.iter_results()) == [0, 1, 2]
    assert sorted(made.iter_results(ordered=False)) == [0, 1, 2]
    made.wait()
    assert [task.state.name for task in made] == ["finished"] * 3
    server.states = {task.id.id: 4 + n for n, task in enumerate(made)}
    assert made.counts() == {"finished": 1, "failed": 1, "cancelled": 1}
    assert made.counts()["running"] == 0
    assert {(*one.firsts, *one.counts) for one in server.all(GetCounts)} == {(made[0].id.id, 3)}
    assert made.done()
    server.states[made[0].id.id] = 3
    assert not made.done()
    with pytest.raises(RainException, match="submitted"):
        made.keep()
    made.unkeep()
    with pytest.raises(RainException, match="not kept"):
        made.result()


def test_types_of_values(session, server, pack):
    made = session.map(double, range(3))
    numbers = [task.output.id.id for task in made]
    server.values = dict(zip(numbers, (b"raw", b"text", b"[1]"), strict=True))
    server.infos = {numbers[1]: pack({"content_type": "text"}), numbers[2]: pack({"content_type": "json"})}
    assert made.result() == [b"raw", "text", [1]]
    assert session.map(double, []).result() == []


def test_values_for_which_an_answer_had_no_room(session, server, monkeypatch):
    made = session.map(double, range(4))
    answer = server._answer

    def short(message):
        replies = answer(message)
        if isinstance(message, FetchObjects):
            replies[0].values[1:] = [None] * (len(message.ids) - 1)
        return replies

    monkeypatch.setattr(server, "_answer", short)
    assert made.result() == [b"value"] * 4
    assert [len(message.ids) for message in server.all(FetchObjects)] == [4, 3, 2, 1]


def test_submit_and_fetch_go_together(session, server):
    made = add(1)
    assert made.result() == b"value"
    kinds = [type(message) for message in server.received]
    assert kinds[-3:] == [SubmitChunk, SubmitCommit, FetchObjects]


def test_cancel(session, server):
    made = session.map(double, range(3))
    with pytest.raises(RainException, match="not submitted"):
        made.cancel()
    with pytest.raises(RainException, match="not submitted"):
        made.wait()
    session.submit()
    member = made[0]
    server.ended = {made[1].id.id}
    assert made.cancel() == 2
    assert server.all(Cancel)[0].ids == array("I", [task.id.id for task in made])
    assert member.state.name == "cancelled"
