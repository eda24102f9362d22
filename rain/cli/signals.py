"""Signals of the long-lived processes."""

from __future__ import annotations

import signal


def end_at_once_by_signals() -> None:
    """Give SIGTERM and SIGINT their default disposition: the process ends at once, by the signal.

    Nothing needs cleaning: what Rain keeps on disk is valid at any moment, and ports are free for a successor at once.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
