"""The executor's end of the connection: frames in, batches of results out, and the watch over both."""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Any, cast

import msgpack

from rain.common.comm import MAX_FRAME, FrameReader, pack_frame
from rain.process.spawn import end_group

if TYPE_CHECKING:
    from rain.executor.output import Written

PROTOCOL = "rain-py-1"
"""What a Python executor registers as."""

FLUSH_INTERVAL = 1
"""Milliseconds between two looks at finished results while a batch runs."""

_IDLE_LOOKS = 50
_READ_SIZE = 1 << 18


def connect(path: str) -> socket.socket:
    """Connect to a unix socket; the path may be longer than a socket address."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)
    return connection


class Channel:
    """Blocking frames over a socket. `rows`, `cached` and `written` are what the next frame of results will carry. What
    a task wrote must be there before its row.

    The main thread appends to `rows` and calls `flush` at the end of a batch. A second thread sends what is ready
    while a longer call runs; it sleeps unless `begin_batch` woke it. The same thread ends the process when the
    worker is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = FrameReader()
        self._lock = threading.Lock()
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._sent = 0
        self._cached_sent = self._written_sent = 0
        self._running = False
        self._asleep = True
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.rows: list[tuple[Any, ...]] = []
        self.cached: list[tuple[int, int]] = []
        self.written: list[Written] = []
        os.register_at_fork(after_in_child=connection.close)

    def start_watch(self) -> None:
        """Start the second thread."""
        threading.Thread(target=self._watch, name="rain-executor-watch", daemon=True).start()

    def send(self, message: list[Any]) -> None:
        """Send one message."""
        with self._lock:
            self._socket.sendall(pack_frame(msgpack.packb(message)))

    def receive(self) -> list[list[Any]]:
        """Wait for messages; the empty list when the worker closed the connection."""
        while True:
            count = self._socket.recv_into(self._buffer)
            if not count:
                return []
            payloads = self._reader.feed(self._buffer[:count])
            if payloads:
                return [msgpack.unpackb(payload, strict_map_key=False) for payload in payloads]

    def begin_batch(self, calls: int) -> None:
        """A batch begins. The result of a single call is sent by `flush` alone."""
        if calls > 1:
            self._running = True
            if self._asleep:
                os.eventfd_write(self._wake, 1)

    def flush(self) -> None:
        """End of a batch: send what is not sent yet."""
        self._running = False
        with self._lock:
            self._send_rows()
            self.rows.clear()
            self.cached.clear()
            self.written.clear()
            self._sent = self._cached_sent = self._written_sent = 0

    def _send_rows(self) -> None:
        """Send the rows that are complete now. The lock is held; the main thread may append meanwhile."""
        count = len(self.rows)
        cached = self.cached[self._cached_sent :]
        self._cached_sent += len(cached)
        written = self.written[self._written_sent :]
        self._written_sent += len(written)
        if count > self._sent or cached or written:
            pending = self.rows[self._sent : count]
            self._sent = count
            self._send_split(pending, cached, written)

    def _send_split(self, rows: list[tuple[Any, ...]], cached: list[tuple[int, int]], written: list[Written]) -> None:
        message = ("results", rows, cached, written) if written else ("results", rows, cached)
        payload = cast("bytes", msgpack.packb(message))
        if len(payload) > MAX_FRAME and len(rows) > 1:
            middle = len(rows) // 2
            self._send_split(rows[:middle], cached, written)
            self._send_split(rows[middle:], [], [])
        else:
            self._socket.sendall(pack_frame(payload))

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP | select.POLLHUP)
        poll.register(self._wake, select.POLLIN)
        idle = 0
        while True:
            events = poll.poll(None if self._asleep else FLUSH_INTERVAL)
            running = self._running
            if any(descriptor != self._wake for descriptor, _ in events):
                end_group()
            if events:
                os.eventfd_read(self._wake)
                self._asleep = False
                idle = 0
            elif running:
                idle = 0
                if len(self.rows) > self._sent:
                    with self._lock:
                        if self._running:  # the batch may have ended meanwhile
                            self._send_rows()
            else:
                idle += 1
                # Set before the look at `_running`, which the main thread sets before its look at `_asleep`.
                self._asleep = idle > _IDLE_LOOKS
                if self._running:
                    self._asleep = False
