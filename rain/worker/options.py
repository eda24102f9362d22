"""What a worker is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from rain.common.structs import dataclass
from rain.net.secret import Secret

_NO_SECRET = Secret(None, "no secret was given")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Options of `run_worker`; those of `rain worker` on the command line.

    Attributes:
        server: address of the server, `IP:PORT` or `HOST:PORT`.
        secret: of the cluster; without a token for an insecure server.
        listen: address of the data port; None: where the connection to the server comes from, free port.
            Port 0 is any free one.
        cpus: number; None: detected; negative: detected minus.
        gpus: number or indices; None: detected.
        memory: bytes offered; None: detected.
        resources: amounts of custom resources.
        config: file with the executor types, None without.
        workdir, logdir: directories; None: `/tmp/rain-work/worker-HOST-PID` and `/tmp/rain-logs/worker-HOST-PID`.
        ready_file: file which gets the line `ready` when the worker is registered, None without.
        executor_timeout: seconds in which an executor must register.
        spare_executors: Python executors started ahead of need.
        connect_timeout: seconds for the connection to the server at the start, and for the answer to the registration.
        reconnect_timeout: seconds for which a lost server is looked for; 0: not at all.
        memory_budget: bytes of shared memory for values; None: half of what is free.
        delete_timeout: seconds for which values not needed are kept.
        owner_fd: read end of a pipe; the worker ends when its other end is closed. None: no owner.
    """

    server: str
    secret: Secret = _NO_SECRET
    listen: str | None = None
    cpus: int | None = None
    gpus: int | tuple[int, ...] | None = None
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    config: str | None = None
    workdir: str | None = None
    logdir: str | None = None
    ready_file: str | None = None
    executor_timeout: float = 30.0
    spare_executors: int = 1
    connect_timeout: float = 10.0
    reconnect_timeout: float = 30.0
    memory_budget: int | None = None
    delete_timeout: float = 1.0
    owner_fd: int | None = None
