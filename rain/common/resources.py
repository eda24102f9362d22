"""Resources of workers and requests of tasks, as vectors of integers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from rain.common.structs import dataclass
from rain.common.units import format_size, parse_size

CUSTOM_UNIT = 10_000
"""Custom resources are counted in units of 1/10000."""

_NAME = re.compile(r"[A-Za-z0-9_]+")
_MAX_AMOUNT = 1 << 62


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each kind.

    Attributes:
        cpus: cpus.
        gpus: how many gpus.
        memory: bytes.
        custom: amounts in units of `1/CUSTOM_UNIT`; zero amounts are absent.
    """

    cpus: int = 0
    gpus: int = 0
    memory: int = 0
    custom: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_request(cls, resources: Mapping[str, Any]) -> Resources:
        """Read the `resources` of a task; without `cpus` it needs one.

        Raises:
            ValueError: an amount or a name is not allowed; the text names it.
        """
        return cls._read(resources, default_cpus=1)

    @classmethod
    def of_worker(cls, resources: Mapping[str, Any]) -> Resources:
        """Read what a worker offers: as a request, with `gpus` a list of indices.

        Raises:
            ValueError: an amount or a name is not allowed; the text names it.
        """
        gpus = resources.get("gpus")
        if isinstance(gpus, list | tuple):
            if not all(type(index) is int and 0 <= index < _MAX_AMOUNT for index in gpus) or len(set(gpus)) < len(gpus):
                raise ValueError("resource 'gpus' of a worker is a list of different indices")
            resources = {**resources, "gpus": len(gpus)}
        return cls._read(resources, default_cpus=0)

    @classmethod
    def _read(cls, resources: Mapping[str, Any], default_cpus: int) -> Resources:
        cpus, gpus, memory = default_cpus, 0, 0
        custom: dict[str, int] = {}
        for name, value in resources.items():
            if name == "cpus":
                cpus = default_cpus if value is None else _whole("cpus", value)
            elif name == "gpus":
                gpus = _whole("gpus", value)
            elif name == "memory":
                memory = _memory(value)
            elif amount := _custom(name, value):
                custom[name] = amount
        return cls(cpus, gpus, memory, custom)

    def fits_into(self, offer: Resources) -> bool:
        """Tell whether `offer` has at least this much of each kind."""
        if self.cpus > offer.cpus or self.gpus > offer.gpus or self.memory > offer.memory:
            return False
        return all(amount <= offer.custom.get(name, 0) for name, amount in self.custom.items())

    def plus(self, other: Resources) -> Resources:
        """The sum of two vectors."""
        return self._combined(other, 1)

    def minus(self, other: Resources) -> Resources:
        """The difference of two vectors; may be negative."""
        return self._combined(other, -1)

    def _combined(self, other: Resources, sign: int) -> Resources:
        custom = dict(self.custom)
        for name, amount in other.custom.items():
            total = custom.pop(name, 0) + sign * amount
            if total:
                custom[name] = total
        return Resources(
            self.cpus + sign * other.cpus, self.gpus + sign * other.gpus, self.memory + sign * other.memory, custom
        )

    def to_map(self) -> dict[str, Any]:
        """Plain form: `cpus`, and what else is not zero; custom amounts as numbers."""
        result: dict[str, Any] = {"cpus": self.cpus}
        if self.gpus:
            result["gpus"] = self.gpus
        if self.memory:
            result["memory"] = self.memory
        for name, amount in self.custom.items():
            result[name] = _number(amount)
        return result

    def lacking(self, offer: Resources) -> list[str]:
        """What `offer` has too little of, for people: `"cpus=8"`, `"memory=2.0 GiB"`."""
        lacking = []
        if self.cpus > offer.cpus:
            lacking.append(f"cpus={self.cpus}")
        if self.gpus > offer.gpus:
            lacking.append(f"gpus={self.gpus}")
        if self.memory > offer.memory:
            lacking.append(f"memory={format_size(self.memory)}")
        for name, amount in self.custom.items():
            if amount > offer.custom.get(name, 0):
                lacking.append(f"{name}={_number(amount)}")
        return lacking

    def __str__(self) -> str:
        parts = [f"{name}={format_size(value) if name == 'memory' else value}" for name, value in self.to_map().items()]
        return ", ".join(parts)


def check_resources(resources: Mapping[str, Any]) -> None:
    """Check the `resources` of a task.

    Raises:
        ValueError: an amount or a name is not allowed; the text names it.
    """
    Resources.of_request(resources)


def _number(amount: int) -> int | float:
    return amount // CUSTOM_UNIT if amount % CUSTOM_UNIT == 0 else amount / CUSTOM_UNIT


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_AMOUNT:
        raise ValueError(f"resource {name!r} is an int >= 0, not {value!r}")
    return int(value)


def _memory(value: Any) -> int:
    try:
        size = parse_size(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"resource 'memory': {error}") from None
    if size >= _MAX_AMOUNT:
        raise ValueError(f"resource 'memory' of {value!r} is too large")
    return size


def _custom(name: Any, value: Any) -> int:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a resource; use letters, digits and '_'")
    valid = isinstance(value, int | float) and not isinstance(value, bool)
    if not valid or not 0 <= value < _MAX_AMOUNT // CUSTOM_UNIT:
        raise ValueError(f"resource {name!r} is a number >= 0, not {value!r}")
    amount: int = round(value * CUSTOM_UNIT)
    return amount
