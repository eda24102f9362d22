"""What a real server leaves behind is checked; what this process keeps is not of it."""

from __future__ import annotations

from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open
