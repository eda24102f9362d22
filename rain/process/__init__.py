"""Processes that end with their owner and leave nothing behind."""

from rain.process.guard import Guard
from rain.process.spawn import OWNER_FD, die_with_parent, watch_owner

__all__ = ["OWNER_FD", "Guard", "die_with_parent", "watch_owner"]
