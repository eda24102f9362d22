"""A long wire: moves Ethernet frames between two interfaces after a delay, where the kernel has no netem.

Frames are moved as the kernel hands them over, with what it says about unfinished checksums and segments.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque

_ALL_PROTOCOLS = 0x0003
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_LARGEST_FRAME = 70_000
_LOOK_INTERVAL = 0.2
_JOIN_TIMEOUT = 5.0
_BUFFER = 8 << 20


class DelayWire:
    """Joins two interfaces of the network namespace in which it is made.

    Args:
        one, other: names of the interfaces.
        delay: seconds each way.

    Raises:
        OSError: no right to do so.
    """

    def __init__(self, one: str, other: str, delay: float) -> None:
        self._delay = delay
        self._ended = False
        ends: list[socket.socket] = []
        try:
            for name in (one, other):
                ends.append(_open(name))
        except BaseException:
            for end in ends:
                end.close()
            raise
        self._targets = {ends[0]: ends[1], ends[1]: ends[0]}
        self._thread = threading.Thread(target=self._run, name=f"delay-{one}-{other}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut it."""
        self._ended = True
        self._thread.join(_JOIN_TIMEOUT)
        for end in self._targets:
            end.close()

    def _run(self) -> None:
        frames: deque[tuple[float, socket.socket, bytes]] = deque()
        with selectors.DefaultSelector() as selector:
            for end in self._targets:
                selector.register(end, selectors.EVENT_READ)
            while not self._ended:
                wait = max(0.0, frames[0][0] - time.monotonic()) if frames else _LOOK_INTERVAL
                for key, _ in selector.select(wait):
                    assert isinstance(key.fileobj, socket.socket)
                    frame = key.fileobj.recv(_LARGEST_FRAME)
                    frames.append((time.monotonic() + self._delay, self._targets[key.fileobj], frame))
                while frames and frames[0][0] <= time.monotonic():
                    _, target, frame = frames.popleft()
                    _send(target, frame)


def _open(name: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    try:
        end.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        end.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        end.bind((name, 0))
    except BaseException:
        end.close()
        raise
    return end


def _send(end: socket.socket, frame: bytes) -> None:
    try:
        end.send(frame)
    except OSError:
        return  # as on any wire: a frame that the interface does not take is lost
