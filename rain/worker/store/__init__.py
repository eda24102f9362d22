"""The keeper of a worker's replicas: small values in memory, large ones as files in shared memory or on disk."""

from rain.worker.store.errors import StoreError
from rain.worker.store.store import INLINE_LIMIT, Store

__all__ = ["INLINE_LIMIT", "Store", "StoreError"]
