"""Values from worker to worker: fetching them in threads, and giving them to others."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rain.common import fs
from rain.common.errors import RainException
from rain.net.dataclient import DataClient, DataUnavailable
from rain.net.places import pack_place
from rain.protocol.data import NOT_HERE, OK, PLACE, TAR, UNREADABLE
from rain.worker.core.events import ObjectArrived, ObjectUnreachable, StoreFailed
from rain.worker.store import INLINE_LIMIT, Staged, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from rain.net.secret import Secret
    from rain.protocol.data import Piece
    from rain.worker.core.actions import FetchObject
    from rain.worker.core.events import ObjectKey, WorkerEvent
    from rain.worker.store import Store

THREADS = 4
"""Transfers at the same time."""

PAUSES = (0.05, 0.3)
"""Seconds between the attempts; there is one more attempt than pauses."""

OWN_CONNECTION = 16 << 20
"""Values of at least this size (bytes) get a connection of their own, which a stop cuts."""

TAR_SECONDS = 10.0
"""How long a directory stays packed after the last read of it."""

_SLOW = 1.0
_AVOID = 10.0


class _NoRoom(Exception):
    """The store cannot take the value."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(str(error))


class _Transfer:
    """One transfer under way."""

    def __init__(self, action: FetchObject) -> None:
        self.action = action
        self.stopped = threading.Event()
        self.own_client: DataClient | None = None


class Transfers:
    """Fetches values from other workers and the server into the store.

    Args:
        loop: the event loop of the worker.
        store: takes the values.
        secret: of the cluster.
        report: gets the events, in the loop's thread.
        relay: address of the server, which hands out values of workers that cannot be reached from here.
        pauses: seconds between attempts.

    Attributes:
        received: bytes of all values fetched.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        store: Store,
        secret: Secret,
        report: Callable[[WorkerEvent], None],
        relay: str | None = None,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._loop = loop
        self._store = store
        self._secret = secret
        self._report = report
        self._relay = relay
        self._pauses = pauses
        self.received = 0
        self._client = DataClient(secret)
        self._threads = ThreadPoolExecutor(THREADS, "rain-transfer")
        self._transfers: dict[ObjectKey, _Transfer] = {}
        self._avoided: dict[str, float] = {}  # holders that did not answer in time, and until when they are avoided

    def fetch(self, action: FetchObject) -> None:
        """Start a transfer; its end is reported."""
        transfer = self._transfers[action.object] = _Transfer(action)
        self._threads.submit(self._run, transfer)

    def stop(self, key: ObjectKey) -> None:
        """Stop it; nothing is reported."""
        transfer = self._transfers.pop(key, None)
        if transfer is not None:
            transfer.stopped.set()
            if transfer.own_client is not None:
                transfer.own_client.close()

    def close(self) -> None:
        """Stop all."""
        for key in list(self._transfers):
            self.stop(key)
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- in a thread ----------------------------------------------------------------------------

    def _run(self, transfer: _Transfer) -> None:
        end: WorkerEvent | Staged | None
        try:
            end = self._try_holders(transfer)
        except _NoRoom as error:
            end = StoreFailed(transfer.action.object, str(error))
        except Exception as error:  # an error of Rain: the object counts as unreachable, the reason says it
            end = ObjectUnreachable(transfer.action.object, transfer.action.holders, f"internal error: {error!r}")
        try:
            self._loop.call_soon_threadsafe(self._ended, transfer, end)
        except RuntimeError:  # the loop is closed
            self._abandon(end)

    def _try_holders(self, transfer: _Transfer) -> WorkerEvent | Staged | None:
        action = transfer.action
        holders = list(action.holders)
        unreachable = False
        reasons: dict[str, str] = {}
        for pause in (0.0, *self._pauses):
            if transfer.stopped.wait(pause):
                return None
            for holder in tuple(holders):
                try:
                    return self._fetch_from(holder, transfer)
                except DataUnavailable as error:
                    reasons[holder] = str(error)
                    unreachable = unreachable or error.reason == "connection"
                    if error.reason == "missing":
                        holders.remove(holder)
                if transfer.stopped.is_set():
                    return None
            if not holders:
                break
        if unreachable and self._relay is not None and self._relay not in action.holders:
            try:
                return self._fetch_from(self._relay, transfer)
            except DataUnavailable as error:
                reasons[self._relay] = str(error)
        if transfer.stopped.is_set():
            return None
        return ObjectUnreachable(action.object, action.holders, "; ".join(reasons.values()) or "nobody has it")

    def _fetch_from(self, holder: str, transfer: _Transfer) -> Staged:
        start = time.monotonic()
        if self._avoided.get(holder, 0.0) > start:
            raise DataUnavailable(f"{holder} did not answer a moment ago", holder, "connection")
        large = transfer.action.size >= OWN_CONNECTION
        client = self._client
        if large:
            client = transfer.own_client = DataClient(self._secret)
        try:
            return self._receive(client, holder, transfer)
        except DataUnavailable as error:
            is_slow = error.reason == "connection" and time.monotonic() - start > _SLOW
            if is_slow and not transfer.stopped.is_set() and holder != self._relay:
                self._avoided[holder] = time.monotonic() + _AVOID
            raise
        finally:
            if large:
                transfer.own_client = None
                client.close()

    def _receive(self, client: DataClient, holder: str, transfer: _Transfer) -> Staged:
        session, number = transfer.action.object
        target = _Target(self._store, transfer, holder)
        try:
            size, _ = client.fetch(holder, session, number, into=target.open)
        except BaseException:
            target.discard()
            raise
        return target.take(size)

    def _abandon(self, end: WorkerEvent | Staged | None) -> None:
        if isinstance(end, Staged):
            self._store.discard_staged(end)

    # --- in the loop ----------------------------------------------------------------------------

    def _ended(self, transfer: _Transfer, end: WorkerEvent | Staged | None) -> None:
        key = transfer.action.object
        if end is None or self._transfers.get(key) is not transfer:
            self._abandon(end)
            return
        del self._transfers[key]
        if not isinstance(end, Staged):
            self._report(end)
            return
        try:
            self._store.put_staged(key, end)
        except StoreError as error:
            self._report(StoreFailed(key, str(error)))
            return
        self.received += end.size
        self._report(ObjectArrived(key, end.size))


class _Target:
    """Where one attempt writes to."""

    def __init__(self, store: Store, transfer: _Transfer, holder: str) -> None:
        self._store = store
        self._transfer = transfer
        self._holder = holder
        self._small = bytearray()
        self._path: str | None = None
        self._view: memoryview | None = None

    def open(self, size: int, flags: int) -> bytearray | memoryview:
        """Memory for a value of this size."""
        action = self._transfer.action
        if self._transfer.stopped.is_set():
            raise DataUnavailable("the transfer was stopped", self._holder, "connection")
        if action.size and size != action.size and not action.directory:
            text = f"{self._holder} has {size:,} bytes of an object of {action.size:,}"
            raise DataUnavailable(text, self._holder, "unreadable")
        if size < INLINE_LIMIT:
            self._small = bytearray(size)
            return self._small
        try:
            descriptor, self._path = self._store.create_file(size)
            try:
                self._view = memoryview(self._store.map_file(descriptor, self._path, size))[:size]
            finally:
                os.close(descriptor)
        except StoreError as error:
            raise _NoRoom(error) from error
        except OSError as error:
            raise _NoRoom(StoreError.of_os("cannot map a value", error, path=str(self._path), size=size)) from error
        return self._view

    def take(self, size: int) -> Staged:
        """The complete value; a large directory is unpacked.

        Raises:
            DataUnavailable: it is not the directory it should be.
            _NoRoom: there is no room for its files.
        """
        directory = self._transfer.action.directory
        if self._view is None:
            data = bytes(self._small)
            return Staged(self._files_size(data) if directory else size, data=data, directory=directory)
        self._view.release()
        if directory:
            return self._unpacked()
        return Staged(size, path=self._path)

    def _files_size(self, packed: bytes) -> int:
        try:
            return fs.packed_size(packed)
        except RainException as error:
            raise DataUnavailable(str(error), self._holder, "unreadable") from error

    def _unpacked(self) -> Staged:
        assert self._path is not None
        try:
            return self._store.stage_tar(self._path)
        except StoreError as error:
            if error.errno is not None:
                raise _NoRoom(error) from error
            raise DataUnavailable(str(error), self._holder, "unreadable") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what has been written."""
        if self._path is not None:
            self._store.discard_file(self._path)


class StoreSource:
    """What the data port gives to others: the store. A value that cannot be read is reported as lost.

    Args:
        store: the values.
        loop: the event loop of the worker.
        report: gets `StoreFailed`, in the loop's thread.

    Attributes:
        sent: bytes of all pieces given.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, report: Callable[[WorkerEvent], None]) -> None:
        self._store = store
        self._loop = loop
        self._report = report
        self._tars: dict[ObjectKey, asyncio.TimerHandle] = {}
        self.sent = 0
        self._counting = threading.Lock()

    def _keep_tar(self, key: ObjectKey) -> None:
        """Somebody reads a tree: its tar is kept for a while."""
        timer = self._tars.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._tars[key] = self._loop.call_later(TAR_SECONDS, self._drop_tar, key)

    def _drop_tar(self, key: ObjectKey) -> None:
        del self._tars[key]
        self._loop.run_in_executor(None, self._store.drop_tar, key)

    def place(self, session: int, object_id: int) -> Piece:
        """Where a value lies, for readers on this machine; called from threads."""
        key = (session, object_id)
        try:
            size, place = self._store.size(key), self._store.place(key)
        except KeyError:
            return NOT_HERE, 0, 0, b""
        return OK, PLACE, size, b"" if place is None else pack_place(*place)

    def read(self, session: int, object_id: int, offset: int, length: int) -> Piece:
        """A piece of a value; called from threads."""
        key = (session, object_id)
        try:
            if self._store.is_tree(key):
                self._loop.call_soon_threadsafe(self._keep_tar, key)
                size, flags = self._store.read_size(key), TAR
            else:
                size, flags = self._store.size(key), 0
            data = self._store.read(key, offset, length or max(size - offset, 0))
            with self._counting:
                self.sent += len(data)
            return OK, flags, size, data
        except KeyError:
            return NOT_HERE, 0, 0, b""
        except StoreError as error:
            self._loop.call_soon_threadsafe(self._report, StoreFailed(key, str(error)))
            return UNREADABLE, 0, 0, b""
