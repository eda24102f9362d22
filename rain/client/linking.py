"""Small calls of Python functions that use each other's outputs, gathered into linked blocks.

Tracking a task costs far more than such a call, so that calls which depend on each other travel in clusters of the
graph: `rain.common.links`. A cluster is run as one, therefore no way may lead out of it and back into it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import chain, compress, count, repeat
from operator import attrgetter
from typing import TYPE_CHECKING

from rain.client.call_block import CallBlock, ThingBlock
from rain.client.data import OUTPUT, DataObject
from rain.client.handles import CallTask
from rain.client.shape import pack_plain
from rain.client.task import Task
from rain.common.links import MOST_INPUTS, MOST_REFERENCES, Link
from rain.protocol.messages import KEEP, SubmitBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rain.client.shape import TaskShape

FEWEST_LINKED = 256
"""Calls that are worth it."""
MOST_ARGS = 2048
"""Packed arguments of larger calls are not worth it."""
SOFT = 512
"""A cluster with so many calls gets no more that could as well be elsewhere."""
HARD = 1024
"""Most calls of a cluster."""
_ROOM = MOST_INPUTS // 2
_MOST_TEMPLATES = 256
_FEWEST_LEAVES, _MOST_LEAVES, _LEAF_CLUSTERS = 16, 128, 64

_args, _shape, _inputs = attrgetter("_args"), attrgetter("_shape"), attrgetter("_inputs")
_made, _number, _own_spec = attrgetter("_made"), attrgetter("_number"), attrgetter("_own_spec")
_session, _value_number = attrgetter("_session"), attrgetter("_value_number")


class Cluster:
    """Calls of one linked block, in an order in which each comes after what it uses.

    Attributes:
        calls: the calls.
        level: all clusters whose outputs are used here have a lower one.
        leaves: how many of the calls use nothing of other linked ones.
        room: so many inputs from outside may be added; functions are not counted.
        successor: where a call goes that uses only this one when it is full.
    """

    __slots__ = ("calls", "leaves", "level", "room", "successor")

    def __init__(self, level: int) -> None:
        self.calls: list[CallTask] = []
        self.level = level
        self.leaves = 0
        self.room = _ROOM
        self.successor: Cluster | None = None


class _Clustering:
    """Calls become clusters, one call after the other.

    Args:
        leaves: number of calls that use nothing of others.
    """

    def __init__(self, leaves: int) -> None:
        self.clusters: list[Cluster] = []
        self._leaves = max(_FEWEST_LEAVES, min(leaves // _LEAF_CLUSTERS, _MOST_LEAVES))
        self._leaf: Cluster | None = None
        self._merging: dict[int, Cluster] = {}

    def _new(self, level: int) -> Cluster:
        made = Cluster(level)
        self.clusters.append(made)
        return made

    def leaf(self, inputs: int) -> Cluster:
        """Where a leaf goes that has so many inputs beside the function."""
        found = self._leaf
        if found is None or found.leaves >= self._leaves or len(found.calls) >= SOFT or found.room < inputs:
            found = self._leaf = self._new(0)
        found.leaves += 1
        found.room -= inputs
        return found

    def behind(self, cluster: Cluster, inputs: int) -> Cluster:
        """Where a call goes that uses outputs of this cluster only, which may be full."""
        while len(cluster.calls) >= HARD or cluster.room < inputs:
            if cluster.successor is None:
                cluster.successor = self._new(cluster.level + 1)
            cluster = cluster.successor
        cluster.room -= inputs
        return cluster

    def merge(self, clusters: set[Cluster], inputs: int) -> Cluster:
        """Where a call goes that uses outputs of several clusters."""
        level = max([cluster.level for cluster in clusters])
        highest = [cluster for cluster in clusters if cluster.level == level]
        found = highest[0]
        if len(highest) > 1 or len(found.calls) >= HARD or found.room < inputs:
            found = self._open_merge(level + 1, inputs)
        found.room -= inputs
        return found

    def _open_merge(self, level: int, inputs: int) -> Cluster:
        found = self._merging.get(level)
        if found is None or len(found.calls) >= SOFT or found.room < inputs:
            found = self._merging[level] = self._new(level)
        return found


def clustered(calls: Sequence[CallTask]) -> list[Cluster]:
    """Clusters of calls that use each other's outputs, in an order in which each comes after those it uses; calls that
    neither use one of the others nor are used are in none.

    Args:
        calls: each after those whose outputs it uses.
    """
    nowhere = Cluster(-1)
    inputs_of = [call._inputs for call in calls]
    home = dict.fromkeys(_linked_outputs(calls, inputs_of), nowhere)
    is_leaf = list(map(home.keys().isdisjoint, inputs_of))
    leaves = [call for call in compress(calls, is_leaf) if call in home]
    if not home or len(calls) - sum(is_leaf) + len(leaves) < FEWEST_LINKED:
        return []
    clustering = _Clustering(len(leaves))
    leaf, behind, merge = clustering.leaf, clustering.behind, clustering.merge
    for call, inputs, uses_none in zip(calls, inputs_of, is_leaf, strict=True):
        if uses_none:
            if call not in home:
                continue
            cluster = leaf(len(inputs) - 1)
        elif len(inputs) == 2:
            cluster = home[inputs[1]]
            if len(cluster.calls) >= HARD:
                cluster = behind(cluster, 0)
        else:
            used = set(map(home.get, inputs, repeat(nowhere)))
            used.discard(nowhere)
            if len(used) == 1:
                cluster = behind(used.pop(), len(inputs) - 2)
            else:
                cluster = merge(used, len(inputs) - 1)
        cluster.calls.append(call)
        home[call] = cluster
        if call._made is not None:
            home[call._made[0]] = cluster
    return sorted(clustering.clusters, key=attrgetter("level"))


def _linked_outputs(
    calls: Sequence[CallTask], inputs_of: list[tuple[DataObject | CallTask, ...]]
) -> set[DataObject | CallTask]:
    """Calls that others of them use, and the handles of the outputs of these."""
    used = set(chain.from_iterable(inputs_of))
    linked: set[DataObject | CallTask] = used.intersection(calls)
    for call in calls:
        if call._made is not None and call._made[0] in used:
            linked |= {call, call._made[0]}
    return linked


# --- which calls --------------------------------------------------------------------------------------


def may_link(blocks: Iterable[object], used: set[DataObject | CallTask]) -> bool:
    """Whether something of these blocks may be linked.

    Args:
        blocks: all that is not submitted.
        used: what is needed by something of it.
    """
    kinds = Counter[type[CallTask]]()
    for block in blocks:
        if isinstance(block, CallBlock) and block.width == 2 and not block.is_array:
            kinds[block.kind] += len(block.calls)
    large = {kind for kind, calls in kinds.items() if calls >= FEWEST_LINKED}
    if not large or len(set(map(_session, used))) > 1:
        return False
    outputs = {kind._OUTPUT for kind in large}
    if large.isdisjoint(map(type, used)) and not any(
        type(one) in outputs and isinstance(one, DataObject) and one._role == OUTPUT for one in used
    ):
        return False
    # What makes a declared object may come behind what uses it.
    return not any(isinstance(block, ThingBlock) and block.has_declared() for block in blocks)


def _candidates(stretch: list[ThingBlock | CallBlock]) -> list[CallTask]:
    """The calls that may be linked if they use each other's outputs."""
    blocks = [block for block in stretch if isinstance(block, CallBlock) and block.width == 2]
    kinds = Counter[type[CallTask]]()
    for block in blocks:
        kinds[block.kind] += len(block.calls)
    ((kind, most),) = kinds.most_common(1) or [(CallTask, 0)]
    if most < FEWEST_LINKED:
        return []
    calls = list(chain.from_iterable([block.calls for block in blocks if block.kind is kind]))
    shapes = _alike_shapes(calls)
    if (
        shapes.issuperset(map(_shape, calls))
        and max(map(len, map(_args, calls))) <= MOST_ARGS
        and max(map(len, map(_inputs, calls))) <= MOST_REFERENCES
    ):
        return calls
    return [
        call
        for call in calls
        if call._shape in shapes and len(call._args) <= MOST_ARGS and len(call._inputs) <= MOST_REFERENCES
    ]


def _alike_shapes(calls: list[CallTask]) -> set[TaskShape]:
    """The shapes of most of the calls, with the same options but for the name."""
    counts = Counter(map(_shape, calls))
    by_options: dict[bytes, set[TaskShape]] = {}
    for shape in counts:
        if shape.in_blocks:
            options = shape.options.to_map()
            options.pop("name", None)
            by_options.setdefault(pack_plain(options, f"options of task {shape.options.name!r}"), set()).add(shape)
    best = max(by_options.values(), key=lambda shapes: sum(map(counts.__getitem__, shapes)), default=set())
    return best if len({shape.packed for shape in best}) <= _MOST_TEMPLATES else set()


def _untangled(
    stretch: list[ThingBlock | CallBlock], calls: list[CallTask]
) -> tuple[list[CallTask], set[Task | DataObject]]:
    """Those of the calls that use nothing of a task that is not among them and depends on one of them: they could not
    be in one block with that one. And all other tasks that depend on one of the calls, with their outputs."""
    others = _other_tasks(stretch, calls)
    behind: set[Task | DataObject] = set()
    outputs: set[Task | DataObject] = set(calls) if others else set()
    outputs.update(*filter(None, map(_made, outputs)))
    if outputs.isdisjoint(chain.from_iterable(map(_inputs, others))):
        return calls, behind
    known, found = set(calls), []
    for task in sorted([*calls, *others], key=_number):
        is_behind = not behind.isdisjoint(task._inputs)
        if isinstance(task, CallTask) and task in known and not is_behind:
            found.append(task)
        elif is_behind or not outputs.isdisjoint(task._inputs):
            behind.add(task)
            behind.update((task._made or ()) if isinstance(task, CallTask) else task._outputs)
    return found, behind


def _other_tasks(stretch: list[ThingBlock | CallBlock], calls: list[CallTask]) -> list[Task]:
    """The tasks that are not among the calls."""
    found: list[Task] = []
    for block in stretch:
        if isinstance(block, ThingBlock):
            found += [thing for thing in block.things if isinstance(thing, Task)]
    if _count_calls(stretch) > len(calls):
        known = set(calls)
        blocks = [block for block in stretch if isinstance(block, CallBlock)]
        found += [call for block in blocks for call in block.calls if call not in known]
    return found


def _count_calls(stretch: list[ThingBlock | CallBlock]) -> int:
    return sum([len(block) for block in stretch if isinstance(block, CallBlock)])


# --- their numbers ------------------------------------------------------------------------------------


def relinked(
    stretch: list[ThingBlock | CallBlock], fixed: int
) -> tuple[list[ThingBlock | CallBlock], list[ThingBlock | CallBlock]]:
    """The same things in other blocks: first what does not depend on the calls that are to be linked, then these calls
    as an array, then the rest.

    Args:
        stretch: consecutive blocks, none of them an array; they are not changed.
        fixed: what has a number below this keeps it.

    Returns:
        What keeps its numbers; what gets others, which nobody has told it yet.
    """
    staying: list[ThingBlock | CallBlock] = []
    movable: list[ThingBlock | CallBlock] = []
    for block in stretch:
        before, rest = block.divided(fixed) if block.first < fixed else (None, block)
        staying += [before] if before else []
        movable += [rest] if rest else []
    calls = _candidates(movable)
    calls, behind = _untangled(movable, calls) if calls else ([], set())
    clusters = clustered(calls)
    if not clusters:
        return stretch, []
    linked = list(chain.from_iterable([cluster.calls for cluster in clusters]))
    made, others = _without(movable, linked, behind)
    first = made[-1].end if made else movable[0].first
    sizes = [len(cluster.calls) for cluster in clusters]
    made.append(CallBlock(type(linked[0]), first, 2, linked, is_array=True, linked=sizes))
    for block in others:
        block.first = made[-1].end
        made.append(block)
    return staying, made


def _without(
    blocks: list[ThingBlock | CallBlock], linked: list[CallTask], behind: set[Task | DataObject]
) -> tuple[list[ThingBlock | CallBlock], list[ThingBlock | CallBlock]]:
    """Blocks of what is not linked: of what is not `behind`, with numbers that follow each other, and of what is, whose
    numbers depend on others."""
    known = set(linked) if _count_calls(blocks) > len(linked) else None
    before: list[ThingBlock | CallBlock] = []
    after: list[ThingBlock | CallBlock] = []
    for block in blocks:
        if isinstance(block, ThingBlock):
            _append_things(before, [thing for thing in block.things if thing not in behind])
            _append_things(after, [thing for thing in block.things if thing in behind] if behind else [])
        elif known is not None:
            calls = [call for call in block.calls if call not in known]
            _append_calls(before, block, [call for call in calls if call not in behind])
            _append_calls(after, block, [call for call in calls if call in behind])
    first = blocks[0].first
    for block in before:
        block.first = first
        first = block.end
    return before, after


def _append_things(blocks: list[ThingBlock | CallBlock], things: list[Task | DataObject]) -> None:
    last = blocks[-1] if blocks else None
    if things and not isinstance(last, ThingBlock):
        last = ThingBlock(0)
        blocks.append(last)
    if isinstance(last, ThingBlock):
        last.things += things


def _append_calls(blocks: list[ThingBlock | CallBlock], like: CallBlock, calls: list[CallTask]) -> None:
    last = blocks[-1] if blocks else None
    if isinstance(last, CallBlock) and last.kind is like.kind and last.width == like.width:
        last.calls += calls
    elif calls:
        blocks.append(CallBlock(like.kind, 0, like.width, calls))


# --- as they are submitted ----------------------------------------------------------------------------


class LinkedTasks:
    """An array of calls in linked blocks. shapes: of the calls, each once."""

    __slots__ = ("_block", "shapes")

    def __init__(self, block: CallBlock) -> None:
        self._block = block
        self.shapes = dict.fromkeys(map(_shape, block.calls))

    def messages(self, session: int, templates: dict[TaskShape, int]) -> Iterator[SubmitBlock]:
        """All of them, one message for each linked block; `templates`: the number of the template of each shape."""
        start, calls = 0, self._block.calls
        for size in self._block.linked:
            yield self._message(session, templates, start, calls[start : start + size])
            start += size

    def _message(self, session: int, templates: dict[TaskShape, int], start: int, calls: list[CallTask]) -> SubmitBlock:
        own = range(self._block.first + start, self._block.first + start + len(calls))
        inputs = [call._inputs for call in calls]
        numbers = list(map(_value_number, chain.from_iterable(inputs)))
        outside = sorted(set(numbers).difference(own))
        places = dict(zip(chain(outside, own), count()))
        references = array("H", list(map(places.__getitem__, numbers)))
        shapes = [call._shape for call in calls]
        used = list(dict.fromkeys(map(templates.__getitem__, dict.fromkeys(shapes))))
        which = b""
        if len(used) > 1:
            positions = {shape: used.index(number) for shape, number in templates.items() if number in used}
            which = bytes(map(positions.__getitem__, shapes))
        link = Link(used, which, bytes(map(len, inputs)), references, len(outside))
        packed = [call._args for call in calls]
        kept = bytes([KEEP * (call._keeps if call._made is None else call._made[0]._keep) for call in calls])
        return SubmitBlock(
            session,
            [],
            used[0],
            self._block.first,
            len(self._block),
            start,
            array("I", outside),
            keep=any(kept),
            args=b"".join(packed),
            arg_sizes=array("I", map(len, packed)),
            link=link.pack(),
            keeps=kept if any(kept) and not all(kept) else b"",
        )


def is_linkable(block: CallBlock, fixed: int) -> bool:
    """Whether the calls of an array can still be linked: after a submit that was refused specs may have been edited."""
    if fixed <= block.first:  # nobody has seen an id, and so no spec
        return True
    outputs = chain.from_iterable(filter(None, map(_made, block.calls)))
    return not any(map(_own_spec, block.calls)) and not any(map(_own_spec, outputs))
