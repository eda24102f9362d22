"""What this machine offers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.process.workdir import SetupError

if TYPE_CHECKING:
    from rain.worker.options import WorkerOptions

NVIDIA_DEVICES = "/proc/driver/nvidia/gpus"

_MINOR = re.compile(r"^Device Minor:\s*(\d+)", re.MULTILINE)


def detect_cpus() -> int:
    """Cpus on which this process may run."""
    return len(os.sched_getaffinity(0))


def detect_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def detect_gpus(directory: str = NVIDIA_DEVICES) -> list[int]:
    """Indices of the gpus with a driver, sorted."""
    found = []
    for information in Path(directory).glob("*/information"):
        match = _MINOR.search(information.read_text(errors="replace"))
        if match is not None:
            found.append(int(match[1]))
    return sorted(found)


def offered_resources(options: WorkerOptions) -> dict[str, Any]:
    """The resources which the worker announces: `cpus`, `gpus`, `memory` and custom ones.

    Raises:
        SetupError: no cpu would be left, or an amount makes no sense.
    """
    cpus = detect_cpus() if options.cpus is None else options.cpus
    if cpus < 0:
        cpus += detect_cpus()
    if cpus <= 0:
        raise SetupError(
            f"--cpus={options.cpus} leaves no cpu on this machine, which has {detect_cpus()}; give a larger number"
        )
    if options.gpus is None:
        gpus = detect_gpus()
    elif isinstance(options.gpus, int):
        gpus = list(range(options.gpus))
    else:
        gpus = sorted(set(options.gpus))
    memory = detect_memory() if options.memory is None else options.memory
    resources: dict[str, Any] = {"cpus": cpus, "gpus": gpus, "memory": memory}
    for name, amount in options.resources.items():
        if name in resources or amount < 0:
            raise SetupError(f"--resource {name}={amount} is refused: choose another name and an amount >= 0")
        resources[name] = amount
    return resources
