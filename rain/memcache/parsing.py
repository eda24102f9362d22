"""The incremental parser of classic and meta replies.

Data is looked at in windows: a window is cut into lines by one call, and a data block is accepted when the lines it is
made of have the announced length. So replies of any shape, whole and small, cost a few operations each, and only the
length ever tells where a block ends. A block that is not whole in its window is taken from the data directly, so that
a large value is copied once.
"""

from __future__ import annotations

import io
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from rain.memcache.base import Item
from rain.memcache.columns import MAX_BLOCK, MAX_CAS, MAX_FLAGS, flags_and_size, mixed, number, stores, uniform
from rain.memcache.forms import CRLF, FETCH, STORES, VALUES
from rain.memcache.replies import MISS, ErrorLine, Items, MetaItem, UnknownLine, Violation, is_error
from rain.memcache.requests import ONE_KEY_FETCHES, WITH_CAS, Kind, Request, StoreRun, is_abandoned

if TYPE_CHECKING:
    from rain.memcache.replies import Answer, Reply

MAX_LINE: Final = 8192
SHOWN: Final = 200
"""Bytes of a violation that are reported."""

_WHOLE = 16 << 10  # data up to here is one window
_WIDE = 64 << 10
_NARROW = 512  # window where large blocks are likely, most of which would be copied in vain
_LARGE = 512  # bytes of a block from which looking for lines costs more than asking for the next one
_BULK = 4  # keys from which an answer is first tried as a whole
_MEMO = 4096  # heads of plain hits that are remembered ...
_MEMO_LINE = 40  # ... when they are this short


class Merged(Request):
    """Several fetches of one key each, sent as one command.

    Args:
        command: `get_many` or `gets_many`.
        keys: all keys asked, each once.
        requests: the fetches; two may ask for the same key.
    """

    __slots__ = ("requests",)

    def __init__(self, command: str, keys: tuple[bytes, ...], requests: list[Request]) -> None:
        super().__init__(command, b"", keys)
        self.requests = requests


class _Block:
    """A data block that is not whole yet."""

    __slots__ = ("end", "head", "kept", "missing", "size")

    def __init__(self, size: int, head: _Head, dropped: bool) -> None:
        self.size = size
        self.head = head
        self.missing = size + len(CRLF)
        self.kept = None if dropped else io.BytesIO()
        self.end = b""


_Head: TypeAlias = "MetaItem | tuple[bytes, int, int | None]"


class Parser:
    """Turns received bytes into replies, in the order in which they are expected; never raises on any input.

    Attributes:
        expected: requests whose replies are due, oldest first; their `shape` must be set.
    """

    __slots__ = ("_block", "_broken", "_bulk", "_heads", "_items", "_left", "_rest", "_stats", "_unused", "expected")

    def __init__(self) -> None:
        self.expected: deque[Request] = deque()
        self._broken = False
        self._rest = b""  # an unfinished line
        self._block: _Block | None = None
        self._unused = 0  # bytes of the window that belong to the block just begun
        self._items: Items | None = None  # what came so far of an answer with VALUE lines, or with a CONFIG line
        self._left: set[bytes] = set()  # keys which that answer may still bring
        self._bulk = False  # whether to try to take many of its items at once
        self._stats: dict[str, str] | None = None
        self._heads: dict[bytes, tuple[int, int | None]] = {}  # size and flags of plain hits, by their lines

    def missing(self) -> int:
        """Return how many bytes of the data block being received are missing."""
        return 0 if self._block is None else self._block.missing

    def stop(self) -> None:
        """Expect nothing and take nothing any more."""
        self.expected.clear()
        self._broken = True
        self._block = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[Answer]:
        """Take the next bytes; keeps no reference to them.

        Returns:
            The replies that are complete now. After a `Violation` there is nothing more.
        """
        done: list[Answer] = []
        if self._broken:
            return done
        size = len(data)
        view = memoryview(data)
        position = 0
        if self._block is None and not self._rest:
            position = self._large(view, 0, done)  # no line is looked for where a large value is
        if self._block is None and size - position <= _WHOLE:
            unused = self._parse(self._rest + view[position:], done)
            if not unused and self._block is None:
                return done
            position = size - unused
        window = _NARROW
        while True:
            if self._block is not None:
                window = _NARROW if self._block.size >= _LARGE else _WIDE
                position = self._fill(self._block, view, position, done)
                if window == _NARROW and self._block is None:
                    position = self._large(view, position, done)
            if position == size or self._broken:
                return done
            end = min(position + window, size)
            position = end - self._parse(self._rest + view[position:end], done)
            window = _WIDE

    def lone(self, request: Request, data: bytes) -> Item | bytes | None:
        """Return the reply to a request that is not expected, if the data are all of it, and like many before it."""
        if request.shape is not FETCH:
            return request.shape.replies.get(data)
        end = data.find(CRLF)
        head = self._heads.get(data[:end])
        if head is not None and len(data) == end + head[0] + 2 * len(CRLF) and data.endswith(CRLF):
            return Item(data[end + len(CRLF) : -len(CRLF)], head[1], None)
        return None

    def _parse(self, chunk: bytes, done: list[Answer]) -> int:
        """Take a window, which begins where a line does.

        Returns:
            How many bytes at its end belong to a block that was begun.
        """
        lines = chunk.split(CRLF)
        count = len(lines) - 1
        expected = self.expected
        heads = self._heads
        index = 0
        while index < count:
            if not expected:
                break
            request = expected[0]
            shape = request.shape
            line = lines[index]
            if shape is FETCH:
                head = heads.get(line)
                if head is not None and index + 1 < count:
                    value = lines[index + 1]
                    if len(value) == head[0]:
                        expected.popleft()
                        done.append((request, Item(value, head[1], None)))
                        index += 2
                        continue
            elif line in shape.lines:
                expected.popleft()
                done.append((request, line))
                index += 1
                continue
            index = self._line(lines, index, request, done)
            if index > count:
                return self._unused
        rest = lines[count]
        self._rest = rest
        if not expected and (rest or index < count):
            self._violate(None, CRLF.join(lines[index:]), "bytes that nobody asked for", done)
        elif len(rest) > MAX_LINE and len(rest) - rest.endswith(b"\r") > MAX_LINE:
            self._violate(expected[0], rest, f"a line longer than {MAX_LINE} bytes", done)
        return 0

    def _large(self, view: memoryview, position: int, done: list[Answer]) -> int:
        """Take items without making windows, while they are whole and nothing special; return the new position."""
        if not self.expected:
            return position
        shape = self.expected[0].shape
        if shape is VALUES and self._items is not None:
            return self._large_values(view, position, self._items, _is_dropped(self.expected[0]))
        return self._large_fetches(view, position, done) if shape is FETCH else position

    def _large_values(self, view: memoryview, position: int, items: Items, dropped: bool) -> int:
        left = self._left
        while True:
            line, ended, _ = view[position : position + _NARROW].tobytes().partition(CRLF)
            fields = line.split(b" ", 2)
            if len(fields) != 3 or fields[0] != b"VALUE" or fields[1] not in left or not ended:
                return position
            flags, size = flags_and_size(fields[2])
            if flags < 0 or size < 0:
                return position
            start = position + len(line) + len(CRLF)
            end = start + size
            if view[end : end + len(CRLF)].tobytes() != CRLF:
                return position
            left.remove(fields[1])
            items.add(fields[1], b"" if dropped else view[start:end].tobytes(), flags, None)
            position = end + len(CRLF)

    def _large_fetches(self, view: memoryview, position: int, done: list[Answer]) -> int:
        expected = self.expected
        heads = self._heads
        while expected and expected[0].shape is FETCH:
            line, ended, _ = view[position : position + _NARROW].tobytes().partition(CRLF)
            head = heads.get(line)
            if head is None or not ended or head[0] < _LARGE:
                break
            start = position + len(line) + len(CRLF)
            end = start + head[0]
            if view[end : end + len(CRLF)].tobytes() != CRLF:
                break
            done.append((expected.popleft(), Item(view[start:end].tobytes(), head[1], None)))
            position = end + len(CRLF)
        return position

    def _line(self, lines: list[bytes], index: int, request: Request, done: list[Answer]) -> int:
        """Take one line of the reply to a request, with its data block.

        Returns:
            Index of the next line; beyond the last if the window is used up, by a block begun or by a violation.
        """
        if request.shape is STORES:
            return self._stores(lines, index, request, done)
        line = lines[index]
        if is_error(line):
            self._answer(request, ErrorLine(line), done)
            return index + 1
        if len(line) > MAX_LINE:
            return self._violation(lines, request, line, f"a line longer than {MAX_LINE} bytes", done)
        kind = request.shape.kind
        if kind is Kind.VALUES:
            return self._values_line(lines, index, request, done)
        if kind is Kind.META:
            return self._meta_line(lines, index, request, done)
        if kind is Kind.LINE:
            pattern = request.shape.pattern
            known = pattern is not None and pattern.fullmatch(line)
            self._answer(request, line if known else UnknownLine(line), done)
            return index + 1
        if kind is Kind.STATS:
            self._stats_line(line, request, done)
            return index + 1
        return self._config_line(lines, index, request, done)

    def _stores(self, lines: list[bytes], index: int, request: Request, done: list[Answer]) -> int:
        """Take replies of a run; what ends the connection is the reply to the whole."""
        assert isinstance(request, StoreRun)
        replies = request.replies
        wanted = len(request.keys)
        end = min(index + wanted - len(replies), len(lines) - 1)
        fault = stores(lines[index:end], replies)
        if fault is not None:
            self._answer(request, fault, done)
        elif len(replies) == wanted:
            self._answer(request, b"STORED" if replies.count(b"STORED") == wanted else b"NOT_STORED", done)
        return end

    def _values_line(self, lines: list[bytes], index: int, request: Request, done: list[Answer]) -> int:
        items = self._items
        if items is None:
            items = self._whole_answer(lines, index, request)
            if items is not None:
                self._items = items
                self._left = set()
                return index + 2 * len(items)
            items = self._items = Items()
            self._left = set(request.keys) if request.keys else {request.key}
            self._bulk = len(self._left) >= _BULK
        line = lines[index]
        if line == b"END":
            self._answer(request, items, done)
            return index + 1
        if self._bulk:
            behind = self._many_values(lines, index, items)
            if behind > index:
                return behind
        fields = line.split(b" ")
        if fields[0] != b"VALUE" or not 4 <= len(fields) <= 5:
            return self._violation(lines, request, line, "a line that is no part of the answer to a fetch", done)
        flags = number(fields[2], MAX_FLAGS)
        size = number(fields[3], MAX_BLOCK)
        cas = number(fields[4], MAX_CAS) if len(fields) == 5 else None
        if flags < 0 or size < 0 or cas == -1:
            return self._violation(lines, request, line, "a number that is none, or out of range", done)
        key = fields[1]
        if key not in self._left:
            return self._violation(lines, request, line, "a key that was not asked for, or came before", done)
        self._left.remove(key)
        return self._block_at(lines, index + 1, size, (key, flags, cas), request, done)

    def _whole_answer(self, lines: list[bytes], index: int, request: Request) -> Items | None:
        """Try an answer in which all is as it mostly is."""
        keys = request.keys
        end = index + 2 * len(keys)
        if len(keys) < _BULK or end >= len(lines):
            return None
        return uniform(keys, lines[index:end:2], lines[index + 1 : end : 2])

    def _many_values(self, lines: list[bytes], index: int, items: Items) -> int:
        """Take all items that are whole, or none of them; return the index of the next line."""
        limit = min(len(lines) - 1, index + 2 * len(self._left))
        values = lines[index + 1 : limit : 2]
        heads = lines[index : index + 2 * len(values) : 2]
        if b"END" in heads:
            del heads[heads.index(b"END") :]
            del values[len(heads) :]
        if not heads:
            return index
        found = mixed(self._left, heads, values)
        if found is None:
            self._bulk = False
            return index
        items.extend(found)
        self._left.difference_update(found.keys)
        return index + 2 * len(found)

    def _meta_line(self, lines: list[bytes], index: int, request: Request, done: list[Answer]) -> int:
        line = lines[index]
        fields = line.split(b" ")
        code = fields[0]
        if code not in request.shape.codes:
            return self._violation(lines, request, line, "a line that is no answer to a meta command", done)
        if code == b"EN":
            self._answer(request, MISS if request.shape is FETCH else MetaItem("EN"), done)
            return index + 1
        size = 0
        if code == b"VA":
            size = number(fields[1], MAX_BLOCK) if len(fields) > 1 else -1
        head = MetaItem(code.decode())
        if size < 0 or not _read_flags(head, fields[2 if code == b"VA" else 1 :]):
            return self._violation(lines, request, line, "a number that is none, or out of range", done)
        if code != b"VA":
            self._answer(request, head, done)
            return index + 1
        if head.cas is None and not (head.won or head.pending or head.stale) and len(line) <= _MEMO_LINE:
            if len(self._heads) >= _MEMO:
                self._heads.clear()
            self._heads[line] = size, head.flags
        return self._block_at(lines, index + 1, size, head, request, done)

    def _stats_line(self, line: bytes, request: Request, done: list[Answer]) -> None:
        stats = self._stats
        if stats is None:
            stats = self._stats = {}
        if line.startswith(b"STAT "):
            name, _, value = line[5:].decode("utf-8", "backslashreplace").partition(" ")
            stats[name] = value
        elif line in (b"END", b"RESET", b"OK"):
            self._answer(request, stats, done)

    def _config_line(self, lines: list[bytes], index: int, request: Request, done: list[Answer]) -> int:
        line = lines[index]
        if line == b"END":
            self._answer(request, self._items or Items(), done)
            return index + 1
        fields = line.split(b" ")
        size = number(fields[3], MAX_BLOCK) if len(fields) == 4 else -1
        if fields[0] != b"CONFIG" or self._items is not None or size < 0:
            return self._violation(lines, request, line, "a line that is no part of a configuration", done)
        self._items = Items()
        return self._block_at(lines, index + 1, size, (fields[1], 0, None), request, done)

    def _block_at(
        self, lines: list[bytes], index: int, size: int, head: _Head, request: Request, done: list[Answer]
    ) -> int:
        """Take the data block that begins with a line, or begin it when it is not whole."""
        last = len(lines) - 1
        end = index + 1
        length = len(lines[index])
        while length < size and end < last:
            length += len(CRLF) + len(lines[end])
            end += 1
        if length == size and end <= last:
            value = lines[index] if end == index + 1 else CRLF.join(lines[index:end])
            self._finish(request, head, value, done)
            return end
        self._unused = len(CRLF.join(lines[index:]))
        self._rest = b""
        self._block = _Block(size, head, _is_dropped(request))
        return len(lines)

    def _fill(self, block: _Block, view: memoryview, position: int, done: list[Answer]) -> int:
        """Take the data at a position into the block; return the position behind it."""
        stop = min(position + block.missing, len(view))
        body = min(max(position + block.missing - len(CRLF), position), len(view))
        block.missing -= stop - position
        block.end += view[body:stop]
        fresh = not block.missing and body - position == block.size
        if not fresh and block.kept is not None:
            block.kept.write(view[position:body])
        if block.missing:
            return stop
        self._block = None
        request = self.expected[0]
        if block.end != CRLF:
            self._violate(request, block.end, f"a data block of {block.size} bytes without its end of line", done)
            return stop
        value = b""
        if block.kept is not None:
            value = bytes(view[position:body]) if fresh else block.kept.getvalue()
        self._finish(request, block.head, value, done)
        return stop

    def _finish(self, request: Request, head: _Head, value: bytes, done: list[Answer]) -> None:
        """Take a whole block."""
        if isinstance(head, MetaItem):
            head.value = value
            if request.shape is FETCH and not (head.won or head.pending or head.stale):
                self._answer(request, Item(value, head.flags, head.cas), done)
            else:
                self._answer(request, head, done)
        else:
            assert self._items is not None
            self._items.add(head[0], value, head[1], head[2])

    def _answer(self, request: Request, reply: Reply, done: list[Answer]) -> None:
        """Give the oldest request its reply."""
        self.expected.popleft()
        self._items = None
        self._stats = None
        if isinstance(request, Merged):
            rows = {row[0]: row for row in reply} if isinstance(reply, Items) else None
            for asker in request.requests:
                done.append((asker, reply if rows is None else _one(asker, rows.get(asker.key))))
        elif isinstance(reply, Items) and request.command in ONE_KEY_FETCHES:
            done.append((request, _one(request, next(iter(reply), None))))
        else:
            done.append((request, reply))

    def _violation(self, lines: list[bytes], request: Request, line: bytes, reason: str, done: list[Answer]) -> int:
        self._violate(request, line, reason, done)
        self._unused = 0
        return len(lines)

    def _violate(self, request: Request | None, data: bytes, reason: str, done: list[Answer]) -> None:
        self._broken = True
        self._rest = b""
        violation = Violation(data[:SHOWN], reason)
        if request is None:
            done.append((None, violation))
        else:
            self._answer(request, violation, done)


def _is_dropped(request: Request) -> bool:
    """True when nobody will look at the reply, so that a large value need not be kept."""
    return is_abandoned(request) and request.on_late is None


def _one(request: Request, row: tuple[bytes, bytes, int, int | None] | None) -> Reply:
    """Make the reply to a fetch of one key, with the fields that were asked for."""
    if row is None:
        return MISS
    return Item(row[1], row[2] if request.return_flags else None, row[3] if request.command in WITH_CAS else None)


def _read_flags(head: MetaItem, fields: list[bytes]) -> bool:
    """Enter the flags of a meta reply; return whether all their numbers are numbers."""
    for field in fields:
        name = field[:1]
        if name == b"f":
            head.flags = number(field[1:], MAX_FLAGS)
        elif name == b"c":
            head.cas = number(field[1:], MAX_CAS)
        elif field == b"W":
            head.won = True
        elif field == b"Z":
            head.pending = True
        elif field == b"X":
            head.stale = True
    return head.flags != -1 and head.cas != -1
