"""Values of many members of blocks in one piece: the bytes of a block as they lie, no look at each."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.protocol.messages import ValuesFetched
from rain.server.core.graph import TASK_FINISHED
from rain.server.core.waits import pieces_of

if TYPE_CHECKING:
    from rain.protocol.fields import Ids
    from rain.server.core.numbering import Piece
    from rain.server.core.session import Session

_MOST_INFOS = 256
_FEWEST = 256
"""Fewer values than so many are not worth an answer, unless they are all."""


def joined_values(session: Session, seq: int, ids: Ids, budget: int) -> ValuesFetched | None:
    """The first of these outputs, up to one that no finished block has or that is of another form, and at most `budget`
    bytes of them; None if these are few."""
    sizes, parts, column, found = array("I"), [], None, 0
    infos: dict[bytes | None, int] = {}
    kinds = bytearray()
    for piece in pieces_of(session, ids):
        block = piece.block
        if block is None or block.results is None or not _is_to_be_had(session, piece):
            break
        results, position = block.results, piece.start - block.start
        if column is None:
            column = results.column
        elif column != results.column:
            break
        own = results.infos or [None]
        for info in own:
            infos.setdefault(info, len(infos))
        if len(infos) > _MOST_INFOS:
            break
        count = results.fitting(position, piece.stop - piece.start, budget)
        sizes.extend(results.sizes(position, count))
        parts.append(results.values(position, count))
        kinds += results.kinds(position, count).translate(bytes(infos[info] for info in own).ljust(256))
        budget -= len(parts[-1])
        found += count
        if count < piece.stop - piece.start:
            break
    if column is None or found < min(len(ids), _FEWEST):
        return None
    told = list(infos)[:_MOST_INFOS]
    return ValuesFetched(seq, sizes, b"".join(parts), told, bytes(kinds) if len(told) > 1 else b"", column)


def singles_ahead(session: Session, ids: Ids) -> int:
    """How many single members come before many of a block; 0 if that is not so."""
    ahead = 0
    for piece in pieces_of(session, ids):
        count = piece.stop - piece.start
        if piece.block is not None:
            return ahead if count >= _FEWEST else 0
        ahead += count
    return 0


def _is_to_be_had(session: Session, piece: Piece) -> bool:
    block = piece.block
    assert block is not None
    is_finished = session.graph.state[block.row] == TASK_FINISHED
    return is_finished and not piece.is_task and block.are_kept(piece.start, piece.stop)
