"""Content types: how the bytes of a value are encoded."""

from __future__ import annotations

import json
from typing import Any

from rain.common.codecs import decode_arrow, decode_cbor, decode_pickle, encode_arrow, encode_cbor, encode_pickle
from rain.common.errors import RainException
from rain.common.pickle5 import decode_pickle5, encode_pickle5

_NAMES = frozenset({"", "pickle", "cloudpickle", "pickle5", "json", "cbor", "arrow", "text", "protobuf", "dir"})
_SEPARATORS = {"text": "-", "user": "/", "mime": "/", "protobuf": "/"}

Buffer = bytes | bytearray | memoryview


def _canonical(name: str | None) -> str:
    """The primary spelling: `text-ENC user/X mime/X protobuf/X`; `""` for None."""
    if not name:
        return ""
    if name in _NAMES:
        return name
    for prefix, separator in _SEPARATORS.items():
        if name.startswith(prefix + ":"):
            return prefix + separator + name[len(prefix) + 1 :]
    return name


def check_content_type(name: str | None) -> bool:
    """Check that a content type is known.

    Returns:
        True.

    Raises:
        ValueError: it is not.
    """
    canonical = _canonical(name)
    if canonical in _NAMES:
        return True
    for prefix, separator in _SEPARATORS.items():
        if canonical.startswith(prefix + separator) and len(canonical) > len(prefix) + 1:
            return True
    raise ValueError(f"Unknown content type {name!r}; see the list of content types, or use 'user/NAME' for own ones")


def _extends(name: str, base: str) -> bool:
    return name == base or (name.startswith(base) and name[len(base)] in "-:/")


def merge_content_types(name_a: str | None, name_b: str | None) -> str | None:
    """Return the more specific of two content types, in the spelling given.

    Raises:
        RainException: they contradict each other.
    """
    check_content_type(name_a)
    check_content_type(name_b)
    if not name_a:
        return name_b or name_a
    if not name_b:
        return name_a
    a, b = _canonical(name_a), _canonical(name_b)
    if _extends(a, b):
        return name_a
    if _extends(b, a):
        return name_b
    if {a, b} == {"pickle", "cloudpickle"}:
        return "cloudpickle"
    raise RainException(f"Incompatible content types {name_a!r} and {name_b!r}")


def is_type_instance(name: str | None, ctype: str | None) -> bool:
    """Tell whether content type `name` equals `ctype` or is a subtype of it; anything is an instance of None."""
    base = _canonical(ctype)
    if not base:
        return True
    own = _canonical(name)
    return _extends(own, base) or (own == "pickle" and base == "cloudpickle") if own else False


def has_codec(name: str | None) -> bool:
    """Tell whether values of this type can be encoded and decoded."""
    canonical = _canonical(name)
    return canonical in _CODECS or canonical == "text" or canonical.startswith("text-")


def encode_value(value: Any, content_type: str | None) -> bytes:
    """Encode a Python value.

    Raises:
        ValueError: the content type is not known.
        RainException: it has no codec, or the value cannot be encoded by it.
    """
    check_content_type(content_type)
    canonical = _canonical(content_type)
    try:
        codec = _CODECS.get(canonical)
        if codec is not None:
            return codec[0](value)
        if has_codec(canonical):
            return _encode_text(value, canonical)
    except RainException:
        raise
    except Exception as error:  # codecs and methods of the value may raise anything
        raise RainException(
            f"Cannot encode a value of type {type(value).__name__!r} as {content_type!r}: {error}"
        ) from error
    raise RainException(f"Values cannot be encoded as content type {content_type!r}: it has no codec")


def decode_value(data: Buffer, content_type: str | None) -> Any:
    """Decode bytes to a Python value. Buffers of `pickle5` values share memory with `data`.

    Raises:
        ValueError: the content type is not known.
        RainException: it has no codec, or the data cannot be decoded by it.
    """
    check_content_type(content_type)
    canonical = _canonical(content_type)
    try:
        codec = _CODECS.get(canonical)
        if codec is not None:
            return codec[1](data)
        if has_codec(canonical):
            return str(data, _text_encoding(canonical))
    except RainException:
        raise
    except Exception as error:  # unpickling runs arbitrary code
        raise RainException(f"Cannot decode a value of content type {content_type!r}: {error!r}") from error
    raise RainException(f"Values of content type {content_type!r} cannot be decoded: it has no codec")


def _text_encoding(canonical: str) -> str:
    return canonical[len("text-") :] or "utf-8"


def _encode_text(value: Any, canonical: str) -> bytes:
    if not isinstance(value, str):
        raise RainException(f"Only str can be encoded as {canonical!r}, not {type(value).__name__!r}")
    return value.encode(_text_encoding(canonical))


def _encode_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _decode_json(data: Buffer) -> Any:
    return json.loads(str(data, "utf-8"))


_CODECS = {
    "pickle": (encode_pickle, decode_pickle),
    "cloudpickle": (encode_pickle, decode_pickle),
    "pickle5": (encode_pickle5, decode_pickle5),
    "json": (_encode_json, _decode_json),
    "cbor": (encode_cbor, decode_cbor),
    "arrow": (encode_arrow, decode_arrow),
}
