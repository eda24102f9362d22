"""Arguments of operations: normalise them or raise, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer as Buffer

MAX_KEY_LENGTH = 250
MAX_FLAGS = 2**32 - 1
MAX_TOKEN = 2**64 - 1
MIN_EXPTIME = -(2**31)
MAX_EXPTIME = 2**31 - 1
MAX_LEASE = 2_592_000

_FORBIDDEN = {*range(33), 127}
_CHANGES_FORBIDDEN = bytes((byte == 0) if byte in _FORBIDDEN else byte for byte in range(256))
"""A table for `translate`, which gives back the same object where nothing changes."""


def check_key(key: bytes) -> None:
    """Raise `TypeError` or `ValueError` unless this can be a key."""
    if not isinstance(key, bytes):
        raise TypeError(f"a key must be bytes, not {type(key).__name__}")
    if not 0 < len(key) <= MAX_KEY_LENGTH or key.translate(_CHANGES_FORBIDDEN) != key:
        raise ValueError(_what_is_wrong(key))


def _what_is_wrong(key: bytes) -> str:
    if not key:
        return "a key must not be empty"
    if len(key) > MAX_KEY_LENGTH:
        return f"a key has at most {MAX_KEY_LENGTH} bytes, this one has {len(key)}: {key[:40]!r}..."
    return f"a key must not contain blanks or control characters: {key!r}"


def check_keys(keys: Iterable[bytes]) -> list[bytes]:
    """The keys without repetitions, in order; raises like `check_key` if one of them is wrong."""
    given = list(keys)
    if set(map(type, given)) <= {bytes}:
        joined = b"".join(given)
        lengths = set(map(len, given))
        clean = joined.translate(_CHANGES_FORBIDDEN) == joined
        if clean and (not lengths or (min(lengths) > 0 and max(lengths) <= MAX_KEY_LENGTH)):
            return list(dict.fromkeys(given))
    for key in given:
        check_key(key)
    return list(dict.fromkeys(given))


def check_value(value: Buffer) -> bytes | memoryview:
    """The bytes of a value, uncopied unless they may change: transports may keep them beyond the call.

    Raises:
        TypeError: it has no contiguous bytes.
    """
    if value.__class__ is bytes:
        return value
    try:
        view = memoryview(value)
    except TypeError:
        raise TypeError(f"a value must be bytes or another buffer, not {type(value).__name__}") from None
    if not view.c_contiguous:
        raise TypeError("the buffer of a value must be contiguous")
    return view.cast("B") if view.readonly else view.tobytes()


def check_flags(flags: int) -> None:
    """Raise unless flags are an int of 32 bits."""
    check_range("flags", flags, 0, MAX_FLAGS)


def check_cas(cas: int) -> None:
    """Raise unless a token is an int of 64 bits."""
    check_range("cas", cas, 0, MAX_TOKEN)


def check_delta(delta: int) -> None:
    """Raise unless the number to add or subtract, the argument `value`, is an int of 64 bits."""
    check_range("value", delta, 0, MAX_TOKEN)


def check_exptime(exptime: int) -> None:
    """Raise unless an expiry is an int that the server can read."""
    check_range("exptime", exptime, MIN_EXPTIME, MAX_EXPTIME)


def check_ttl(ttl: int) -> None:
    """Raise unless the time to live of `get_or_set` is an int that is not negative."""
    check_range("ttl", ttl, 0, MAX_EXPTIME)


def check_lease(lease: int) -> None:
    """Raise unless the duration of a lease is an int from 1 to 30 days."""
    check_range("lease", lease, 1, MAX_LEASE)


def check_stale(stale: int) -> None:
    """Raise unless the time during which an old value is served is an int from 0 to 30 days."""
    check_range("stale", stale, 0, MAX_LEASE)


def check_wait(wait: float | None) -> None:
    """Raise unless a limit of waiting is None or a number of seconds that is not negative."""
    if wait is None:
        return
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise TypeError(f"wait must be a number of seconds or None, not {wait!r}")
    if wait < 0 or wait != wait:
        raise ValueError(f"wait must not be negative, it is {wait!r}")


def check_stats_arguments(arguments: Iterable[str]) -> None:
    """Raise unless all arguments of `stats` are words of printable ASCII."""
    for argument in arguments:
        if not isinstance(argument, str):
            raise TypeError(f"an argument of stats must be a str, not {argument!r}")
        if not argument or not argument.isascii() or not argument.isprintable() or " " in argument:
            raise ValueError(f"an argument of stats must be printable ASCII without spaces, not {argument!r}")


def check_range(name: str, number: int, low: int, high: int) -> None:
    """Raise `TypeError` unless an argument is an int, `ValueError` unless it is within limits."""
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{name} must be an int, not {number!r}")
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {number}")
