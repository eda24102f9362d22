"""Resources of a worker, accounted in integers."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Any

from rain.common.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Mapping

class Request:
    """What one run needs, as the pool compares it. `custom` maps names to units; entries of zero are left out."""

    __slots__ = ("amounts", "cpus", "custom", "gpus", "key", "memory")

    def __init__(self, amounts: Resources) -> None:
        self.amounts = amounts
        self.cpus = amounts.cpus
        self.gpus = amounts.gpus
        self.memory = amounts.memory
        self.custom = tuple(sorted(amounts.custom.items()))
        self.key = (self.cpus, self.gpus, self.memory, self.custom)

    @classmethod
    def parse(cls, resources: Mapping[str, Any] | None) -> Request:
        """Read the `resources` of a template; 1 cpu where it says nothing.

        Raises:
            ValueError: an amount or a name is not allowed.
        """
        return cls(Resources.of_request(resources or {}))

    def __str__(self) -> str:
        return str(self.amounts)


class ResourcePool:
    """Free and total resources. A run without cpus takes one of `4 * cpus`, at least 4, places instead."""

    __slots__ = ("amounts", "cpus", "custom", "free_cpus", "free_custom", "free_gpus", "free_memory", "free_places",
                 "gpus", "memory", "places")  # fmt: skip

    def __init__(self, resources: Mapping[str, Any]) -> None:
        """`resources`: as a worker announces them, `{"cpus": int, "gpus": [int], "memory": bytes, NAME: number}`."""
        self.amounts = Resources.of_worker(resources)
        self.cpus = self.free_cpus = self.amounts.cpus
        self.places = self.free_places = max(4, 4 * self.cpus)
        self.gpus: tuple[int, ...] = tuple(sorted(resources.get("gpus", ())))
        self.free_gpus = list(self.gpus)
        self.memory = self.free_memory = self.amounts.memory
        self.custom = dict(self.amounts.custom)
        self.free_custom = dict(self.custom)

    def fits(self, request: Request, given_back: Request | None = None) -> bool:
        """Whether a run could start now, or once `given_back` is free too."""
        cpus, places, gpus, memory = self.free_cpus, self.free_places, len(self.free_gpus), self.free_memory
        if given_back is not None:
            cpus += given_back.cpus
            places += not given_back.cpus
            gpus += given_back.gpus
            memory += given_back.memory
        if (cpus < request.cpus if request.cpus else places < 1) or gpus < request.gpus or memory < request.memory:
            return False
        if not request.custom:
            return True
        extra = dict(given_back.custom) if given_back is not None else {}
        return all(self.free_custom.get(name, 0) + extra.get(name, 0) >= steps for name, steps in request.custom)

    def feasible(self, request: Request) -> bool:
        """Whether a run could start if nothing else ran."""
        return (
            request.cpus <= self.cpus
            and request.gpus <= len(self.gpus)
            and request.memory <= self.memory
            and all(self.custom.get(name, 0) >= steps for name, steps in request.custom)
        )

    def capacity(self, request: Request) -> int:
        """How many runs of this kind could start now."""
        most = self.free_cpus // request.cpus if request.cpus else self.free_places
        if request.gpus:
            most = min(most, len(self.free_gpus) // request.gpus)
        if request.memory:
            most = min(most, self.free_memory // request.memory)
        for name, steps in request.custom:
            most = min(most, self.free_custom.get(name, 0) // steps)
        return most

    def take(self, request: Request) -> tuple[int, ...]:
        """Occupy what a run needs (it must fit); returns its gpu indices."""
        if request.cpus:
            self.free_cpus -= request.cpus
        else:
            self.free_places -= 1
        self.free_memory -= request.memory
        for name, steps in request.custom:
            self.free_custom[name] -= steps
        gpus = tuple(self.free_gpus[: request.gpus])
        del self.free_gpus[: request.gpus]
        return gpus

    def give(self, request: Request, gpus: tuple[int, ...]) -> None:
        """Free what `take` occupied."""
        if request.cpus:
            self.free_cpus += request.cpus
        else:
            self.free_places += 1
        self.free_memory += request.memory
        for name, steps in request.custom:
            self.free_custom[name] += steps
        for gpu in gpus:
            insort(self.free_gpus, gpu)

    def __str__(self) -> str:
        return str(self.amounts)
