"""Resource vectors in integers: what tasks ask for and what workers offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FRACTION = 10_000
"""Custom resources have a resolution of 0.0001."""

ZERO_CPU_SLOT = "zero-cpu tasks"
"""Tasks with cpus=0 take one of these slots, so that their number is limited (spec 6.5)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a task needs. cpus: whole cpus; other: sorted pairs of resource name and integer amount."""

    cpus: int
    other: tuple[tuple[str, int], ...] = ()

    @property
    def weight(self) -> int:
        """Bigger requests are placed first."""
        return self.cpus * 1000 + len(self.other)

    def describe(self) -> str:
        """`cpus=8, gpus=1` for messages."""
        parts = [f"cpus={self.cpus}"]
        parts += [f"{name}={readable(name, amount)}" for name, amount in self.other if name != ZERO_CPU_SLOT]
        return ", ".join(parts)


def readable(name: str, amount: int) -> str:
    """An amount in the unit the user gave."""
    if name in ("gpus", "memory"):
        return str(amount)
    return f"{amount / FRACTION:g}"


def parse_request(resources: Mapping[str, Any]) -> Request:
    """The request of a task's `resources` map (spec 5.6); no `cpus` entry means 1.

    Raises:
        ValueError: not well formed.
    """
    cpus = 1
    other: list[tuple[str, int]] = []
    for name, amount in resources.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
            raise ValueError(f"resource {name}={amount!r} is not a number >= 0")
        if name in ("cpus", "gpus", "memory"):
            if int(amount) != amount:
                raise ValueError(f"resource {name}={amount!r} is not a whole number")
            if name == "cpus":
                cpus = int(amount)
            elif amount:
                other.append((name, int(amount)))
        elif not name.replace("_", "a").isalnum():
            raise ValueError(f"resource name {name!r}: only letters, digits and _ are allowed")
        elif amount:
            other.append((name, round(amount * FRACTION)))
    if cpus == 0:
        other.append((ZERO_CPU_SLOT, 1))
    return Request(cpus, tuple(sorted(other)))


def parse_offer(resources: Mapping[str, Any]) -> dict[str, int]:
    """Amounts a worker offers, from the map of its WorkerHello.

    Raises:
        ValueError: not well formed.
    """
    offer: dict[str, int] = {}
    for name, amount in resources.items():
        if name == "gpus" and isinstance(amount, list):
            offer[name] = len(amount)
        elif isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
            raise ValueError(f"resource {name}={amount!r} is not a number >= 0")
        else:
            offer[name] = int(amount) if name in ("cpus", "gpus", "memory") else round(amount * FRACTION)
    cpus = offer.setdefault("cpus", 1)
    offer[ZERO_CPU_SLOT] = max(4, 4 * cpus)
    return offer


def shortage(request: Request, offer: Mapping[str, int]) -> str:
    """Why an idle worker with this offer could not run the request; `""` if it could."""
    lacking = []
    if offer.get("cpus", 0) < request.cpus:
        lacking.append(f"cpus={offer.get('cpus', 0)}")
    lacking += [
        f"{name}={readable(name, offer.get(name, 0))}"
        for name, amount in request.other
        if offer.get(name, 0) < amount
    ]
    return ", ".join(lacking)
