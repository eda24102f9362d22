"""Linked blocks from what each of their members uses."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rain.common.links import Link
from rain.protocol.messages import KEEP, SubmitBlock

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class LinkedMember:
    """A member. template: its number; inputs: ids, the function first; args: packed."""

    template: int
    inputs: tuple[int, ...]
    is_kept: bool
    args: bytes


def linked_block(
    session: int, new: list[bytes], first: int, members: int, start: int, chosen: Sequence[LinkedMember]
) -> SubmitBlock:
    """The message.

    Args:
        session: its number.
        new: packed new templates.
        first: id of the first output of the array.
        members: of the array.
        start: position of the first member in the array.
        chosen: the members of the block.
    """
    own = {first + start + position: position for position in range(len(chosen))}
    used = dict.fromkeys(number for member in chosen for number in member.inputs if number not in own)
    places = {number: place for place, number in enumerate(used)}
    places |= {number: len(used) + position for number, position in own.items()}
    templates = list(dict.fromkeys(member.template for member in chosen))
    which = bytes(templates.index(member.template) for member in chosen) if len(templates) > 1 else b""
    counts = bytes(len(member.inputs) for member in chosen)
    references = array("H", [places[number] for member in chosen for number in member.inputs])
    keeps = bytes(KEEP if member.is_kept else 0 for member in chosen)
    return SubmitBlock(
        session=session,
        templates=new,
        template=chosen[0].template,
        first=first,
        members=members,
        start=start,
        inputs=array("I", used),
        keep=any(keeps),
        args=b"".join(member.args for member in chosen),
        arg_sizes=array("I", [len(member.args) for member in chosen]),
        link=Link(templates, which, counts, references, len(used)).pack(),
        keeps=keeps if any(keeps) and not all(keeps) else b"",
    )
