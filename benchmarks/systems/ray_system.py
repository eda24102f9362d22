"""Ray: `ray.init` on this machine with two cpus; graphs by passing object references."""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING, Any

import ray

from benchmarks.systems.shared import ByFunctions, private_folder, substitute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph

ROLES = {"raylet/raylet": "raylet", "gcs_server": "gcs", "ray::": "worker"}


class Ray(ByFunctions):
    """Every task is a remote function's call."""

    version: str = ray.__version__

    def __init__(self) -> None:
        # No reports to its makers; a secret that is not kept in the home directory.
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self.folder = private_folder("ray")
        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(num_cpus=2, _temp_dir=self.folder, **quiet)
        self.made: dict[Callable[..., Any], Any] = {}

    def remote(self, function: Callable[..., Any]) -> Any:
        """What makes a task from a plain function."""
        if function not in self.made:
            self.made[function] = ray.remote(function)
        return self.made[function].remote

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return ray.get(self.remote(function)(*arguments))

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One reference per task."""
        call = self.remote(function)
        results: list[Any] = ray.get([call(argument) for argument in arguments])
        return results

    def run(self, graph: Graph) -> list[Any]:
        """All tasks at once."""
        made: list[Any] = []
        for function, arguments in graph.nodes:
            made.append(self.remote(function)(*substitute(arguments, made)))
        results: list[Any] = ray.get([made[index] for index in graph.wanted])
        return results

    def role(self, command: str) -> str:
        """Raylet, global control store, workers; the rest are helpers."""
        return next((role for part, role in ROLES.items() if part in command), "helpers")

    def close(self) -> None:
        """End all of it."""
        ray.shutdown()
        shutil.rmtree(self.folder)
