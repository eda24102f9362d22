"""Limits on everything that comes from the network, and the error for what breaks them."""

from __future__ import annotations

from rain.common.errors import RainException

PROTOCOL = 1
"""Number of the internal protocol between client, server and worker; peers with another one are refused."""

MAX_HANDSHAKE = 4 << 10
"""Longest handshake message, bytes."""

HANDSHAKE_TIMEOUT = 10.0
"""Longest time a handshake may take, seconds."""

MAX_UNPROVEN = 256
"""Most connections of one listener that have not finished their handshake."""

MAX_FRAME = 64 << 20
"""Longest control message with its segment table, bytes."""

MAX_SEGMENTS = 512
"""Most segments of one control message (the Cap'n Proto libraries have the same limit)."""

MAX_DATA_READ = 32 << 20
"""Longest stretch one data request may ask for by an explicit length, bytes."""

MAX_DATA_REQUESTS = 256
"""Most requests that may wait for their answers on one data connection of the server's port."""

MAX_PLACE = 8 << 10
"""Longest packed place of a value, bytes."""

DATA_STALL_TIMEOUT = 60.0
"""Longest time one side of a data connection may take nothing of what is sent to it, seconds."""


class ProtocolError(RainException):
    """What came over a connection is not what the protocol allows, or a message cannot be put into it."""
