"""The keeper of a worker's replicas: small values in memory, large ones as files and trees."""

from rain.worker.store.directories import Staged, Store
from rain.worker.store.errors import StoreError
from rain.worker.store.store import INLINE_LIMIT

__all__ = ["INLINE_LIMIT", "Staged", "Store", "StoreError"]
