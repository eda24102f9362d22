"""Linked blocks of submits, member by member."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rain.common.links import Link
from rain.protocol.messages import KEEP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.protocol.messages import SubmitBlock


class Member(NamedTuple):
    """A member of a linked block.

    task, output: their ids. template: number of its template. inputs: ids of its own inputs. is_kept: its output is.
    """

    task: int
    output: int
    template: int
    inputs: list[int]
    is_kept: bool


def read_link(block: SubmitBlock) -> Link:
    """The link of a linked block.

    Raises:
        ValueError: not well formed.
    """
    return Link.unpack(block.link, len(block.arg_sizes), len(block.inputs))


def members(block: SubmitBlock) -> Iterator[Member]:
    """The members of a linked block, in order."""
    link, first = read_link(block), block.first + block.start
    objects = [*block.inputs, *range(first, first + len(block.arg_sizes))]
    for position in range(len(block.arg_sizes)):
        yield _member(block, link, objects, position)


def member_at(block: SubmitBlock, position: int) -> Member:
    """One of the members of a linked block; `position` in the block."""
    first = block.first + block.start
    return _member(block, read_link(block), [*block.inputs, *range(first, first + position)], position)


def _member(block: SubmitBlock, link: Link, objects: list[int], position: int) -> Member:
    output = block.first + block.start + position
    inputs = [objects[reference] for reference in link.references_of(position)]
    is_kept = block.keep and (not block.keeps or bool(block.keeps[position] & KEEP))
    return Member(output + block.members, output, link.template(position), inputs, is_kept)
