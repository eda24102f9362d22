"""Task options as users give them, checked and brought into their final form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rain.client.shape import DEFAULT_OPTIONS, TaskOptions
from rain.common.resources import check_resources
from rain.common.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = re.compile(r"[^=\0]+")
_PRIORITIES = range(-(1 << 31), 1 << 31)


class _DefaultCpus(int):
    """One cpu that nobody asked for: it gives way to `resources["cpus"]`."""


DEFAULT_CPUS: int = _DefaultCpus(1)
_NOTHING = (None,) * 6


def read_options(
    *,
    name: str | None = None,
    cpus: int | None = DEFAULT_CPUS,
    resources: Mapping[str, Any] | None = None,
    retries: int = 0,
    timeout: float | str | None = None,
    priority: int = 0,
    cache: bool | str | None = None,
    env: Mapping[str, str | None] | None = None,
    user_spec: Mapping[str, Any] | None = None,
) -> TaskOptions:
    """Check task options.

    Args:
        name: of the task; None = none.
        cpus: shorthand of `resources["cpus"]`; None puts no cpus entry into the resources.
        resources: amounts by name.
        retries: further runs after a failure.
        timeout: seconds, or text, for one run.
        priority: 32-bit int, larger first.
        cache: None, True or a text that stands for config and code.
        env: environment variables; None removes one.
        user_spec: becomes `spec.user`.

    Raises:
        ValueError: a value is not allowed, or `cpus` and `resources["cpus"]` differ.
        TypeError: a value is of a wrong type.
    """
    given = (name, resources, timeout, cache, env, user_spec)
    if given == _NOTHING and cpus is DEFAULT_CPUS and retries == 0 and priority == 0:
        return DEFAULT_OPTIONS
    if name is not None and not isinstance(name, str):
        raise TypeError(f"The name of a task must be a str, not {name!r}")
    return TaskOptions(
        name=name,
        resources=_resources(cpus, resources),
        retries=_whole("retries", retries),
        timeout=None if timeout is None else parse_duration(timeout),
        priority=_priority(priority),
        cache=_cache(cache),
        env=_environment(env),
        user=dict(user_spec or {}),
    )


def _resources(cpus: int | None, resources: Mapping[str, Any] | None) -> dict[str, Any]:
    asked = dict(resources or {})
    if cpus is not None:
        given = asked.setdefault("cpus", int(cpus) if type(cpus) is _DefaultCpus else cpus)
        if given != cpus and type(cpus) is not _DefaultCpus:
            raise ValueError(f"cpus={cpus} and resources['cpus']={given!r} contradict each other")
    check_resources(asked)
    if "memory" in asked:
        asked["memory"] = parse_size(asked["memory"])
    return asked


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, not {value}")
    return value


def _priority(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"priority must be an int, not {value!r}")
    if value not in _PRIORITIES:
        raise ValueError(f"priority must be a 32-bit int, not {value}")
    return value


def _cache(value: Any) -> bool | str | None:
    if value is None or value is False:
        return None
    if value is True or isinstance(value, str):
        return value
    raise TypeError(f"cache must be None, True or a str, not {value!r}")


def _environment(env: Mapping[str, str | None] | None) -> dict[str, str | None]:
    checked: dict[str, str | None] = {}
    given: Mapping[Any, Any] = env or {}
    for name, value in given.items():
        if not isinstance(name, str) or not (value is None or isinstance(value, str)):
            raise TypeError(f"env must map names to str or None, not {name!r} to {value!r}")
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an environment variable")
        if name.startswith("RAIN_"):
            raise ValueError(f"env: names that start with RAIN_ are Rain's own: {name!r}")
        checked[name] = value
    return checked
