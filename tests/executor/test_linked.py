"""Linked blocks: members that use what earlier ones gave, and what of that is reported."""

import copy
import pickle
import random
import sys
from array import array

import cloudpickle
import msgpack
import numpy
import pytest

from rain.client.embedding import reference_pickle
from rain.common.blocks import FULL, LATE, STORED, BlockResult, joined
from rain.common.content_type import decode_value, encode_value
from rain.common.failure import Failure
from rain.common.links import Link, pack_assigned
from rain.common.packing import PickledValue, pack, pack_args, unpack
from rain.executor.blocks import BLOCK_BYTES
from rain.executor.linked import reference_index
from tests.executor.driver import Input, pickler, plain, remote

PLAIN = plain()
PICKLE5 = pack({"content_type": "pickle5"})
LARGE = 64 << 10


def increment(number):
    return number + 1


def add(first, second):
    return first + second


def append(items, item):
    items.append(item)
    return items


class Block:
    """A linked block in the making. `ids`: further inputs by their rows. `row`, `result`: what came back."""

    number = 0

    def __init__(self, executor):
        Block.number += 1
        self.executor = executor
        self.base = 100_000 * Block.number
        self.functions = []
        self.templates = []
        self.rows = []
        self.members = []
        self.wanted = []
        self.row = self.result = None

    def call(self, function, *args, uses=(), template=PLAIN, wanted=False, **kwargs):
        """Add a member; returns its position. uses: the inputs that `Input(1)` and so on stand for, earlier members by
        their positions, others by their rows."""
        if function not in self.functions:
            self.functions.append(function)
        if template not in self.templates:
            self.templates.append(template)
        for one in uses:
            if isinstance(one, list) and one not in self.rows:
                self.rows.append(one)
        args, kwargs = [packable(value) for value in args], {name: packable(value) for name, value in kwargs.items()}
        packed = pack_args(args, kwargs, pickler)
        self.members.append((self.templates.index(template), self.functions.index(function), list(uses), packed))
        self.wanted.append(wanted)
        return len(self.members) - 1

    def link(self):
        rows, count = [row[0] for row in self.rows], len(self.functions)
        references = array("H")
        for _, function, uses, _ in self.members:
            inputs = len(rows) + count
            references.append(function)
            references.extend(count + rows.index(one[0]) if isinstance(one, list) else inputs + one for one in uses)
        templates = [self.base + number for number in range(len(self.templates))]
        which = bytes(kind for kind, *_ in self.members) if len(templates) > 1 else b""
        counts = bytes(1 + len(uses) for _, _, uses, _ in self.members)
        return Link(templates, which, counts, references, len(rows) + count)

    def send(self, *, args=None, functions=None, run=1):
        dumped = functions or [cloudpickle.dumps(function) for function in self.functions]
        objects = [[self.base + n, None, None, data] for n, data in enumerate(dumped)] + self.rows
        templates = [[self.base + n, template] for n, template in enumerate(self.templates)]
        ids = [*range(self.base, self.base + len(self.functions)), *(row[0] for row in self.rows)]
        args = args or joined(len(self.members), b"".join(packed for *_, packed in self.members))
        link = self.link()
        assigned = pack_assigned(link.pack(), bytes(self.wanted))
        row = [self.task, run, link.template(0), args, ids, self.output, len(self.members), assigned]
        self.executor.send(["block", 1, templates, objects, row])

    def run(self, **more):
        self.send(**more)
        (self.row,), self.cached = self.executor.results(1)
        if len(self.row) == 8:
            self.result = BlockResult.unpack(self.row[6])
        return self

    @property
    def task(self):
        return self.base + 10_000

    @property
    def output(self):
        return self.base + 50_000

    @property
    def reported(self):
        """Bytes of values, in order."""
        starts = [sum(self.result.sizes[:position]) for position in range(self.result.done)]
        return [self.result.value(position, start) for position, start in enumerate(starts)]

    def value(self, position=-1):
        """One of the values."""
        position %= self.result.done
        info = self.result.infos[self.result.kinds[position] if self.result.kinds else 0]
        data = self.reported[position]
        return decode_value(data, unpack(info)["content_type"]) if info else data

    @property
    def told(self):
        """Positions of the members of which a value was reported; only where values are no column."""
        assert not self.result.column
        return [position for position, data in enumerate(self.reported) if data]

    @property
    def failure(self):
        return Failure.from_map(self.result.end)


def packable(value):
    """As the client packs arguments that are data objects themselves."""
    return PickledValue(reference_pickle(*value.arguments)) if isinstance(value, Input) else value


@pytest.fixture
def block(executor):
    return Block(executor)


def given(value, number=11, content_type="pickle5"):
    """Row of an input."""
    return [number, None, pack({"content_type": content_type}), encode_value(value, content_type)]


class TestValues:
    def test_a_chain(self, block):
        last = block.call(increment, 0)
        for _ in range(999):
            last = block.call(increment, Input(1), uses=[last])
        block.wanted[last] = True
        block.run(run=3)
        task, run, start, duration, info, outputs, _, ran = block.row
        assert (task, run, info, outputs, ran) == (block.task, 3, None, [], 1000)
        assert block.value() == 1000
        assert block.result.end is None
        assert sum(block.result.durations) <= duration + 1e-3
        assert start > 1e9

    def test_a_tree_of_several_functions(self, block):
        level = [block.call(increment, n) for n in range(8)]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [block.call(add, Input(1), Input(2), uses=pair) for pair in pairs]
        block.wanted[level[0]] = True
        assert block.run().value() == 36
        assert sorted(block.cached) == [[1, block.base], [1, block.base + 1]]

    def test_constants_beside_references(self, block):
        first = block.call(increment, 1)
        block.call(lambda a, b, c, d: (a, b, c, d), "x", Input(1), 2.5, Input(1), uses=[first], wanted=True)
        assert block.run().value() == ("x", 2, 2.5, 2)

    def test_references_in_another_order(self, block):
        one, two = block.call(increment, 1), block.call(increment, 2)
        block.call(lambda *values: values, Input(2), Input(1), Input(2), uses=[one, two], wanted=True)
        assert block.run().value() == (3, 2, 3)

    def test_keyword_arguments(self, block):
        one = block.call(increment, 1)
        block.call(lambda a, *, b, c: (a, b, c), Input(1), b=Input(1), c=[Input(1)], uses=[one], wanted=True)
        assert block.run().value() == (2, 2, [2])

    def test_references_inside_of_containers(self, block):
        one, two = block.call(increment, 1), block.call(append, [], "x")
        values = {"all": [Input(1), (Input(2), Input(2))]}
        block.call(lambda values: values, values, uses=[one, two], wanted=True)
        assert block.run().value() == {"all": [2, (["x"], ["x"])]}

    def test_inputs_of_the_block(self, block):
        source, text = given([1]), given("text", 12, "text")
        first = block.call(append, Input(1), 2, uses=[source])
        block.call(lambda *values: values, Input(1), Input(2), Input(3), uses=[source, first, text], wanted=True)
        assert block.run().value() == ([1], [1, 2], "text")

    def test_a_number_among_the_inputs(self, block):
        number = given(5)
        one = block.call(increment, Input(1), uses=[number])
        block.call(add, Input(1), Input(2), uses=[number, one], wanted=True)
        assert block.run().value() == 11

    def test_an_input_in_a_file(self, block, tmp_path):
        (tmp_path / "value").write_bytes(encode_value("content", "pickle5"))
        row = [11, None, PICKLE5, str(tmp_path / "value")]
        for _ in range(2):
            block.call(lambda value: value, Input(1), uses=[row], wanted=True)
        block.run()
        assert [block.value(0), block.value(1)] == ["content"] * 2

    @pytest.mark.parametrize(
        "value",
        [0, -1, 2**63 - 1, 2**63, -(2**63), 2**3000, 1.5, True, None, "text", "", "\ud800", b"raw", b"", (1, "a"), [],
         {"a": {1}}, bytearray(b"x"), 1j],
    )  # fmt: skip
    def test_what_arrives_is_what_a_task_of_its_own_would_get(self, block, value):
        first = block.call(lambda value: value, value, wanted=True)
        block.call(lambda value: (type(value).__name__, value), Input(1), uses=[first], wanted=True)
        block.run()
        decoded = block.value(0)
        assert block.value(1) == (type(decoded).__name__, decoded)

    def test_an_encoding_asked_for(self, block):
        template = {**PLAIN, "config": {"plain": True, "encode_outputs": ["json"]}}
        first = block.call(lambda: (1, 2), template=template)
        block.call(lambda value: value, Input(1), uses=[first], wanted=True)
        assert block.run().value() == [1, 2]

    def test_a_static_type_that_text_is_not(self, block):
        first = block.call(lambda: b"[1]", template=plain(content_type="json"))
        block.call(lambda value: value, Input(1), uses=[first], wanted=True)
        assert block.run().value() == [1]

    def test_arrays(self, block):
        first = block.call(lambda: numpy.arange(5))
        changed = block.call(lambda a: a * 2, Input(1), uses=[first])
        block.call(lambda a, b: (a.tolist(), b.sum()), Input(1), Input(2), uses=[first, changed], wanted=True)
        assert block.run().value() == ([0, 1, 2, 3, 4], 20)

    def test_a_class_of_main(self, block, monkeypatch):
        namespace = {"__name__": "__main__"}
        exec("from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int", namespace)
        point = namespace["Point"]
        monkeypatch.setattr(sys.modules["__main__"], "Point", point, raising=False)

        def shifted(one):
            return type(one)(one.x + 1)

        first = block.call(shifted, point(1))
        second = block.call(shifted, Input(1), uses=[first])
        block.call(lambda one: one.x, Input(1), uses=[second], wanted=True)
        assert block.run().value() == 3

    def test_nobody_sees_what_others_change(self, block):
        first = block.call(lambda: [1])
        second = block.call(append, Input(1), 2, uses=[first])
        third = block.call(append, Input(1), 3, uses=[first])
        block.call(lambda *values: values, *map(Input, (1, 2, 3)), uses=[first, second, third], wanted=True)
        assert block.run().value() == ([1], [1, 2], [1, 3])

    def test_what_a_member_changes_after_its_end_is_not_seen(self, block):
        def keep(items):
            import builtins

            builtins.kept_by_a_member = items
            return items

        def change(items):
            import builtins

            builtins.kept_by_a_member.append("late")
            return items

        first = block.call(keep, ["early"], wanted=True)
        block.call(change, Input(1), uses=[first], wanted=True)
        block.run()
        assert (block.value(0), block.value(1)) == (["early"], ["early"])

    def test_many_kinds_of_arguments(self, block):
        """More different references than are remembered, and some that only look like them."""
        one = block.call(increment, 1)
        for n in range(300):
            block.call(add, Input(1, f"name {n}"), n, uses=[one])
        block.call(lambda *values: values, "unpickle_input_object", Input, uses=[], wanted=True)
        block.call(lambda value: value, Input(1), uses=[one], wanted=True)
        assert block.run().value() == 2

    def test_any_graph(self, executor):
        """As if each call were made by itself, with copies of its arguments."""
        functions = [
            lambda *values: sum(value if isinstance(value, int) else 1 for value in values) % 1000,
            lambda *values: [*values],
            lambda *values: " ".join(map(str, values)),
            lambda *values: values[0] if values else None,
            lambda *values: float(len(values)),
        ]
        for seed in range(30):
            chance, block, expected = random.Random(seed), Block(executor), []
            for position in range(chance.randrange(1, 40)):
                function = chance.choice(functions)
                uses = chance.sample(range(position), chance.randrange(min(position, 3) + 1))
                args = [Input(n + 1) for n in range(len(uses))] + chance.choice([[], [7], ["x", None]])
                wrap = chance.random() < 0.2
                actual = [copy.deepcopy(expected[one]) for one in uses] + args[len(uses) :]
                expected.append(function(actual) if wrap else function(*actual))
                block.call(function, *([args] if wrap else args), uses=uses, wanted=chance.random() < 0.5)
            block.run()
            wanted = [position for position, flag in enumerate(block.wanted) if flag]
            assert [block.value(position) for position in wanted] == [expected[position] for position in wanted]
            if not block.result.column:
                others = set(range(len(expected))).difference(wanted)
                assert all(not block.reported[position] for position in others)


class TestRemoteFunctions:
    def test_they_get_instances(self, block):
        def describe(ctx, source):
            return f"{source.content_type} {source.spec.label} {source.get_bytes()!r} {source.object_id} {source.size}"

        first = block.call(lambda ctx: ctx.blob(b"one", content_type="text"), template=remote({"label": "made"}))
        block.call(describe, Input(1), uses=[first], template=remote(), wanted=True)
        assert block.run().value() == f"text made b'one' 1/{block.output} 3"

    def test_numbers_are_instances_for_them(self, block):
        first = block.call(increment, 1)
        encoded, loaded = remote(encode=["pickle5"]), Input(1, load=True)
        second = block.call(lambda ctx, a: a.load() + 1, Input(1), uses=[first], template=encoded)
        block.call(lambda ctx, a: a + 1, loaded, uses=[second], template=remote(encode=["json"]), wanted=True)
        assert block.run().value() == 4

    def test_a_type_that_was_not_asked_for(self, block):
        first = block.call(increment, 1)
        block.call(lambda ctx, a: b"", Input(1, "a", content_type="text"), uses=[first], template=remote())
        block.run()
        assert "must have content type 'text'" in block.failure.message
        assert block.failure.task == block.task + 1

    def test_an_earlier_output_passed_on(self, block):
        first = block.call(lambda ctx: b"raw", template=remote())
        second = block.call(lambda ctx, source: source, Input(1), uses=[first], template=remote(), wanted=True)
        block.call(lambda value: value + b"!", Input(1), uses=[second], wanted=True)
        block.run()
        assert (block.result.end, block.value(1), block.value(2)) == (None, b"raw", b"raw!")

    def test_an_input_of_the_block_passed_on(self, block):
        block.call(lambda ctx, source: source, Input(1), uses=[[11, None, None, b"raw"]], template=remote())
        block.run()
        assert block.result.end == STORED
        assert block.row[5][0][0] == 11

    def test_a_number_passed_on(self, block):
        first = block.call(increment, 1)
        block.call(lambda ctx, source: source, Input(1), uses=[first], template=remote(), wanted=True)
        assert block.run().value() == 2


class TestSurroundings:
    def test_the_context_is_that_of_the_member(self, block):
        def function(*values):
            from rain.executor.context import get_context

            spec = get_context().spec
            return spec.id.id, [one.id.id for one in spec.inputs], [one.id for one in spec.outputs], spec.name

        one, other = given(1), {**PLAIN, "name": "other"}
        first = block.call(function, wanted=True)
        second = block.call(function, Input(1), Input(2), uses=[one, first], template=other, wanted=True)
        block.call(function, Input(1), uses=[second], wanted=True)
        block.run()
        base, task, output = block.base, block.task, block.output
        assert block.value(0) == (task, [base], [output], None)
        assert block.value(1) == (task + 1, [base, 11, output], [output + 1], "other")
        assert block.value(2) == (task + 2, [base, output + 1], [output + 2], None)

    def test_the_context_of_a_remote_function(self, block):
        def function(ctx, *sources):
            return (ctx.attempt, ctx.spec.id.id, [source.load() for source in sources])

        template = remote(encode=["pickle"])
        first = block.call(function, template=template)
        block.call(function, Input(1), uses=[first], template=template, wanted=True)
        assert block.run(run=4).value() == (4, block.task + 1, [(4, block.task, [])])

    def test_each_member_has_a_clean_directory(self, block):
        def function(*earlier):
            import os
            import time

            time.sleep(1e-5)
            found = os.listdir(".")
            with open("left", "w"):
                pass
            return found

        last = block.call(function, wanted=True)
        for _ in range(3):
            last = block.call(function, Input(1), uses=[last], wanted=True)
        block.run()
        assert [block.value(position) for position in range(4)] == [[]] * 4

    def test_what_members_write(self, executor):
        def function(n, *earlier):
            if n % 2:
                print("line", n)
            return n

        block = Block(executor)
        executor.wrote()
        last = block.call(function, 0)
        for n in range(1, 5):
            last = block.call(function, n, Input(1), uses=[last])
        block.run()
        assert [(task, out) for task, _, out, _ in executor.wrote() if out] == [
            (block.task + 1, b"line 1\n"),
            (block.task + 3, b"line 3\n"),
        ]

    def test_progress_counts_a_block_once(self, fresh_executor):
        block = Block(fresh_executor)
        for n in range(20):
            block.call(increment, n)
        block.run()
        assert fresh_executor.progress() == 1

    def test_the_next_frames_are_as_usual(self, executor):
        block = Block(executor)
        block.call(increment, 1, wanted=True)
        block.run()
        assert executor.block(PLAIN, lambda n: n, [(1,), (2,)]).values == [1, 2]
        executor.drop_function()
        assert len(executor.call(PLAIN, lambda: 1)) == 6

    def test_functions_that_are_known_are_not_sent_again(self, executor):
        block = Block(executor)
        block.call(increment, 1, wanted=True)
        block.run()
        again = Block(executor)
        again.base, again.rows = block.base, []
        again.call(increment, 2, wanted=True)
        link = pack_assigned(again.link().pack(), b"\1")
        row = [again.task, 1, again.base, joined(1, again.members[0][3]), [again.base], again.output, 1, link]
        executor.send(["block", 1, [], [], row])
        (row,), cached = executor.results(1)
        assert BlockResult.unpack(row[6]).value(0, 0) == encode_value(3, "pickle5")
        assert cached == []


class TestReports:
    def test_only_what_is_wanted(self, block):
        first = block.call(lambda: "a", wanted=True)
        second = block.call(add, Input(1), "b", uses=[first])
        block.call(add, Input(1), "c", uses=[second], wanted=True)
        block.run()
        assert block.told == [0, 2]
        assert [block.value(0), block.value(2)] == ["a", "abc"]

    def test_nothing_wanted(self, block):
        last = block.call(increment, 1)
        block.call(increment, Input(1), uses=[last])
        block.run()
        assert block.told == []
        assert block.result.done == 2

    @pytest.mark.parametrize(("value", "column", "other"), [(5, "q", 0), (2.5, "d", 0.0)])
    def test_numbers_make_a_column(self, block, value, column, other):
        for wanted in (False, True, False, True):
            block.call(lambda number: number, value, wanted=wanted)
        block.call(lambda: "not wanted")
        block.run()
        assert block.result.column == column
        assert block.value(0) == block.value(2) == other
        assert block.value(1) == block.value(3) == value

    def test_different_types_make_none(self, block):
        block.call(lambda: 1, wanted=True)
        block.call(lambda: 1.5, wanted=True)
        block.call(lambda: None)
        block.run()
        assert block.told == [0, 1]

    def test_none_and_bool_are_values(self, block):
        block.call(lambda: None, wanted=True)
        block.call(lambda: False, wanted=True)
        block.run()
        assert block.told == [0, 1]
        assert (block.value(0), block.value(1)) == (None, False)


class TestEarlyEnds:
    """Members 0 to 3 give texts, each with that of the one before; 4 ends the block; 5 uses 1 and 4."""

    def story(self, executor, function, *, wanted=False):
        block = Block(executor)
        last = block.call(lambda: "a", wanted=wanted)
        for name in "bcd":
            last = block.call(add, Input(1), name, uses=[last])
        last = block.call(function, Input(1), uses=[2])
        block.call(add, Input(1), Input(2), uses=[1, last], wanted=True)
        return block.run()

    def test_a_failure(self, executor):
        block = self.story(executor, lambda text: text + 5)
        assert "TypeError" in block.failure.message
        assert block.failure.task == block.task + 4
        assert (block.result.done, block.row[7]) == (4, 5)
        assert block.told == [1, 2]  # 2 for the one that failed and may run again
        assert (block.value(1), block.value(2)) == ("ab", "abc")
        assert block.result.start > 1e9

    def test_what_is_wanted_is_told_too(self, executor):
        block = self.story(executor, lambda text: text + 5, wanted=True)
        assert block.told == [0, 1, 2]

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    def test_exit(self, executor, error):
        def function(text):
            raise error(3)

        block = self.story(executor, function)
        assert error.__name__ in block.failure.message
        assert block.told == [1, 2]

    def test_an_unpicklable_result(self, executor):
        block = self.story(executor, lambda text: (n for n in text))
        assert "Cannot pickle the result of type 'generator'" in block.failure.message
        assert block.told == [1, 2]

    def test_late(self, executor):
        def function(text):
            import time

            time.sleep(0.26)
            return text

        block = self.story(executor, function)
        assert block.result.end == LATE
        assert (block.result.done, block.row[7]) == (5, 5)
        assert block.told == [1, 4]
        assert (block.value(1), block.value(4)) == ("ab", "abc")

    def test_late_with_numbers(self, block):
        def function(number):
            import time

            if number == 1:
                time.sleep(0.26)
            return number + 1

        last = block.call(function, 0)
        for _ in range(3):
            last = block.call(function, Input(1), uses=[last], wanted=True)
        block.wanted[1] = False
        block.run()
        assert (block.result.end, block.result.done, block.result.column) == (LATE, 2, "q")
        assert [block.value(0), block.value(1)] == [0, 2]

    def test_the_last_member_is_not_late(self, block):
        block.call(lambda: __import__("time").sleep(0.26), wanted=True)
        assert block.run().result.end is None

    def test_a_large_value(self, executor):
        block = self.story(executor, lambda text: text * LARGE)
        assert block.result.end == STORED
        assert (block.result.done, block.row[7]) == (4, 5)
        assert block.told == [1, 2]
        ((path, _, size),) = block.row[5]
        with open(path) as file:
            assert file.read() == "abc" * LARGE
        assert size == 3 * LARGE

    @pytest.mark.parametrize("what", ["user", "debug"])
    def test_task_info_to_tell(self, executor, what):
        def function(text, what=what):
            from rain.executor.context import get_context

            if what == "user":
                get_context().info.user["key"] = text
            else:
                get_context().debug(text)
            return text

        block = self.story(executor, function)
        assert block.result.end == STORED
        assert block.told == [1, 2]
        assert block.row[5][0][0] == b"abc"
        assert unpack(block.row[4]) == ({"user": {"key": "abc"}} if what == "user" else {"debug": "abc"})

    def test_task_info_with_a_number(self, block):
        def function():
            from rain.executor.context import get_context

            get_context().debug("text")
            return 5

        block.call(function)
        block.run()
        assert block.result.end == STORED
        assert block.row[5][0][0] == encode_value(5, "pickle5")

    def test_a_directory(self, block):
        def function(ctx):
            import os

            os.mkdir("d")
            return ctx.stage_directory("d")

        block.call(increment, 1)
        block.call(function, template=remote({"data_type": "dir"}))
        block.run()
        assert (block.result.end, block.result.done) == (STORED, 1)
        assert block.row[5][0][2] == 0

    def test_more_kinds_of_infos_than_a_report_can_tell(self, block):
        def function(ctx, n):
            result = ctx.blob(b"x")
            result.info.user["n"] = n
            return result

        for n in range(300):
            block.call(function, n, template=remote(), wanted=True)
        block.run()
        assert block.result.end == STORED
        assert [unpack(info)["user"]["n"] for info in block.result.infos] == list(range(256))

    def test_arguments_that_cannot_be_decoded(self, block):
        first = block.call(increment, 1)
        block.call(increment, PickledValue(pickle.dumps(_Bomb())), uses=[first])
        block.call(increment, Input(1), uses=[first], wanted=True)
        block.run()
        assert "invalid literal" in block.failure.message
        assert (block.result.done, block.value(0)) == (1, 2)

    def test_arguments_that_are_missing(self, block):
        block.call(increment, 1)
        block.call(increment, 2)
        block.run(args=joined(1, block.members[0][3]))
        assert (block.result.done, block.row[7]) == (1, 2)
        assert block.failure.task == block.task + 1

    def test_a_reference_beyond_the_inputs_of_the_member(self, block):
        first = block.call(increment, 1)
        block.call(increment, Input(2), uses=[first])
        block.call(increment, Input(1), uses=[first])
        block.run()
        assert block.result.done == 1
        assert "IndexError" in block.failure.message

    def test_a_crash(self, fresh_executor):
        block = Block(fresh_executor)
        first = block.call(increment, 1)
        block.call(lambda n: __import__("os")._exit(3), Input(1), uses=[first])
        block.send()
        with pytest.raises((EOFError, ConnectionResetError)):
            fresh_executor.receive()
        assert fresh_executor.wait_gone() == 3
        assert fresh_executor.progress() == 1


class TestFull:
    SIZE = 60_000
    LIMIT = BLOCK_BYTES // SIZE + 1

    def test_wanted_values(self, block):
        for _ in range(100):
            block.call(bytes, self.SIZE, wanted=True)
        block.run()
        assert (block.result.end, block.result.done) == (FULL, self.LIMIT)

    def test_values_that_nobody_needs_do_not_count(self, block):
        for _ in range(100):
            block.call(bytes, self.SIZE)
        block.call(increment, 1, wanted=True)
        block.run()
        assert (block.result.end, block.result.done) == (None, 101)

    def test_values_that_nobody_needs_any_more_do_not_count(self, block):
        last = block.call(bytes, self.SIZE)
        for _ in range(200):
            last = block.call(lambda data: data[1:] + b"1", Input(1), uses=[last])
        block.wanted[last] = True
        block.run()
        assert (block.result.end, len(block.value())) == (None, self.SIZE)

    def test_values_that_others_will_need_count(self, block):
        for _ in range(100):
            block.call(bytes, self.SIZE)
        for position in range(100):
            block.call(len, Input(1), uses=[position])
        block.run()
        assert (block.result.end, block.result.done) == (FULL, self.LIMIT)
        assert block.told == list(range(self.LIMIT))

    def test_numbers_do_not_count(self, block):
        for n in range(1000):
            block.call(float, n, wanted=True)
        block.run()
        assert block.result.end is None


class TestNobodyIsToBlame:
    def test_a_function_that_cannot_be_loaded(self, block):
        block.call(increment, 1)
        block.call(add, 1, 2)
        block.run(functions=[cloudpickle.dumps(increment), b"garbage"])
        assert len(block.row) == 5
        assert Failure.from_map(block.row[4]).task == block.task

    def test_an_input_that_was_not_sent(self, block):
        block.call(increment, Input(1), uses=[given(1)])
        data = cloudpickle.dumps(increment)
        link = pack_assigned(block.link().pack(), b"\0")
        row = [block.task, 1, block.base, joined(1, block.members[0][3]), [block.base, 11], block.output, 1, link]
        block.executor.send(["block", 1, [[block.base, PLAIN]], [[block.base, None, None, data]], row])
        (row,), _ = block.executor.results(1)
        assert "Data object 1/11 was not sent" in Failure.from_map(row[4]).message

    def test_the_next_block_is_not_linked(self, executor):
        block = Block(executor)
        block.call(increment, 1)
        block.run(functions=[b"garbage"])
        assert executor.block(PLAIN, lambda n: n, [(1,)]).values == [1]


class _Bomb:
    def __reduce__(self):
        return int, ("x",)


class TestReferences:
    def test_of_the_client(self):
        assert reference_index(reference_pickle("{0}", 1, None, None)) == 1
        assert reference_index(reference_pickle("name{7}", 300, True, "json")) == 300

    @pytest.mark.parametrize("value", [Input(3), Input(70_000)])
    def test_pickled_by_itself(self, value):
        assert reference_index(pickle.dumps(value)) == value.arguments[1]

    @pytest.mark.parametrize("value", [[Input(1)], (Input(1), Input(2)), 5, None, len, _Bomb(), {1: Input(1)}])
    def test_others(self, value):
        assert reference_index(pickle.dumps(value)) is None

    def test_damaged(self):
        assert reference_index(b"") is None
        assert reference_index(pickle.dumps(Input(1))[:-3]) is None

    def test_packed_as_an_extension(self):
        packed = pack_args([PickledValue(reference_pickle("{0}", 1, None, None))], {})
        found = []
        msgpack.unpackb(packed, ext_hook=lambda code, data: found.append(reference_index(data)))
        assert found == [1]
