"""Answers of a server where every command goes well, and where each value carries its key."""

from __future__ import annotations

from rain.memcache.testing.framing import HEADER, packet

VERSION = b"1.6.18"
MISSING = b"missing"
"""Keys that begin so are not there."""
TOKEN = 7
"""The cas token of every item."""
_LINES = {
    b"version": b"VERSION " + VERSION + b"\r\n",
    b"mn": b"MN\r\n",
    b"md": b"HD\r\n",
    b"incr": b"1\r\n",
    b"decr": b"1\r\n",
    b"touch": b"TOUCHED\r\n",
    b"delete": b"DELETED\r\n",
    b"stats": b"STAT pid 1\r\nSTAT version " + VERSION + b"\r\nEND\r\n",
    **dict.fromkeys((b"flush_all", b"cache_memlimit", b"verbosity"), b"OK\r\n"),
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), b"STORED\r\n"),
}
_FETCHES = {b"get": 1, b"gets": 1, b"gat": 2, b"gats": 2}
"""Where their keys begin."""


def value_of(key: bytes) -> bytes:
    """The value that a key has."""
    return b"value of " + key


def there(key: bytes) -> bool:
    """Whether a key is there; the key of the classic probe is not."""
    return not key.startswith((MISSING, b"rain:probe"))


def success(request: bytes) -> bytes:
    """The answer to a request, text or binary, where all goes well; nothing for those that want none.

    Fetches find `value of KEY` with flags 0 and cas token 7, except keys that begin with `missing`.
    """
    if request[:1] == b"\x80":
        return _binary(request)
    words = request.partition(b"\r\n")[0].split()
    name = words[0] if words else b""
    if words[-1:] == [b"noreply"]:
        return b""
    if name in _FETCHES:
        token = b" %d" % TOKEN if name.endswith(b"s") else b""
        hits = [key for key in words[_FETCHES[name] :] if there(key)]
        blocks = [b"VALUE %b 0 %d%b\r\n%b\r\n" % (key, len(value_of(key)), token, value_of(key)) for key in hits]
        return b"".join(blocks) + b"END\r\n"
    if name == b"mg":
        return _meta(words[1], words[2:])
    return _LINES.get(name, b"ERROR\r\n")


def _meta(key: bytes, flags: list[bytes]) -> bytes:
    if not there(key):
        return b"EN\r\n"
    told = {b"f": b" f0", b"c": b" c%d" % TOKEN}
    end = b"".join(told.get(flag, b"") for flag in flags) + b"\r\n"
    if b"v" not in flags:
        return b"HD" + end
    return b"VA %d" % len(value_of(key)) + end + value_of(key) + b"\r\n"


_GETS = {0x00: False, 0x1D: False, 0x0D: True, 0x24: True}
"""Opcodes of fetches; whether they tell the key, and no misses."""
_QUIET = {0x11, 0x12, 0x13, 0x19, 0x1A, 0x14, 0x15, 0x16, 0x18}
_NUMBER = {0x05, 0x06}


def _binary(request: bytes) -> bytes:
    _, opcode, key_size, extras_size, _, _, _, opaque, _ = HEADER.unpack_from(request)
    start = HEADER.size + extras_size
    key = request[start : start + key_size]
    if opcode in _QUIET:
        return b""
    if opcode in _GETS:
        if there(key):
            told = key if _GETS[opcode] else b""
            return packet(opcode, extras=bytes(4), key=told, value=value_of(key), opaque=opaque, cas=TOKEN)
        return b"" if _GETS[opcode] else packet(opcode, status=1, value=b"Not found", opaque=opaque)
    if opcode in _NUMBER:
        return packet(opcode, value=(1).to_bytes(8, "big"), opaque=opaque, cas=TOKEN)
    if opcode == 0x0B:
        return packet(opcode, value=VERSION, opaque=opaque)
    if opcode == 0x10:
        return packet(opcode, key=b"pid", value=b"1", opaque=opaque) + packet(opcode, opaque=opaque)
    if opcode == 0x21:
        return packet(opcode, value=b"Authenticated", opaque=opaque)
    return packet(opcode, opaque=opaque, cas=TOKEN)
