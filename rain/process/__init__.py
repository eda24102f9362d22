"""Processes that end with their owner and leave nothing behind."""

from rain.process.spawn import OWNER_FD, die_with_parent, watch_owner

__all__ = ["OWNER_FD", "die_with_parent", "watch_owner"]
