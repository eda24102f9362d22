"""Checking packed task templates, object specs and infos, which travel on as they came.

Server and workers look at them with the same eyes, so that what one accepts the other can use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.unpacking import unpack_bounded

if TYPE_CHECKING:
    from collections.abc import Callable

_PRIORITIES = range(-(1 << 31), 1 << 31)
_MAX_RETRIES = 1 << 31


CACHED_INFO: bytes = msgpack.packb({"cached": True})
"""The packed info of a task whose result came from the result cache."""


def read_template_map(packed: bytes) -> dict[str, Any]:
    """Unpack a template (its keys: rain.protocol.messages).

    Raises:
        ValueError: it is not a template; the text names the field.
    """
    data = unpack_bounded(packed)
    if not isinstance(data, dict):
        raise ValueError("a template is not a map")
    if not data.get("task_type"):
        raise ValueError("a template has no task_type")
    for name, is_valid in _FIELDS.items():
        value = data.get(name)
        if value is not None and not is_valid(value):
            raise ValueError(f"{name!r} of a template is malformed: {value!r:.200}")
    _check_depth(data, "a template")
    return data


def read_spec_map(packed: bytes) -> dict[str, Any]:
    """Unpack an object spec.

    Raises:
        ValueError: it is not one.
    """
    return _read_map(packed, "an object spec")


def read_info_map(packed: bytes) -> dict[str, Any]:
    """Unpack a task or object info.

    Raises:
        ValueError: it is not one.
    """
    return _read_map(packed, "an info")


def _read_map(packed: bytes, what: str) -> dict[str, Any]:
    data = unpack_bounded(packed)
    if not isinstance(data, dict):
        raise ValueError(f"{what} is not a map")
    _check_depth(data, what)
    return data


def _check_depth(data: dict[str, Any], what: str) -> None:
    """Executors get it in messages of their own; msgpack packs no deeper than it unpacks."""
    try:
        msgpack.packb([[[data]]])
    except ValueError as error:
        raise ValueError(f"{what} is nested too deeply") from error


def _is_str(value: Any) -> bool:
    return isinstance(value, str)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes)


def _is_cache(value: Any) -> bool:
    return value is True or isinstance(value, str)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_retries(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_RETRIES


def _is_priority(value: Any) -> bool:
    return type(value) is int and value in _PRIORITIES


def _is_timeout(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and name
        and not {"=", "\0"} & set(name)
        and (text is None or (isinstance(text, str) and "\0" not in text))
        for name, text in value.items()
    )


def _is_label_list(value: Any) -> bool:
    return isinstance(value, list) and all(label is None or isinstance(label, str) for label in value)


def _is_spec_list(value: Any) -> bool:
    return isinstance(value, list) and all(spec is None or isinstance(spec, dict) for spec in value)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "task_type": _is_str,
    "name": _is_str,
    "resources": _is_map,
    "user": _is_map,
    "retries": _is_retries,
    "timeout": _is_timeout,
    "priority": _is_priority,
    "env": _is_environment,
    "labels": _is_label_list,
    "outputs": _is_spec_list,
    "cache": _is_cache,
    "cache_code": _is_bytes,
}
