"""Fetching values: small ones come with the answer of the server, larger ones from a worker that has them."""

from __future__ import annotations

import os
from array import array
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.client.asking import wait_for
from rain.client.deadlines import deadline_of, remaining
from rain.client.specs import PICKLE5_INFO, size_of
from rain.common.content_type import decode_value, has_codec
from rain.common.data_instance import DataInstance, check_free
from rain.common.errors import RainConnectionError, RainException
from rain.common.states import DataObjectState
from rain.net.dataclient import DataUnavailable
from rain.protocol.messages import FetchObjects, ObjectsFetched

if TYPE_CHECKING:
    from rain.client.base import BaseSession
    from rain.client.connection import Question
    from rain.client.data import DataObject
    from rain.client.front import Front

MAX_ROUNDS = 5
"""How often the server is asked for other holders of values that could not be read."""


async def fetch_values(
    front: Front,
    session: BaseSession,
    objects: list[DataObject],
    timeout: float | None,
    to: str | Path | None = None,
    *,
    submit: bool = False,
) -> list[DataInstance]:
    """Values of kept, submitted objects, once they are finished.

    Args:
        front: by which the server is asked.
        session: theirs.
        objects: any number.
        timeout: seconds to wait for them to be finished.
        to: where the value of a single object is written.
        submit: submit the session first if an object is not submitted.

    Raises:
        RainException: an object is not kept or not submitted.
        FileExistsError: a directory is to be written where there is something else than an empty directory.
        RainConnectionError: no holder of a value can be reached.
        RainTimeoutError: `timeout` seconds are over.
        TaskException: the session has failed.
    """
    return await _Fetch(front, session, objects, timeout, to, submit=submit).run()


async def fetch_results(
    front: Front, session: BaseSession, objects: list[DataObject], timeout: float | None, *, submit: bool = False
) -> list[Any]:
    """The same values as `result()` gives them: decoded by content type; bytes where there is no decoder, a directory
    as it is."""
    return await _ResultFetch(front, session, objects, timeout, None, submit=submit).run()


class _Fetch:
    """One fetch of any number of objects."""

    def __init__(
        self,
        front: Front,
        session: BaseSession,
        objects: list[DataObject],
        timeout: float | None,
        to: str | Path | None,
        *,
        submit: bool,
    ) -> None:
        self._submit = False
        for dataobj in objects:
            session._check_own(dataobj)
            if not dataobj._keep:
                raise RainException(f"{dataobj!r} is not kept and cannot be fetched; call keep() before submit")
            if not dataobj._is_submitted:
                if not submit:
                    raise RainException(f"{dataobj!r} is not submitted; call session.submit() first")
                self._submit = True
            if to is not None and dataobj.is_directory():
                check_free(to)
        self._front = front
        self._session = session
        self._objects = objects
        self._to = None if to is None else Path(os.path.abspath(to))
        self._timeout = timeout
        self._deadline = deadline_of(timeout)
        self._rounds = 0
        self._missing = list(dict.fromkeys(objects))
        self._unreachable: dict[str, str] = {}
        self._found: dict[DataObject, Any] = {}

    async def run(self) -> list[Any]:
        """Ask until all values are there."""
        while self._missing:
            make, what = self._question()
            timeout = remaining(self._deadline) if self._timeout else self._timeout
            reply = await wait_for(self._front, self._session, make, what, timeout, submit=self._submit)
            assert isinstance(reply, ObjectsFetched)
            await self._take(reply)
        return [self._found[dataobj] for dataobj in self._objects]

    def _question(self) -> Question:
        """The request for what is missing."""
        missing, session = self._missing, self._session.session_id
        unreachable = list(self._unreachable)
        what = f"fetching {missing[0]!r}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")

        def make(seq: int) -> FetchObjects:
            numbers = array("I", [dataobj._number for dataobj in missing])  # those they have after the submit
            return FetchObjects(seq, session, numbers, unreachable)

        return make, what

    async def _take(self, reply: ObjectsFetched) -> None:
        """Take the values in an answer, and read those which workers have.

        Raises:
            RainConnectionError: a value could not be read after several answers.
        """
        self._submit = False
        self._rounds += 1
        await self._take_values(self._missing, reply)
        self._missing = [dataobj for dataobj in self._missing if dataobj not in self._found]
        if self._missing and self._rounds == MAX_ROUNDS:
            reasons = "; ".join(f"{holder}: {reason}" for holder, reason in self._unreachable.items())
            raise RainConnectionError(
                f"The value of {self._missing[0]!r} could not be read from any holder ({reasons})"
            )

    async def _take_values(self, missing: list[DataObject], reply: ObjectsFetched) -> None:
        for position, dataobj in enumerate(missing):
            value = reply.values[position] if reply.values else None
            source: bytes | memoryview | Path | None = value
            if value is None:
                source = await self._read(dataobj, reply.holders[position])
            if source is None:
                continue
            packed = reply.infos[position] if reply.infos else None
            size = reply.sizes[position]
            dataobj._told = (packed, size if dataobj._data is None else size_of(dataobj, size))
            dataobj._own_state = DataObjectState.finished  # as a later `wait_all` would find it
            self._found[dataobj] = self._value(dataobj, source, packed)

    async def _read(self, dataobj: DataObject, holders: list[str]) -> memoryview | Path | None:
        """The value, or the file it was written to, from the first holder that has it; None if there is none."""
        session, number = dataobj.id
        for holder in holders:
            try:
                if self._to is not None:
                    read = _read_file if dataobj.is_blob() else _read_tree
                    return await read(self._front, holder, session, number, self._to)
                return await self._front.read_bytes(holder, session, number)
            except DataUnavailable as error:
                self._unreachable[holder] = str(error)
        return None

    def _value(self, dataobj: DataObject, source: bytes | memoryview | Path, packed: bytes | None) -> Any:
        """What is given for a value; `packed`: its object info."""
        return self._instance(dataobj, source)

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


class _ResultFetch(_Fetch):
    """Gives decoded values."""

    def _value(self, dataobj: DataObject, source: bytes | memoryview | Path, packed: bytes | None) -> Any:
        if packed == PICKLE5_INFO:
            assert not isinstance(source, Path)
            return decode_value(source, "pickle5")
        assert not isinstance(source, Path)
        if dataobj.is_directory():
            return self._instance(dataobj, source)
        info, spec = dataobj._info, dataobj._own_spec
        assert info is not None
        content_type = info.content_type or (dataobj._shape if spec is None else spec).content_type or None
        return decode_value(source, content_type) if has_codec(content_type) else bytes(source)


_fetches = count()


def _beside(path: Path) -> Path:
    """Where what is not complete lies; no two fetches have the same place."""
    return path.with_name(f".{path.name}.{os.getpid()}-{next(_fetches)}.part")


async def _read_file(front: Front, holder: str, session: int, number: int, path: Path) -> Path:
    """Fetch into a new file beside `path`, then put it in its place: a failure leaves what was there."""
    unfinished = _beside(path)
    try:
        unfinished.touch()  # with the usual mode; fetch_file would make it private
        await front.read_file(holder, session, number, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


async def _read_tree(front: Front, holder: str, session: int, number: int, path: Path) -> Path:
    """Fetch the tar of a directory into a file beside `path`, then unpack it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    archive = _beside(path)
    try:
        await front.read_file(holder, session, number, archive)
        await front.unpack(archive, path)
    finally:
        archive.unlink(missing_ok=True)
    return path
