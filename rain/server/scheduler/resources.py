"""Resources as the scheduler counts them: cpus, and everything else by name, in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.common.resources import CUSTOM_UNIT, Resources
from rain.common.structs import dataclass
from rain.common.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    if name in ("cpus", ZERO_CPU_SLOT):
        return str(amount)
    if name == "memory":
        return format_size(amount)
    return str(amount) if name == "gpus" else f"{amount / CUSTOM_UNIT:g}"


def _others(resources: Resources) -> dict[str, int]:
    """Amounts by name of everything but cpus; zero amounts are absent."""
    named = {"gpus": resources.gpus, "memory": resources.memory}
    return {name: amount for name, amount in (named | dict(resources.custom)).items() if amount}


def parse_request(resources: Mapping[str, Any]) -> Request:
    """The request of a task's `resources` map (spec 5.6); no `cpus` entry means 1.

    Raises:
        ValueError: not well formed.
    """
    vector = Resources.of_request(resources)
    other = _others(vector)
    if not vector.cpus:
        other[ZERO_CPU_SLOT] = 1
    return Request(vector.cpus, tuple(sorted(other.items())))


def parse_offer(resources: Mapping[str, Any]) -> dict[str, int]:
    """Amounts a worker offers, from the map of its WorkerHello.

    Raises:
        ValueError: not well formed.
    """
    vector = Resources.of_worker(resources)
    return {"cpus": vector.cpus, **_others(vector), ZERO_CPU_SLOT: max(4, 4 * vector.cpus)}


def free_resources(cpus: int, others: Mapping[str, int]) -> dict[str, Any]:
    """What is free at a worker, as the map of a task's `resources`: memory in bytes, custom ones in the user's unit."""
    free: dict[str, Any] = {"cpus": max(0, cpus)}
    for name, amount in others.items():
        if name != ZERO_CPU_SLOT:
            free[name] = amount if name in ("gpus", "memory") else amount / CUSTOM_UNIT
    return free


def shortage(request: Request, offer: Mapping[str, int]) -> str:
    """Why an idle worker with this offer could not run the request; `""` if it could."""
    lacking = []
    if offer.get("cpus", 0) < request.cpus:
        lacking.append(f"cpus={offer.get('cpus', 0)}")
    lacking += [
        f"{name}={readable(name, offer.get(name, 0))}" for name, amount in request.other if offer.get(name, 0) < amount
    ]
    return ", ".join(lacking)
