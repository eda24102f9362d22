"""`rain stop --force`: kills a server that does not answer any more, and its workers, on this machine."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import psutil

from rain.cli.connection import access_of
from rain.common.errors import RainException, RainTimeoutError
from rain.net.access import AccessFile, is_own_hostname, remove_access_file

if TYPE_CHECKING:
    import argparse

_CLOCK_SLACK = 5.0
"""Seconds by which a process may seem younger than the access file it wrote."""


def kill_cluster(options: argparse.Namespace) -> list[int]:
    """Kill the server that the access file names, and the workers on this machine that are connected to it.

    Returns:
        The pids of what was killed.

    Raises:
        RainException: no access file is known, or it is that of a server on another machine.
        RainTimeoutError: something does not end.
    """
    path, access = access_of(options, os.environ)
    if not is_own_hostname(access.hostname):
        raise RainException(
            f"the server of {path} runs on {access.hostname}: call `rain stop --force` there, or kill process "
            f"{access.pid} there"
        )
    processes = [*_server(access), *_workers(access)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(processes, timeout=options.timeout)
    if alive:
        raise RainTimeoutError(f"these processes do not end: {', '.join(str(process.pid) for process in alive)}")
    remove_access_file(path, access.server_id)
    return [process.pid for process in processes]


def _server(access: AccessFile) -> list[psutil.Process]:
    """The server, unless it is gone and its number belongs to another process."""
    try:
        process = psutil.Process(access.pid)
        is_it = "server" in process.cmdline() and process.create_time() <= access.created + _CLOCK_SLACK
    except psutil.NoSuchProcess:
        return []
    return [process] if is_it else []


def _workers(access: AccessFile) -> list[psutil.Process]:
    """Processes that are connected to the server and are workers."""
    found = []
    ends = {entry.pid for entry in psutil.net_connections("tcp") if entry.raddr and entry.raddr.port == access.port}
    for pid in sorted(pid for pid in ends if pid is not None and pid != access.pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            if {"worker", "governor"} & set(process.cmdline()) and process.uids().real == os.getuid():
                found.append(process)
    return found
