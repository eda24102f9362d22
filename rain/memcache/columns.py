"""Many `VALUE` lines at once: each of them with a data block that is one line, as almost all are.

The lines of an answer are taken as if no block had an end of line in it. That this was right is shown by the lengths:
if the first n blocks have the lengths that the lines before them announce, then the first n lines are `VALUE` lines.

And many lines that answer `set` commands.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rain.memcache.forms import STORAGE
from rain.memcache.replies import ErrorLine, Items, UnknownLine, is_error

if TYPE_CHECKING:
    from collections.abc import Set

    from rain.memcache.replies import Fault, Reply

MAX_BLOCK: Final = 1 << 30
MAX_FLAGS: Final = (1 << 32) - 1
MAX_CAS: Final = (1 << 64) - 1
_LONGEST_SUFFIX = 42  # two numbers of 20 digits, and the spaces before them


def number(text: bytes, maximum: int) -> int:
    """Return the number that plain decimal digits stand for, or -1 for any other text and beyond the maximum."""
    if text.isdigit() and len(text) <= 20:
        value = int(text)
        if value <= maximum:
            return value
    return -1


@lru_cache(1024)
def flags_and_size(text: bytes) -> tuple[int, int]:
    """Read what ends a `VALUE` line without a token; -1 for what is no such number."""
    flags, _, size = text.partition(b" ")
    return number(flags, MAX_FLAGS), number(size, MAX_BLOCK)


def uniform(keys: tuple[bytes, ...], heads: list[bytes], values: list[bytes]) -> Items | None:
    """Take an answer that has all keys in the order asked, with equal flags and equal lengths, and no tokens.

    Args:
        keys: those that were asked for.
        heads: the lines before the blocks, one for each key.
        values: the blocks, as many.

    Returns:
        The items, or None if it is not such an answer.
    """
    count = len(keys)
    suffix = heads[0][len(b"VALUE ") + len(keys[0]) :]
    if len(suffix) > _LONGEST_SUFFIX:
        return None
    expected = (suffix + b"\nVALUE ").join(keys)
    if b"\n".join(heads) != b"VALUE %b%b" % (expected, suffix):
        return None
    flags, size = flags_and_size(suffix[1:])
    if not suffix.startswith(b" ") or flags < 0 or list(map(len, values)).count(size) != count:
        return None
    return Items(list(keys), values, [flags] * count, [None] * count)


def mixed(left: Set[bytes], heads: list[bytes], values: list[bytes]) -> Items | None:
    """Take any part of an answer.

    Args:
        left: keys that were asked for and have not come yet.
        heads: the lines before the blocks.
        values: the blocks, as many.

    Returns:
        The items, or None if anything is wrong with any of them, which may be an end of line in a block.
    """
    count = len(heads)
    fields = b" ".join(heads).split(b" ")
    width = 4 if len(fields) == 4 * count else 5
    if len(fields) != width * count or fields[::width].count(b"VALUE") != count:
        return None
    texts = fields[3::width]
    sizes = {text: number(text, MAX_BLOCK) for text in set(texts)}
    if [sizes[text] for text in texts] != list(map(len, values)):
        return None
    keys = fields[1::width]
    found = set(keys)
    if len(found) != count or not found <= left:
        return None
    texts = fields[2::width]
    flags = {text: number(text, MAX_FLAGS) for text in set(texts)}
    tokens: list[int | None] = [None] * count if width == 4 else [number(text, MAX_CAS) for text in fields[4::5]]
    if -1 in flags.values() or -1 in tokens:
        return None
    return Items(keys, values, [flags[text] for text in texts], tokens)


def stores(lines: list[bytes], replies: list[Reply]) -> Fault | None:
    """Take lines that answer `set` commands.

    Args:
        lines: those received.
        replies: to which theirs are added.

    Returns:
        The first line after which nothing can be understood; it is not added.
    """
    if lines.count(b"STORED") == len(lines):
        replies += lines
        return None
    for line in lines:
        if line in STORAGE.lines:
            replies.append(line)
        elif not is_error(line):
            return UnknownLine(line)
        elif line.startswith(b"SERVER_ERROR"):
            replies.append(ErrorLine(line))
        else:  # the server may take the data block for commands
            return ErrorLine(line)
    return None
