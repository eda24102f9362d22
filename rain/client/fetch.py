"""Fetching values: small ones come with the answer of the server, larger ones from a worker that has them."""

from __future__ import annotations

import os
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from rain.client.specs import object_info
from rain.common.data_instance import DataInstance
from rain.common.errors import RainConnectionError, RainException
from rain.common.states import DataObjectState
from rain.net.dataclient import DataUnavailable
from rain.protocol.messages import FetchObjects, ObjectsFetched

if TYPE_CHECKING:
    from rain.client.data import DataObject
    from rain.client.session import Session
    from rain.net.dataclient import DataClient

MAX_ROUNDS = 5
"""How often the server is asked for other holders of values that could not be read."""


def fetch_values(
    session: Session, objects: list[DataObject], timeout: float | None, to: str | Path | None
) -> list[DataInstance]:
    """Values of kept, submitted objects, once they are finished.

    Args:
        session: theirs.
        objects: any number.
        timeout: seconds to wait for them to be finished.
        to: where the value of a single object is written.

    Raises:
        RainException: an object is not kept or not submitted.
        RainConnectionError: no holder of a value can be reached.
        RainTimeoutError: `timeout` seconds are over.
        TaskException: the session has failed.
    """
    for dataobj in objects:
        session._check_own(dataobj)
        if not dataobj._keep:
            raise RainException(f"{dataobj!r} is not kept and cannot be fetched; call keep() before submit")
        if not dataobj._is_submitted:
            raise RainException(f"{dataobj!r} is not submitted; call session.submit() first")
    return _Fetch(session, objects, timeout, to).run()


class _Fetch:
    """One fetch of any number of objects."""

    def __init__(
        self, session: Session, objects: list[DataObject], timeout: float | None, to: str | Path | None
    ) -> None:
        self._session = session
        self._objects = objects
        self._to = to
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._unreachable: dict[str, str] = {}
        self._found: dict[DataObject, DataInstance] = {}

    def run(self) -> list[DataInstance]:
        missing = list(dict.fromkeys(self._objects))
        for _ in range(MAX_ROUNDS):
            self._take(missing, self._ask(missing))
            missing = [dataobj for dataobj in missing if dataobj not in self._found]
            if not missing:
                return [self._found[dataobj] for dataobj in self._objects]
        reasons = "; ".join(f"{holder}: {reason}" for holder, reason in self._unreachable.items())
        raise RainConnectionError(f"The value of {missing[0]!r} could not be read from any holder ({reasons})")

    def _ask(self, missing: list[DataObject]) -> ObjectsFetched:
        session = self._session
        numbers = array("I", [dataobj._number for dataobj in missing])
        unreachable = list(self._unreachable)
        timeout = self._timeout
        if self._deadline is not None and timeout:
            timeout = max(self._deadline - time.monotonic(), 0.0)
        what = f"fetching {missing[0]!r}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        reply = session._wait_for(
            lambda seq: FetchObjects(seq, session.session_id, numbers, unreachable), what, timeout
        )
        assert isinstance(reply, ObjectsFetched)
        return reply

    def _take(self, missing: list[DataObject], reply: ObjectsFetched) -> None:
        for position, dataobj in enumerate(missing):
            value = reply.values[position] if reply.values else None
            source: bytes | memoryview | Path | None = value
            if value is None:
                source = self._read(dataobj, reply.holders[position])
            if source is None:
                continue
            packed = reply.infos[position] if reply.infos else None
            dataobj._info = object_info(packed, reply.sizes[position])
            self._session._note(dataobj)
            dataobj._own_state = DataObjectState.finished
            self._found[dataobj] = self._instance(dataobj, source)

    def _read(self, dataobj: DataObject, holders: list[str]) -> memoryview | Path | None:
        """The value, or the file it was written to, from the first holder that has it; None if there is none."""
        client = self._session.client
        assert client is not None
        session, number = dataobj.id
        for holder in holders:
            try:
                if self._to is not None and dataobj.is_blob():
                    return _read_file(client._data, holder, session, number, Path(self._to))
                value, _ = client._data.fetch_bytes(holder, session, number)
                return memoryview(value).toreadonly()
            except DataUnavailable as error:
                self._unreachable[holder] = str(error)
        return None

    def _instance(self, dataobj: DataObject, source: bytes | memoryview | Path) -> DataInstance:
        data_type = dataobj._shape.data_type
        path: str | None = None
        if self._to is not None:
            path = os.fspath(self._to)
            if not isinstance(source, Path):
                DataInstance(data_type, data=source).write(path)
        return DataInstance(
            data_type,
            data=None if path is not None or isinstance(source, Path) else source,
            path=path,
            data_object=dataobj,
            info=dataobj._info,
            spec=dataobj.spec,
            object_id=dataobj.id,
        )


def _read_file(data: DataClient, holder: str, session: int, number: int, path: Path) -> Path:
    """Fetch into a new file beside `path`, then put it in its place: a failure leaves what was there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.touch()  # with the usual mode; fetch_file would make it private
        data.fetch_file(holder, session, number, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
