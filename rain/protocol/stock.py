"""Frames as pycapnp reads them: the only module of Rain that imports capnp.

Frames in the form that Rain writes are read without it (`rain.protocol.flat`). Cap'n Proto allows others, which
libraries of other languages may choose: several segments, other places of the bytes, fields left out at the end.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.protocol.limits import ProtocolError

if TYPE_CHECKING:
    from rain.protocol.framing import Frame

SCHEMA_PATH = Path(__file__).parent / "schema" / "rain.capnp"

_TRAVERSAL_LIMIT = 2**60  # words; frames were measured before they were buffered
_CODES = {"uint64": "Q", "uint32": "I", "uint8": "B", "float64": "d", "bool": "?", "data": "D", "text": "T"}

_schema: Any = None
_lock = threading.Lock()


def schema() -> Any:
    """The loaded schema, a module of pycapnp."""
    global _schema
    with _lock:
        if _schema is None:
            import capnp

            _schema = capnp.load(str(SCHEMA_PATH), imports=[])
        return _schema


def read(frame: Frame) -> tuple[int, list[Any]]:
    """Read a frame of any form.

    Returns:
        Number of the union's member, values of its fields.

    Raises:
        ProtocolError: that is no message.
    """
    import capnp

    message_type = schema().Message
    try:
        message = next(message_type.read_multiple_bytes(frame, _TRAVERSAL_LIMIT))
        name = str(message.which())
        body = getattr(message, name)
        values = [getattr(body, field) for field in body.schema.fieldnames]
    except StopIteration:
        raise ProtocolError("a message is shorter than its segment table says") from None
    except (capnp.KjException, RuntimeError, ValueError) as error:
        raise ProtocolError(str(error)) from error
    return message_type.schema.fields[name].proto.discriminantValue, values


def layouts() -> dict[str, tuple[int, int, int, str]]:
    """What `rain.protocol.layout` holds, from the schema: of each struct the number of the union's member that is one,
    words of numbers, pointers, and slots as `rain.protocol.flat.FlatStruct` takes them.

    Raises:
        ValueError: the schema has something that Rain's own reader and writer do not know.
    """
    message = schema().Message.schema
    found = {}
    for member in message.fields.values():
        struct = member.schema
        shape = struct.node.struct
        slots = []
        for field in struct.fields.values():
            slot = field.proto.slot
            code = _CODES.get(str(slot.type.which()))
            if code is None or slot.hadExplicitDefault:
                raise ValueError(f"a field of an unknown kind in {member.proto.name}: {field.proto.name}")
            slots.append(f"{code}{slot.offset}")
        name = member.proto.name
        number = member.proto.discriminantValue
        found[name[0].upper() + name[1:]] = number, shape.dataWordCount, shape.pointerCount, " ".join(slots)
    return found
