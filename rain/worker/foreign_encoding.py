"""How messages of the public executor protocol are encoded: MessagePack or CBOR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from rain.common.codecs import import_extra
from rain.common.comm import FrameError
from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.common.unpacking import unpack_bounded

_MESSAGE_PACK_ARRAYS = (b"\x92", b"\xdc", b"\xdd")


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoding.

    Attributes:
        name: for people.
        protocol: name of the public protocol that uses it.
        pack: encodes a message; raises FrameError.
        unpack: decodes a payload; raises FrameError.
    """

    name: str
    protocol: str
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


def encoding_of(payload: bytes) -> Encoding:
    """Tell the encoding of a connection by its first payload.

    Raises:
        FrameError: it is CBOR, or nothing, and the library for CBOR is not installed.
    """
    if payload[:1] in _MESSAGE_PACK_ARRAYS:
        return MESSAGE_PACK
    try:
        import_extra("cbor2", "cbor")
    except RainException as error:
        raise FrameError(f"the first frame is no MessagePack array of two elements, but CBOR. {error}") from None
    return CBOR


def read_message(encoding: Encoding, payload: bytes) -> tuple[str, Any]:
    """Read a frame: the name of the message and its data.

    Raises:
        FrameError: it is no message.
    """
    message = encoding.unpack(payload)
    if not isinstance(message, list | tuple) or len(message) != 2 or not isinstance(message[0], str):
        raise FrameError("a message is not an array of a name and data")
    return message[0], message[1]


def _pack_message_pack(message: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(message)
    except (ValueError, TypeError, OverflowError) as error:
        raise FrameError(f"MessagePack cannot express it: {error!r}") from None
    return packed


def _unpack_message_pack(payload: bytes) -> Any:
    try:
        return unpack_bounded(payload)
    except ValueError as error:
        raise FrameError(f"not MessagePack: {error}") from None


def _pack_cbor(message: Any) -> bytes:
    library = import_extra("cbor2", "cbor")
    try:
        packed: bytes = library.dumps(message)
    except (library.CBOREncodeError, ValueError, TypeError, RecursionError) as error:
        raise FrameError(f"CBOR cannot express it: {error!r}") from None
    return packed


def _unpack_cbor(payload: bytes) -> Any:
    library = import_extra("cbor2", "cbor")
    try:
        return library.loads(payload)
    except (library.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FrameError(f"not CBOR: {error!r}") from None


MESSAGE_PACK = Encoding("MessagePack", "msgpack-1", _pack_message_pack, _unpack_message_pack)
CBOR = Encoding("CBOR", "cbor-1", _pack_cbor, _unpack_cbor)
