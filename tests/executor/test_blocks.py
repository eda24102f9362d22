"""Blocks: what members give, and how a block ends early."""

import os
import pickle
import time

import pytest

from rain.common import fs
from rain.common.blocks import FULL, LATE, STORED, joined
from rain.common.content_type import decode_value, encode_value
from rain.common.failure import Failure
from rain.common.packing import PickledValue, pack, pack_args, unpack
from rain.executor.blocks import BLOCK_BYTES, Gathered, unpack_members
from tests.executor.driver import FUNCTION, Input, plain, remote


def bomb(message):
    """An argument that cannot be decoded."""
    return PickledValue(pickle.dumps(_Bomb(message)))


class _Bomb:
    def __init__(self, message):
        self.message = message

    def __reduce__(self):
        return eval, (f"int({self.message!r})",)


def failure_of(block):
    assert len(block.row) == 8
    return Failure.from_map(block.result.end)


class TestResults:
    def test_members_run_in_order(self, executor):
        before = time.time()
        block = executor.block(plain(), lambda a, b: a * b, [(n, 3) for n in range(1000)], run=2)
        task, run, start, duration, info, outputs, _, ran = block.row
        assert (task, run, info, outputs, ran) == (block.first, 2, None, [], 1000)
        assert before - 1 < start < time.time() + 1
        assert block.values == [3 * n for n in range(1000)]
        assert (block.result.end, block.result.start, block.result.duration) == (None, 0.0, 0.0)
        assert all(0.0 <= seconds < 10 for seconds in block.result.durations)
        assert sum(block.result.durations) <= duration + 1e-3
        assert block.result.kinds == b""

    @pytest.mark.parametrize(
        "value",
        [5, -1, 2**62, 2**3000, 1.5, True, None, "text", "\ud800", b"raw", (1, "a"), [], {"a": 1}],
    )
    def test_values_are_encoded_as_those_of_tasks(self, executor, value):
        ((data, info, _),) = executor.call(plain(), lambda a: a, value)[5]
        executor.drop_function()
        block = executor.block(plain(), lambda a: a, [(value,)] * 3)
        assert block.outputs == [(data, info)] * 3

    def test_values_of_different_kinds(self, executor):
        values = [1, "a", 2, b"b", "c", b"", 3]
        block = executor.block(plain(), lambda a: a, [(value,) for value in values])
        assert block.values == values
        assert sorted(block.result.infos, key=str) == sorted(
            [None, pack({"content_type": "text"}), pack({"content_type": "pickle5"})], key=str
        )

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("q", [0, -1, 255, 1 << 40, 1 - (1 << 63), (1 << 63) - 1]),
            ("d", [0.0, 1.5, -2.25e300]),
            ("", [1, 2.0]),
            ("", [True, 1]),
            ("", [None, None]),
            ("", [1, 1 << 63]),
            ("", [1, "text", b"\0" * 8]),
        ],
    )
    def test_numbers_make_a_column(self, executor, column, values):
        block = executor.block(plain(), lambda a: a, [(value,) for value in values])
        assert block.result.column == column
        assert [(type(value), value) for value in block.values] == [(type(value), value) for value in values]
        natural = [value for value in values if type(value) not in (str, bytes)]
        assert [data for data, _ in block.outputs][: len(natural)] == [encode_value(n, "pickle5") for n in natural]

    def test_numbers_of_remote_functions_make_a_column(self, executor):
        block = executor.block(remote({}, encode=["pickle5"]), lambda ctx, a: a, [(7,), (8,)])
        assert (block.result.column, block.values) == ("q", [7, 8])
        executor.drop_function()
        block = executor.block(remote({}, encode=["pickle"]), lambda ctx, a: a, [(7,), (8,)])
        assert (block.result.column, block.values) == ("", [7, 8])

    def test_an_encoding_asked_for(self, executor):
        template = {**plain(), "config": {"plain": True, "encode_outputs": ["json"]}}
        block = executor.block(template, lambda a: a, [(1,), (2,)])
        assert [data for data, _ in block.outputs] == [b"1", b"2"]
        assert [unpack(info) for _, info in block.outputs] == [{"content_type": "json"}] * 2

    def test_keyword_arguments(self, executor):
        args = b"".join(pack_args([n], {"b": 10} if n % 2 else {}) for n in range(4))
        block = executor.block(plain(), lambda a, b=0: a + b, [()] * 4, packed=joined(4, args))
        assert block.values == [0, 11, 2, 13]

    def test_one_member(self, executor):
        assert executor.block(plain(), lambda: "x", [()]).values == ["x"]

    def test_functions_with_context(self, executor):
        block = executor.block(
            remote({}, encode=["pickle"]), lambda ctx, a: (ctx.spec.id.id, ctx.attempt, a), [(7,)] * 3
        )
        assert block.values == [(block.first + n, 1, 7) for n in range(3)]

    def test_further_inputs(self, executor):
        inputs = [[11, None, pack({"content_type": "pickle5"}), encode_value([1], "pickle5")]]

        def function(items, n):
            items.append(n)
            return items

        block = executor.block(plain(), function, [(Input(1), n) for n in range(3)], inputs)
        assert block.values == [[1, 0], [1, 1], [1, 2]]

    def test_the_next_batch_is_as_usual(self, executor):
        executor.block(plain(), lambda: 1, [()] * 3)
        executor.drop_function()
        row = executor.call(plain(), lambda: 1)
        assert len(row) == 6

    def test_progress_counts_a_block_once(self, fresh_executor):
        fresh_executor.block(plain(), lambda: 1, [()] * 50)
        assert fresh_executor.progress() == 1
        fresh_executor.batch(plain(), None, [()] * 2)
        fresh_executor.results(2)
        assert fresh_executor.progress() == 3

    def test_a_forbidden_block_does_not_begin(self, fresh_executor):
        with open(fresh_executor.root / "progress", "r+b") as file:
            file.seek(8)
            file.write((1).to_bytes(8, "little"))
        with pytest.raises((EOFError, ConnectionResetError)):
            fresh_executor.block(plain(), lambda: 1, [()] * 5)
        assert fresh_executor.wait_gone() == 0
        assert fresh_executor.progress() == 0


class TestSurroundings:
    def test_the_context_is_that_of_the_member(self, executor):
        def function(n):
            from rain.executor.context import get_context

            if n == 1:
                return None
            context = get_context()
            return context.spec.id.id, [output.id for output in context.spec.outputs], context.attempt

        block = executor.block(plain(), function, [(n,) for n in range(4)], run=3)
        expected = [(block.first + n, [1000 * block.first + n], 3) for n in range(4)]
        expected[1] = None
        assert block.values == expected

    def test_each_member_has_a_clean_directory(self, executor):
        def function():
            import os
            import time

            time.sleep(1e-5)
            found = os.listdir(".")
            with open("left", "w"):
                pass
            os.mkdir("deeper")
            os.chdir("deeper")
            return found

        block = executor.block(plain(), function, [()] * 5)
        assert block.values == [[]] * 5
        assert os.listdir(executor.root / "task") == []

    def test_staged_files_are_dropped(self, executor):
        def function(ctx):
            with open("file", "w") as file:
                file.write("x")
            return ctx.stage_file("file")

        block = executor.block(remote({}), function, [()] * 3)
        assert [data for data, _ in block.outputs] == [b"x"] * 3
        assert os.listdir(executor.root / "stage") == []


class TestFailures:
    def test_of_a_member(self, executor):
        def function(n):
            from rain.executor.context import get_context

            if n == 3:
                get_context().debug("here")
                raise ValueError("three")
            return n

        before = time.time()
        block = executor.block(plain(), function, [(n,) for n in range(6)], run=4)
        assert block.values == [0, 1, 2]
        assert block.row[7] == 4
        failure = failure_of(block)
        assert (failure.kind, failure.session, failure.task, failure.attempts) == ("task", 1, block.first + 3, 4)
        assert failure.message.endswith("ValueError: three")
        assert failure.debug == "here"
        assert type(pickle.loads(failure.exception)) is ValueError
        assert before - 1 < block.result.start < time.time() + 1
        assert 0.0 <= block.result.duration < 10

    @pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt()])
    def test_exit(self, executor, raised):
        def function():
            raise raised

        block = executor.block(plain(), function, [()] * 3)
        assert type(raised).__name__ in failure_of(block).message
        assert block.result.done == 0
        assert block.row[7] == 1

    def test_a_result_that_cannot_be_encoded(self, executor):
        block = executor.block(plain(), lambda n: n if n < 2 else (x for x in ()), [(n,) for n in range(4)])
        assert "Cannot pickle the result of type 'generator'" in failure_of(block).message
        assert block.values == [0, 1]

    def test_an_argument_that_cannot_be_decoded(self, executor):
        arguments = [(1,), (2,), (bomb("word"),), (3,)]
        block = executor.block(plain(), lambda a: a, arguments)
        failure = failure_of(block)
        assert "invalid literal for int() with base 10: 'word'" in failure.message
        assert failure.task == block.first + 2
        assert block.values == [1, 2]

    def test_arguments_that_end_early(self, executor):
        for args in (pack_args([1], {}), pack_args([1], {}) + b"\x92\x91"):
            executor.drop_function()
            block = executor.block(plain(), lambda a: a, [()] * 3, packed=joined(3, args))
            assert "3 members were announced, arguments of 1 came" in failure_of(block).message
            assert block.values == [1]

    def test_a_function_that_cannot_be_loaded_is_no_fault_of_a_member(self, executor):
        template = plain()
        args = joined(2, pack_args([], {}) * 2)
        garbage = [FUNCTION, None, None, b"garbage"]
        for objects in ([garbage], []):
            executor.send(["block", 1, [[0, template]], objects, [50, 1, 0, args, [FUNCTION], 60, 2, None]])
            (row,), cached = executor.results(1)
            assert len(row) == 5
            assert Failure.from_map(row[4]).task == 50
            assert cached == []

    def test_an_input_that_was_not_sent_is_no_fault_of_a_member(self, executor):
        executor.block(plain(), lambda a: a, [(1,)])
        executor.send(["block", 1, [], [], [50, 1, 0, joined(1, pack_args([1], {})), [FUNCTION, 11], 60, 1, None]])
        (row,), _ = executor.results(1)
        assert "Data object 1/11 was not sent" in Failure.from_map(row[4]).message

    def test_a_crash(self, fresh_executor):
        def function(n):
            import os

            if n == 2:
                os._exit(3)

        with pytest.raises((EOFError, ConnectionResetError)):
            fresh_executor.block(plain(), function, [(n,) for n in range(5)])
        assert fresh_executor.wait_gone() == 3
        assert fresh_executor.progress() == 1


class TestEarlyEnds:
    def test_late(self, executor):
        def function(n):
            import time

            if n == 2:
                time.sleep(0.26)
            return n

        block = executor.block(plain(), function, [(n,) for n in range(5)])
        assert block.result.end == LATE
        assert block.values == [0, 1, 2]
        assert block.row[7] == 3
        assert (block.result.start, block.result.duration) == (0.0, 0.0)

    def test_the_last_member_is_not_late(self, executor):
        block = executor.block(plain(), lambda: __import__("time").sleep(0.26), [()])
        assert block.result.end is None
        assert block.values == [None]

    def test_full(self, executor):
        size = 60_000
        block = executor.block(plain(), lambda n: bytes(n), [(size,)] * 100)
        assert block.result.end == FULL
        assert block.result.done == BLOCK_BYTES // size + 1
        assert len(block.result.values) == size * block.result.done

    @pytest.mark.parametrize("value", [b"x" * (64 << 10), "y" * (64 << 10)])
    def test_a_large_value(self, executor, value):
        block = executor.block(plain(), lambda n: value if n == 1 else n, [(n,) for n in range(3)])
        assert block.result.end == STORED
        assert block.values == [0]
        assert block.row[7] == 2
        assert block.row[4] is None
        ((path, _, size),) = block.row[5]
        with open(path, "rb") as file:
            data = file.read()
        assert data == (value if isinstance(value, bytes) else value.encode())
        assert size == len(data)
        assert block.result.start > 0.0

    def test_an_input_that_is_passed_on(self, executor):
        inputs = [[11, None, None, b"raw"]]
        block = executor.block(remote({}), lambda ctx, source: source, [(Input(1),)] * 3, inputs)
        assert block.result.end == STORED
        assert block.result.done == 0
        assert block.row[5][0][0] == 11

    def test_a_directory(self, executor):
        def function(ctx):
            import os

            os.mkdir("d")
            return ctx.stage_directory("d")

        block = executor.block(remote({"data_type": "dir"}), function, [()] * 2)
        assert block.result.end == STORED
        ((tar, _, size),) = block.row[5]
        assert size == fs.packed_size(tar) == 0

    @pytest.mark.parametrize("what", ["user", "debug"])
    def test_task_info_to_tell(self, executor, what):
        def function(n, what):
            from rain.executor.context import get_context

            context = get_context()
            if n == 1 and what == "user":
                context.info.user["key"] = n
            if n == 1 and what == "debug":
                context.debug("text")
            return n

        block = executor.block(plain(), function, [(n, what) for n in range(3)])
        assert block.result.end == STORED
        assert block.values == [0]
        ((data, info, _),) = block.row[5]
        assert decode_value(data, unpack(info)["content_type"]) == 1
        assert unpack(block.row[4]) == ({"user": {"key": 1}} if what == "user" else {"debug": "text"})

    def test_more_kinds_of_infos_than_a_report_can_tell(self, executor):
        def function(ctx, n):
            result = ctx.blob(b"x")
            result.info.user["n"] = n
            return result

        block = executor.block(remote({}), function, [(n,) for n in range(300)])
        assert block.result.end == STORED
        assert [unpack(info)["user"]["n"] for _, info in block.outputs] == list(range(256))
        assert unpack(block.row[5][0][1])["user"] == {"n": 256}


class TestGathered:
    def test_ran_counts_the_one_that_ended_it(self):
        gathered = Gathered(5, 1000.0)
        gathered.durations += [0.1, 0.1]
        gathered.values += [b"a", b"b"]
        assert (gathered.done, gathered.ran) == (2, 2)
        gathered.end_failed({"kind": "task"}, 1.0, 1.5)
        assert (gathered.done, gathered.ran) == (2, 3)
        assert (gathered.result().start, gathered.result().duration) == (1001.0, 0.5)

    def test_unpacking_is_done_at_once_unless_it_fails(self):
        packed = joined(2, pack_args([1], {}) + pack_args([], {"a": 2}))
        assert unpack_members(packed) == (((1,), {}), ((), {"a": 2}))
        broken = unpack_members(joined(2, pack_args([1], {}) + pack_args([bomb("x")], {})))
        assert next(iter(broken)) == ((1,), {})
        with pytest.raises(ValueError, match="invalid literal"):
            list(broken)


class TestOwnSpecs:
    def test_the_spec_of_a_call_replaces_that_of_its_template(self, executor):
        specs = [pack({"label": "mine", "content_type": "json"})]
        executor.batch(remote({"label": "x"}), lambda ctx: ctx.blob(b"1", content_type="text"), [()], specs=specs)
        (row,), _ = executor.results(1)
        assert "Output 'mine' has content type 'json'" in row[4]["message"]

    def test_none_means_that_of_the_template(self, executor):
        template = remote({"label": "x", "content_type": "json"}, {"label": "y"})
        specs = [None, pack({"label": "z"})]
        executor.batch(template, lambda ctx: {"x": b"1", "z": b"2"}, [()], specs=specs)
        (row,), _ = executor.results(1)
        assert [data for data, _, _ in row[5]] == [b"1", b"2"]
