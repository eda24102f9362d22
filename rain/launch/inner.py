"""A server with a worker in its process and event loop: what `Client()` embeds.

Between the two there is no socket, and messages are not encoded. User code runs in executors as everywhere.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import rain
from rain.common.errors import RainConnectionError, RainException
from rain.net.pair import PairedChannel, pair
from rain.protocol.handshake import PeerHello
from rain.protocol.limits import PROTOCOL
from rain.server.main import run_server
from rain.worker.main import run_inside

if TYPE_CHECKING:
    import asyncio

    from rain.net.address import Address
    from rain.net.channel import ChannelHandler
    from rain.net.secret import Secret
    from rain.process.inspection import LogTail
    from rain.server.main import Accept, ServerOptions
    from rain.worker.options import WorkerOptions
    from rain.worker.place import Place


def run_with_worker(server: ServerOptions, worker: WorkerOptions, place: Place) -> int:
    """Run both until the server ends. If the worker ends before, the server goes on; but if it cannot start, both end.

    Args:
        server: options of the server. Its ready file gets its line when the worker is registered.
        worker: options of the worker. Address and secret of its server are filled in.
        place: what was made for the worker.

    Returns:
        As `run_server`.
    """

    async def beside(
        accept: Accept, address: Address, secret: Secret, log_tail: LogTail, ended: asyncio.Future[int]
    ) -> None:
        async def connect(handler: ChannelHandler, _timeout: float) -> PairedChannel:
            if ended.done():
                raise RainConnectionError("the server, which is in the same process, ends")
            return _connect(accept, address, handler)

        options = replace(worker, server=str(address), secret=secret, ready_file=server.ready_file)
        code = await run_inside(options, place, log_tail, connect, ended)
        if code and not _was_registered(options):
            raise RainException("the server ends, as the worker in its process cannot start")

    return run_server(replace(server, ready_file=None), beside)


def _was_registered(options: WorkerOptions) -> bool:
    return options.ready_file is None or os.path.exists(options.ready_file)


def _connect(accept: Accept, address: Address, handler: ChannelHandler) -> PairedChannel:
    """A channel to the server that accepts."""
    here, there = pair(f"{address.host}:0", str(address))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    there.start(accept(there, PeerHello("worker", rain.__version__, python, PROTOCOL, there.local)))
    here.start(handler)
    return here
