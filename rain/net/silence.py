"""Addresses at which nobody answered: for a while they are not tried again, as each try takes its time."""

from __future__ import annotations

import errno
import time

AVOID = 30.0
"""Seconds for clients, which can have the values from the server as well."""


class SilentAddresses:
    """Remembers who did not answer.

    Args:
        seconds: for so long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def check(self, address: str) -> None:
        """Raises:
        SilentError: it did not answer a moment ago.
        """
        until = self._until.get(address)
        if until is None:
            return
        if until > time.monotonic():
            raise SilentError(f"{address} did not answer a moment ago")
        self._until.pop(address, None)

    def note(self, address: str, error: BaseException) -> None:
        """Opening a connection has failed; it counts if that took long because nothing was heard."""
        cause = error.__cause__
        if isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.errno == errno.EHOSTUNREACH):
            self._until[address] = time.monotonic() + self._seconds


class SilentError(ConnectionAbortedError):
    """It was not even tried."""
