"""Many values at once: whatever pieces the server answers in."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING, Any

import pytest

from rain.client import Session, aio, delayed, gather
from rain.client.blocks import parts
from rain.client.specs import PICKLE5_INFO
from rain.common.errors import RainTimeoutError, TaskException
from rain.common.failure import Failure
from rain.common.pickle5 import encode_pickle5
from rain.protocol.messages import FetchObjects, ObjectsFetched, StopWaiting, ValuesFetched
from rain.testing.fake_channel import FakeChannel
from tests.client.conftest import ScriptedServer, connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.protocol.messages import Message

TEXT_INFO = b"\x81\xaccontent_type\xa4text"


class Pieces(ScriptedServer):
    """Gives numbers in pieces of many forms: the value of object n is n."""

    def __init__(self) -> None:
        super().__init__()
        self.form = 0

    def _answer(self, message: Message) -> list[Message]:
        if not isinstance(message, FetchObjects):
            return super()._answer(message)
        assert message.joined
        self.form += 1
        ids = message.ids[: 1 + self.form % 5]
        encoded = [encode_pickle5(number) for number in ids]
        if self.form % 4 == 0:
            return [ValuesFetched(message.seq, array("I"), array("q", ids).tobytes(), [PICKLE5_INFO], b"", "q")]
        if self.form % 4 == 1:
            sizes = array("I", map(len, encoded))
            return [ValuesFetched(message.seq, sizes, b"".join(encoded), [PICKLE5_INFO], b"", "")]
        if self.form % 4 == 2:
            values = [encode_pickle5(number) if number % 2 else b"%d" % number for number in ids]
            kinds = bytes(number % 2 for number in ids)
            sizes = array("I", map(len, values))
            return [ValuesFetched(message.seq, sizes, b"".join(values), [TEXT_INFO, PICKLE5_INFO], kinds, "")]
        sizes = array("Q", map(len, encoded))
        return [ObjectsFetched(message.seq, sizes, [], [PICKLE5_INFO] * len(ids), list(encoded), [])]


@pytest.fixture
def server() -> Pieces:
    return Pieces()


@pytest.fixture
def session(server: Pieces, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr("rain.client.bulk.BATCH", 7)
    with connected(FakeChannel(server)) as client, client.new_session() as session:
        yield session


@delayed
def double(value: int) -> int:
    return 2 * value


def as_numbers(values: list[Any]) -> list[int]:
    return list(map(int, values))


def outputs_of(calls: list[Any]) -> list[int]:
    """Their numbers, without making handles."""
    return [call._output_numbers().start for call in calls]


@pytest.mark.parametrize("count", [1, 6, 7, 8, 50])
def test_calls(session: Session, server: Pieces, count: int) -> None:
    calls = [double(n) for n in range(count)]
    assert as_numbers(gather(calls)) == outputs_of(calls)
    assert as_numbers(gather(calls[::-2])) == outputs_of(calls[::-2])


def test_calls_in_a_nest(session: Session) -> None:
    calls = [double(n) for n in range(20)]
    nest = {"all": (calls, 5), "last": calls[-1], "none": []}
    numbers = outputs_of(calls)
    found = gather(nest)
    assert (as_numbers(found["all"][0]), found["all"][1], int(found["last"])) == (numbers, 5, numbers[-1])
    assert found["none"] == []


@pytest.mark.parametrize("is_submitted", [False, True])
def test_arrays(session: Session, is_submitted: bool) -> None:
    made = session.map(double, range(50))
    if is_submitted:
        session.submit()
    assert as_numbers(made.result()) == list(range(made._first, made._first + 50))
    assert as_numbers(list(made.iter_results())) == list(range(made._first, made._first + 50))


def test_the_next_request_does_not_wait_for_the_answer(session: Session, server: Pieces) -> None:
    calls = [double(n) for n in range(30)]
    session.submit()
    server.silent.add(FetchObjects)
    with pytest.raises(RainTimeoutError, match=r"fetching 7 results of <DelayedTask .* and 29 more"):
        gather(calls, timeout=0.1)
    assert len(server.all(FetchObjects)) == 3
    until_forgotten = {message.waiting for message in server.all(StopWaiting)}
    assert until_forgotten == {message.seq for message in server.all(FetchObjects)}


def test_columns_are_asked_for_in_larger_batches(
    session: Session, server: Pieces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(message: Message) -> list[Message]:
        if not isinstance(message, FetchObjects):
            return ScriptedServer._answer(server, message)
        data = array("q", message.ids).tobytes()
        return [ValuesFetched(message.seq, array("I"), data, [PICKLE5_INFO], b"", "q")]

    monkeypatch.setattr(server, "_answer", answer)
    monkeypatch.setattr("rain.client.bulk.COLUMN_BATCH", 20)
    made = session.map(double, range(50))
    assert made.result() == list(range(made._first, made._first + 50))
    asked = [message.ids for message in server.all(FetchObjects)]
    assert list(map(len, asked)) == [7, 20, 20, 3]
    assert all(type(ids) is range for ids in asked)


def test_a_failure_ends_it(session: Session, server: Pieces) -> None:
    calls = [double(n) for n in range(30)]
    session.submit()
    server.failures[session.session_id] = Failure("task", "boom", session=session.session_id, task=calls[3]._number)
    with pytest.raises(TaskException, match="boom"):
        gather(calls)
    assert gather(calls, return_exceptions=True)[0].args


def test_in_a_loop(session: Session, server: Pieces) -> None:
    calls = [double(n) for n in range(30)]

    async def results(timeout: float | None) -> list[Any]:
        return list(await aio.gather(calls, timeout=timeout))

    assert as_numbers(asyncio.run(results(None))) == outputs_of(calls)
    assert len(asyncio.run(results(0))) == 30
    server.silent.add(FetchObjects)
    for timeout in (0, 0.1):
        with pytest.raises(RainTimeoutError, match="fetching 7 results"):
            asyncio.run(results(timeout))
    assert {m.waiting for m in server.all(StopWaiting)} >= {m.seq for m in server.all(FetchObjects)[-3:]}


def test_nothing() -> None:
    assert gather([]) == []


def test_parts_of_packed_arguments() -> None:
    packed = [b"x" * size for size in (1, 1, 50, 1, 1, 1, 1)]
    found = list(parts(packed, 3, 10))
    assert [piece for _, some in found for piece in some] == packed
    assert [start for start, _ in found] == [sum(len(some) for _, some in found[:k]) for k in range(len(found))]
    assert all(len(some) == 1 or sum(map(len, some)) <= 10 for _, some in found)
    assert max(len(some) for _, some in found) == 3
    assert list(parts([], 3, 10)) == []
