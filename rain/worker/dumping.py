"""Completes what the core tells of the worker for a dump: processes, sizes of their logs, the worker's own log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.process.inspection import process_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rain.process.inspection import LogTail
    from rain.worker.executor_process import ExecutorProcess
    from rain.worker.store import Store


def completed(
    info: dict[str, Any],
    *,
    processes: Mapping[int, ExecutorProcess],
    store: Store,
    log_tail: LogTail,
    secret: str | None,
) -> dict[str, Any]:
    """The info of the core with what only the shell knows.

    Of the logs of executors only the sizes are told: what tasks wrote may hold their data.
    """
    executors = [_completed_executor(entry, processes.get(entry["id"])) for entry in info["state"]["executors"]]
    known = {entry["id"] for entry in executors}
    state = {
        **info["state"],
        "executors": executors,
        "ending_executors": [
            {"id": number, "pid": process.pid} for number, process in processes.items() if number not in known
        ],
        "store": {"values": len(store), "shared_memory_bytes": store.memory_used},
        "process": process_facts(),
    }
    return {**info, "state": state, "log": log_tail.lines(secret)}


def _completed_executor(entry: dict[str, Any], process: ExecutorProcess | None) -> dict[str, Any]:
    if process is None:
        return {**entry, "pid": None, "log_bytes": {}}
    return {**entry, "pid": process.pid, "log_bytes": process.log_sizes()}
