"""Links: what the members of a linked block use of each other.

The members of an ordinary block share all inputs. In a *linked* block each member has inputs of its own: inputs of the
block, or outputs of members before it. The block runs as one; what only its members use need not leave the executor.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, chain, repeat
from operator import ge
from typing import cast

import msgpack

MOST_MEMBERS = 4096
"""Members of one linked block."""
MOST_INPUTS = 8192
"""Inputs of one linked block."""
MOST_REFERENCES = 64
"""Inputs of one of its members."""


class Link:
    """What the members of a linked block have as inputs, and by which templates they are run.

    A reference below the number of the block's inputs is the position of one of these; of others that many less is the
    position of an earlier member, whose output it is. The first reference of a member is to the block's inputs: its
    function.

    Args:
        templates: numbers of the different templates.
        which: position in `templates` of each member's; empty = all have the first.
        counts: number of references of each member.
        references: those of all members, one after the other (unsigned, 16 bits).
        inputs: number of the block's inputs.
    """

    __slots__ = ("_offsets", "counts", "inputs", "references", "templates", "which")

    def __init__(self, templates: list[int], which: bytes, counts: bytes, references: array[int], inputs: int) -> None:
        self.inputs = inputs
        self.templates = templates
        self.which = which
        self.counts = counts
        self.references = references
        self._offsets: array[int] | None = None

    def template(self, position: int) -> int:
        """Number of the template of a member."""
        return self.templates[self.which[position] if self.which else 0]

    def references_of(self, position: int) -> array[int]:
        """The references of a member."""
        if self._offsets is None:
            self._offsets = array("I", accumulate(self.counts, initial=0))
        return self.references[self._offsets[position] : self._offsets[position + 1]]

    def functions(self) -> list[int]:
        """Of each member, which input of the block its function is."""
        return [self.references[offset] for offset in accumulate(self.counts[:-1], initial=0)]

    def pack(self) -> bytes:
        """To bytes."""
        columns = self.templates, self.which, self.counts, self.references.tobytes()
        return cast("bytes", msgpack.packb(columns))

    @classmethod
    def unpack(cls, packed: bytes, members: int, inputs: int) -> Link:
        """From bytes.

        Args:
            packed: what `pack` gave.
            members: of the block.
            inputs: number of the block's inputs.

        Raises:
            ValueError: not well formed; a member uses one that is not before it; too many members, inputs, references.
        """
        try:
            templates, which, counts, references = msgpack.unpackb(packed)
            if type(references) is not bytes:
                raise ValueError("references")
            link = cls(templates, which, counts, array("H", references), inputs)
            link._check(members)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"a malformed link: {error}") from error
        return link

    def _check(self, members: int) -> None:
        templates, which, counts, references = self.templates, self.which, self.counts, self.references
        inputs = self.inputs
        if not 0 < members <= MOST_MEMBERS or not 0 < inputs <= MOST_INPUTS:
            raise ValueError(f"{members} members, {inputs} inputs")
        if type(templates) is not list or set(map(type, templates)) != {int}:
            raise ValueError("templates")
        if min(templates) < 0 or max(templates) >> 32:
            raise ValueError("templates")
        if type(which) is not bytes or len(which) not in (0, members) or max(which, default=0) >= len(templates):
            raise ValueError("template of each member")
        if type(counts) is not bytes or len(counts) != members or sum(counts) != len(references):
            raise ValueError("number of references")
        if not 0 < min(counts) <= max(counts) <= MOST_REFERENCES:
            raise ValueError("references of a member")
        limits = chain.from_iterable(map(repeat, range(inputs, inputs + members), counts))
        if any(map(ge, references, limits)):
            raise ValueError("a member uses what comes behind it")
        if max(self.functions()) >= inputs:
            raise ValueError("a member without a function")


def pack_assigned(link: bytes, wanted: bytes) -> bytes:
    """A packed link with which outputs are wanted outside of the block (1 each, else 0), for workers and executors."""
    return cast("bytes", msgpack.packb((link, wanted)))


def unpack_assigned(packed: bytes, members: int, inputs: int) -> tuple[Link, bytes]:
    """Inverse of `pack_assigned`.

    Raises:
        ValueError: not well formed.
    """
    try:
        link, wanted = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"a malformed link: {error}") from error
    if (
        type(link) is not bytes
        or type(wanted) is not bytes
        or len(wanted) != members
        or wanted.translate(None, b"\0\1")
    ):
        raise ValueError("a malformed link")
    return Link.unpack(link, members, inputs), wanted


def unpack_checked(packed: bytes, inputs: int) -> tuple[Link, bytes]:
    """As `unpack_assigned`, for what that function took before."""
    link, wanted = msgpack.unpackb(packed)
    templates, which, counts, references = msgpack.unpackb(link)
    return Link(templates, which, counts, array("H", references), inputs), wanted
