"""A reverse proxy that shows a server below a path, as gateways of clusters and notebooks do."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_LONGEST_HEAD = 65536


class Proxy:
    """Takes the prefix off and passes the rest on; what lacks the prefix gets 404."""

    def __init__(self, url: str, prefix: str) -> None:
        target = urlsplit(url)
        self._host, self._port = str(target.hostname), target.port
        self._prefix = prefix
        self._ended = asyncio.Event()
        self.strays: list[str] = []

    async def serve(self, started: threading.Event, said: list[int]) -> None:
        """Until `stop`."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=_LONGEST_HEAD)
        said.append(server.sockets[0].getsockname()[1])
        started.set()
        await self._ended.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def stop(self) -> None:
        self._ended.set()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        method, path, rest = head.split(" ", 2)
        if not path.startswith(self._prefix + "/"):
            self.strays.append(path)
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        # One request per connection: nothing of a second one has to be taken apart.
        if "upgrade: websocket" not in rest.lower():
            rest = re.sub(r"(?im)^connection: .*\r\n", "", rest).replace("\r\n", "\r\nConnection: close\r\n", 1)
        there, away = await asyncio.open_connection(self._host, self._port)
        away.write(f"{method} {path[len(self._prefix) :]} {rest}".encode("latin-1"))
        await asyncio.gather(self._pump(reader, away), self._pump(there, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
        except ConnectionError:
            return  # the other direction notices too
        finally:
            sink.close()


@contextmanager
def below(url: str, prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a server below a path; gives the address there, and a list of requests that missed the path."""
    started = threading.Event()
    said: list[int] = []
    made: list[tuple[asyncio.AbstractEventLoop, Proxy]] = []

    async def serve() -> None:
        proxy = Proxy(url, prefix)
        made.append((asyncio.get_running_loop(), proxy))
        await proxy.serve(started, said)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        if not started.wait(10):
            raise RuntimeError("the proxy did not start within 10 s")
        yield f"http://127.0.0.1:{said[0]}{prefix}/", made[0][1].strays
    finally:
        loop, proxy = made[0]
        loop.call_soon_threadsafe(proxy.stop)
        thread.join(10)
