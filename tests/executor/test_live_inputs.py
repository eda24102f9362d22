"""Calls whose inputs are made by earlier calls of the same batch."""

import cloudpickle

from rain.common.packing import pack, pack_args
from tests.executor.driver import FUNCTION, Input, pickler, plain, remote
from tests.executor.test_calls import failure_of, value_of

LARGE = 100_000


def increment(number):
    return number + 1


class Batch:
    """Calls of one function with outputs 1, 2, ...; the tasks have the same numbers plus 100."""

    def __init__(self, executor, function, template):
        self.executor = executor
        self.function = function
        self.template = template
        self.calls = []
        self.wanted = {}

    def call(self, *args, live=(), spec=None):
        for number in live:
            self.wanted.setdefault(number, [number, spec, None, None])
        output = len(self.calls) + 1
        packed = pack_args(args, {}, pickler)
        self.calls.append([output + 100, 1, 0, packed, [FUNCTION, *live], [output], None])
        return self

    def rows(self):
        objects = [[FUNCTION, None, None, cloudpickle.dumps(self.function)], *self.wanted.values()]
        self.executor.send(["calls", self.executor.session, [[0, self.template]], objects, self.calls])
        rows, _ = self.executor.results(len(self.calls))
        assert [row[0] for row in rows] == [call[0] for call in self.calls]
        return rows


def test_a_chain(executor):
    batch = Batch(executor, increment, plain()).call(5)
    for previous in range(1, 9):
        batch.call(Input(1), live=[previous])
    assert [value_of(row) for row in batch.rows()] == list(range(6, 15))


def test_two_inputs_of_the_batch(executor):
    batch = Batch(executor, lambda first, second: [first, second], plain())
    batch.call(1, 2).call(3, 4).call(Input(1), Input(2), live=[2, 1])
    assert value_of(batch.rows()[2]) == [[3, 4], [1, 2]]


def test_each_call_gets_its_own_copy(executor):
    def append(items):
        items.append(len(items))
        return items

    batch = Batch(executor, append, plain()).call([]).call(Input(1), live=[1]).call(Input(1), live=[1])
    assert [value_of(row) for row in batch.rows()] == [[0], [0, 1], [0, 1]]


def test_what_depends_on_a_failed_call_is_skipped(executor):
    def check(number):
        if number == 0:
            raise ValueError("zero")
        return number - 1

    batch = Batch(executor, check, plain()).call(1).call(Input(1), live=[1]).call(Input(1), live=[2])
    batch.call(Input(1), live=[3]).call(7)
    rows = batch.rows()
    assert "zero" in failure_of(rows[1]).message
    assert [len(row) for row in rows] == [6, 5, 2, 2, 6]
    assert rows[2] == [103, 1]


def test_a_large_value_is_not_at_hand(executor):
    batch = Batch(executor, lambda data: data * LARGE, plain()).call(b"a").call(Input(1), live=[1])
    rows = batch.rows()
    assert isinstance(rows[0][5][0][0], str)
    assert rows[1] == [102, 1]


def test_remote_functions_see_spec_and_info(executor):
    def describe(ctx, previous):
        if previous is None:
            return ctx.blob(b"text", content_type="text")
        return f"{previous.content_type} {previous.spec.label} {previous.get_bytes()!r} {previous.object_id}"

    spec = pack({"label": "made"})
    batch = Batch(executor, describe, remote()).call(None).call(Input(1), live=[1], spec=spec)
    text = batch.rows()[1][5][0][0].decode()
    assert text == f"text made b'text' {executor.session}/1"


def test_nothing_is_left_for_the_next_batch(executor):
    assert value_of(Batch(executor, increment, plain()).call(5).rows()[0]) == 6
    batch = Batch(executor, increment, plain()).call("x").call(Input(1), live=[7])
    rows = batch.rows()
    assert [len(row) for row in rows] == [5, 2]


def test_progress_counts_skipped_calls(fresh_executor):
    Batch(fresh_executor, increment, plain()).call("x").call(Input(1), live=[1]).call(3).rows()
    assert fresh_executor.progress() == 3
