"""A client with an embedded cluster that ends, or is ended, while it is in a call.

    python -m tests.chaos.exiting_client CALL END

CALL: `submit` (the server is paused, so that not all pieces leave, and goes on at the end), `hung submit` (all is sent,
but the server never answers), `wait`, `fetch`. END: `return`, `exception`, `exit` and `restart` happen here while
another thread is in the call, for all others the call waits for its fate.
Prints the process id of the server just before the call.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rain.client import Client, RainException, Session, blob, delayed, tasks

IN_CALL = 0.4
"""Seconds after which a thread or process surely is in the call it announced."""

REQUEST_LIMIT = 2.5
"""Seconds. Whether the server took a submit must be known, so Ctrl-C waits for the answer for so long."""

RESTARTED = "import time; print('restarted', flush=True); time.sleep(60)"


def work(seconds: float) -> bytes:
    time.sleep(seconds)
    return b"done"


def blocking_call(client: Client, session: Session, where: str) -> Callable[[], Any]:
    """A call that does not return by itself."""
    with session.bind_only():
        running = delayed(work)(600.0)
        program = tasks.Execute("sleep 600", stdout=True)
        program.keep_outputs()
        session.submit()
        while not client.get_server_info()["workers"][0]["tasks"]:
            time.sleep(0.02)
        if where == "wait":
            return session.wait_all
        if where == "fetch":
            return running.output.fetch
        size = 5_000_000 if where == "submit" else 1000
        for _ in range(3):
            tasks.concat([blob(os.urandom(size)), blob("x")])
    os.kill(server_of(client), signal.SIGSTOP)
    return session.submit


def server_of(client: Client) -> int:
    assert client.cluster is not None
    return client.cluster._group.processes[0].popen.pid


def call_in_thread(call: Callable[[], Any]) -> None:
    def run() -> None:
        try:
            call()
        except RainException:
            return  # the cluster has ended under it

    threading.Thread(target=run, daemon=True).start()
    time.sleep(IN_CALL)


def main(where: str, how: str) -> None:
    client = Client(timeout=REQUEST_LIMIT)
    session = client.new_session()
    call = blocking_call(client, session, where)
    server = server_of(client)
    print(server, flush=True)
    if how not in ("return", "exception", "exit", "restart"):
        call()
        raise AssertionError("the call returned")
    call_in_thread(call)
    if where == "submit":
        os.kill(server, signal.SIGCONT)
    if how == "exception":
        raise ValueError("an error of the script")
    if how == "exit":
        sys.exit(3)
    if how == "restart":
        os.execv(sys.executable, [sys.executable, "-c", RESTARTED])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
