"""How the packed arguments of many alike tasks are divided into messages of a submit."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.number_arguments import NumberArguments
from rain.protocol.messages import SubmitBlock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEMBERS_PER_BLOCK = 40_000
"""Members of one block of a submit."""


def parts(packed: Sequence[bytes], members: int, max_size: int) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Packed arguments of consecutive members, with the position of the first: at most `members` of them, and at most
    `max_size` bytes unless a single one is longer."""
    start, step = 0, members
    while start < len(packed):
        part = packed[start : start + step]
        size = len(part.data) if isinstance(part, NumberArguments) else sum(map(len, part))
        if len(part) > 1 and size > max_size:
            step = len(part) // 2
            continue
        yield start, part
        start += len(part)
        step = members


def block_messages(
    session: int,
    template: int,
    first: int,
    packed: Sequence[bytes],
    inputs: array[int],
    *,
    keep: bool,
    max_size: int,
) -> Iterator[SubmitBlock]:
    """Members that differ in nothing but their arguments.

    Args:
        session, template: numbers of theirs.
        first: the id of the first output; n outputs are followed by n tasks.
        packed: the packed arguments of each.
        inputs: ids of the inputs of each.
        keep: whether the outputs are kept.
        max_size: about so many bytes of arguments in a message.
    """
    for start, part in parts(packed, MEMBERS_PER_BLOCK, max_size):
        if isinstance(part, NumberArguments):
            args, sizes, column = part.data, part.sizes, part.code
        else:
            args, sizes, column = b"".join(part), array("I", map(len, part)), ""
        yield SubmitBlock(session, [], template, first, len(packed), start, inputs, keep, args, sizes, column=column)
