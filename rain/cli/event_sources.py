"""Where `rain events` gets events from: a file, or a server over HTTP."""

from __future__ import annotations

import http.client
import json
from codecs import getincrementaldecoder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from rain.common.errors import AuthenticationError, RainConnectionError, RainException, RainTimeoutError
from rain.common.lines import one_line
from rain.eventlog.criteria import criteria_of
from rain.eventlog.database import FILE_NAME
from rain.eventlog.reader import EventReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rain.net.address import Address
    from rain.net.secret import Secret

_PIECE = 64 << 10
_REASON = 64 << 10
_UNAUTHORIZED = (401, 403)
_BLANKS = " \t\r\n"

Entry = dict[str, Any]
"""`id`, `time` and `event`."""


class Source(Protocol):
    """Where events are."""

    def entries(self, after: int) -> Iterator[Entry]:
        """Those with larger ids, in order, as they come."""


class FileSource:
    """The file of an event log.

    path: of it, or of a log directory, also of `rain start`. session, types: wanted ones, if any.
    """

    def __init__(self, path: str, session: int | None, types: list[str]) -> None:
        started = Path(path, "server")  # where `rain start` has the log directory of the server
        self._reader = EventReader(started if Path(started, FILE_NAME).is_file() else path)
        self._criteria = criteria_of(session, types)

    def entries(self, after: int) -> Iterator[Entry]:
        """Those with larger ids, in order, as they are read.

        Raises:
            RainException: the file cannot be read.
        """
        for found in self._reader.events(self._criteria, after=after):
            yield {"id": found.id, "time": found.time_text, "event": found.event}


class ServerSource:
    """The HTTP port of a server.

    Args:
        server: address of the server, for error texts.
        url: of its HTTP port, None without one.
        secret: its secret.
        timeout: seconds it may be silent.
        session, types: wanted ones, if any.

    Raises:
        RainException: it has no HTTP port.
    """

    def __init__(
        self, server: Address, url: str | None, secret: Secret, timeout: float, session: int | None, types: list[str]
    ) -> None:
        address = urlsplit(url or "")
        if address.scheme != "http" or address.hostname is None:
            raise RainException(
                f"the server {server} has no HTTP port to ask for events ({url or 'see its --http-listen'}); on its "
                "machine `rain events LOGDIR` reads its event log, LOGDIR being its --logdir"
            )
        self._url = f"http://{address.netloc}{address.path.rstrip('/')}/events"
        self._netloc, self._path = address.netloc, f"{address.path.rstrip('/')}/events"
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json"}
        if secret.token is not None:
            self._headers["Authorization"] = f"Bearer {secret.token}"
        self._criteria: dict[str, Any] = {}
        if session is not None:
            self._criteria["session"] = {"value": session, "mode": "="}
        if types:
            self._criteria["event_types"] = [{"value": name, "mode": "="} for name in types]

    def entries(self, after: int) -> Iterator[Entry]:
        """Those with larger ids, in order, as they come.

        Raises:
            RainConnectionError: the port cannot be reached, or its answer ends too early or is none.
            RainTimeoutError: nothing comes.
            AuthenticationError: it wants another secret.
            RainException: it answers with an error.
        """
        body = json.dumps({**self._criteria, "id": {"value": after, "mode": ">"}})
        connection = http.client.HTTPConnection(self._netloc, timeout=self._timeout)
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise self._refused(response.status, response.read(_REASON))
            yield from read_list(iter(lambda: response.read1(_PIECE), b""))
        except TimeoutError as error:
            raise RainTimeoutError(
                f"{self._url} is silent for {self._timeout:g} s; give a larger --timeout, or look into the server's log"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RainConnectionError(
                f"cannot read events from {self._url}: {error or type(error).__name__}; on the machine of the server "
                "`rain events LOGDIR` reads its event log, LOGDIR being its --logdir"
            ) from error
        finally:
            connection.close()

    def _refused(self, status: int, body: bytes) -> RainException:
        text = body.decode("utf-8", "replace")
        try:
            found = json.loads(text)
            text = str(found["error"])
        except (ValueError, TypeError, KeyError):
            pass  # other servers and proxies answer with plain text
        kind = AuthenticationError if status in _UNAUTHORIZED else RainException
        return kind(f"{self._url} answers {status}: {one_line(text) or 'no reason is given'}")


def read_list(pieces: Iterable[bytes]) -> Iterator[Entry]:
    """The objects of a JSON list, each as soon as it is there.

    Raises:
        ValueError: it is something else, or ends too early.
    """
    text = _Text(pieces)
    text.take("[")
    end = text.take("]") if text.next() == "]" else ""
    while end != "]":
        entry = text.value()
        if not isinstance(entry, dict) or not {"id", "time", "event"} <= set(entry):
            raise ValueError(f"the list of events holds something else: {entry!r:.200}")
        yield entry
        end = text.take(",]")
    if text.next():
        raise ValueError("something follows behind the list of events")


class _Text:
    """JSON that comes in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._decoder = getincrementaldecoder("utf-8")()
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def next(self) -> str:
        """The next character that is no blank, not taken; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def take(self, expected: str) -> str:
        """The same, taken; it must be one of these."""
        found = self.next()
        if not found or found not in expected:
            raise ValueError(f"the list of events has {found or 'an end'!r} where {expected!r} should be")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value."""
        self.next()
        while True:
            try:
                value, self._at = self._scan(self._text, self._at)
            except json.JSONDecodeError:
                if not self._grow():
                    raise ValueError("the list of events ends too early, or is no JSON") from None
            else:
                return value

    def _grow(self) -> bool:
        """Read at least as much as is there already, so that a long value is not scanned again and again; False at the
        end."""
        parts, more = [self._text[self._at :]], 0
        for piece in self._pieces:
            parts.append(self._decoder.decode(piece))
            more += len(piece)
            if more >= len(parts[0]):
                break
        self._text, self._at = "".join(parts), 0
        return more > 0
