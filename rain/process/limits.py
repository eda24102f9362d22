"""Limits of this process."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets this user have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
