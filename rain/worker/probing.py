"""Whether other workers can be reached from here: connections to their data ports, with the whole handshake."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rain.common.errors import RainException
from rain.net.sockets import as_address, open_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rain.protocol.handshake import Secret

AT_ONCE = 16
"""Connections tried at the same time."""
SECONDS_EACH = 5.0
"""Seconds for one of them."""
SECONDS_IN_ALL = 20.0
"""Seconds after which no other is tried; what was not tried by then counts as not reached."""


class Probing:
    """Tries addresses in threads of its own, which end by themselves.

    Args:
        addresses: `IP:PORT` each.
        secret: of the cluster.
        done: called with the result in one of the threads: why each address cannot be reached, empty if it can.
    """

    def __init__(self, addresses: Sequence[str], secret: Secret, done: Callable[[list[str]], None]) -> None:
        self._addresses = addresses
        self._secret = secret
        self._done = done
        self._deadline = time.monotonic() + SECONDS_IN_ALL
        self._lock = threading.Lock()
        self._next = 0
        self._left = len(addresses)
        self._errors = [""] * len(addresses)

    def start(self) -> None:
        """Begin."""
        if not self._addresses:
            self._done([])
        for number in range(min(AT_ONCE, len(self._addresses))):
            threading.Thread(target=self._work, name=f"rain-probe-{number}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                position = self._next
                self._next += 1
            if position >= len(self._addresses):
                return
            error = self._try(self._addresses[position])
            with self._lock:
                self._errors[position] = error
                self._left -= 1
                is_last = not self._left
            if is_last:
                self._done(self._errors)

    def _try(self, text: str) -> str:
        """Why an address cannot be reached; empty if it can."""
        left = min(SECONDS_EACH, self._deadline - time.monotonic())
        if left <= 0:
            return f"{text} was not tried: there was no time left of {SECONDS_IN_ALL:g} s"
        try:
            connection, _ = open_connection(as_address(text), "data", self._secret, left)
        except (RainException, ValueError, OSError) as error:  # OSError: an address that is a name, not to be resolved
            return str(error) or repr(error)
        connection.close()
        return ""
