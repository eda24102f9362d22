"""Unpacking what other processes sent."""

from __future__ import annotations

from typing import Any

import msgpack

_WALKED_FROM = 1 << 10
_LONGEST_REASON = 200


def unpack_bounded(data: bytes, *, strict_map_key: bool = True) -> Any:
    """Unpack msgpack with memory in proportion to the length of the data.

    msgpack makes room for as many elements as the header of a list claims before it knows whether they are there, and
    lists within lists can claim the same bytes again and again. So all but short data is walked over first, which
    makes nothing and finds headers that lie.

    Args:
        data: one packed value.
        strict_map_key: keys of maps must be str or bytes.

    Raises:
        ValueError: it is not one packed value.
    """
    try:
        if len(data) > _WALKED_FROM:
            walker = msgpack.Unpacker(max_buffer_size=len(data))
            walker.feed(data)
            walker.skip()
        return msgpack.unpackb(data, strict_map_key=strict_map_key)
    except msgpack.OutOfData:
        raise ValueError("it ends too early") from None
    except msgpack.ExtraData as error:  # holds the whole value
        raise ValueError(f"{len(error.extra)} bytes follow after its end") from None
    except (ValueError, TypeError) as error:  # TypeError: a map or list as key of a map
        raise ValueError(str(error)[:_LONGEST_REASON] or type(error).__name__) from None
