"""The synchronous front: threads, timeouts, Ctrl-C, loss."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref

import pytest

from rain.client.connection import Connection
from rain.common.errors import RainConnectionError, RainException, RainTimeoutError, RainWarning
from rain.protocol.messages import (
    Accepted,
    CloseSession,
    GetInfos,
    GetServerInfo,
    Heartbeat,
    Infos,
    ServerInfo,
    SessionWarning,
    StopWaiting,
    Wait,
    WaitDone,
)
from rain.testing.fake_channel import FakeChannel


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def channel():
    return FakeChannel()


@pytest.fixture
def connection(channel):
    made = Connection(channel, "host:7210", request_timeout=5.0)
    yield made
    made.close(RainException("closed"))


def wait(connection, timeout=None, session=1):
    return connection.wait(lambda seq: Wait(seq, session, 0, ids()), "waiting", session=session, timeout=timeout)


def ids():
    from array import array

    return array("I", [10])


def done(seq):
    return WaitDone(seq, ids())


class Background:
    """A call in a thread; `outcome()` is what it returned or raised."""

    def __init__(self, function):
        self._outcome = []
        self._function = function
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self._outcome.append(self._function())
        except BaseException as error:
            self._outcome.append(error)

    @property
    def is_running(self):
        return self._thread.is_alive()

    def outcome(self):
        self._thread.join(5)
        assert not self._thread.is_alive()
        return self._outcome[0]


def test_exchange(connection, channel):
    channel.say(Accepted(1))
    assert connection.ask(lambda seq: CloseSession(seq, 3), "closing") == Accepted(1)
    assert channel.expect(CloseSession) == CloseSession(1, 3)
    channel.check()


def test_many_threads_each_get_their_answer(connection, channel):
    calls = [Background(lambda session=session: wait(connection, session=session)) for session in range(1, 21)]
    waits = [channel.expect(Wait) for _ in calls]
    for message in reversed(waits):
        channel.say(done(message.seq))
    by_session = {message.session: message.seq for message in waits}
    assert [call.outcome().seq for call in calls] == [by_session[session] for session in range(1, 21)]
    channel.check()


def test_reading_is_handed_over(connection, channel):
    """The reader gets its answer first; the others must not be left without one."""
    calls = [Background(lambda: wait(connection)) for _ in range(3)]
    messages = [channel.expect(Wait) for _ in calls]
    for message in messages:
        channel.say(done(message.seq))
        deadline = time.monotonic() + 20
        while sum(call.is_running for call in calls) > len(messages) - message.seq:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert sorted(call.outcome().seq for call in calls) == [1, 2, 3]


def test_reader_that_times_out_hands_over(connection, channel):
    impatient = Background(lambda: wait(connection, timeout=0.1))
    channel.expect(Wait)
    patient = Background(lambda: wait(connection))
    message = channel.expect(Wait)
    assert isinstance(impatient.outcome(), RainTimeoutError)
    assert channel.expect(StopWaiting).waiting == 1
    channel.say(done(message.seq))
    assert patient.outcome() == done(message.seq)


def test_many_threads_many_calls():
    channel = FakeChannel(lambda message: [Accepted(message.seq)] if isinstance(message, CloseSession) else [])
    connection = Connection(channel, "host:7210", request_timeout=5.0)

    def many():
        return [connection.ask(lambda seq: CloseSession(seq, 1), "closing").seq for _ in range(200)]

    calls = [Background(many) for _ in range(6)]
    answers = [seq for call in calls for seq in call.outcome()]
    assert sorted(answers) == list(range(1, 1201))
    channel.check()
    connection.close(RainException("closed"))


def test_request_timeout_names_the_request(channel):
    connection = Connection(channel, "host:7210", request_timeout=0.02)
    with pytest.raises(RainTimeoutError, match=r"host:7210 did not answer within 0.02 s while closing session 3"):
        connection.ask(lambda seq: CloseSession(seq, 3), "closing session 3")
    channel.say(Accepted(1), Accepted(2))
    connection.ask(lambda seq: CloseSession(seq, 3), "again")
    connection.close(RainException("closed"))


def test_expired_wait_tells_the_server(connection, channel):
    with pytest.raises(RainTimeoutError, match=r"Timeout of 0.01 s expired while waiting; the work goes on"):
        wait(connection, timeout=0.01)
    message = channel.expect(Wait)
    assert channel.expect(StopWaiting) == StopWaiting(message.seq)
    channel.say(done(message.seq), Accepted(message.seq + 1))
    assert connection.ask(lambda seq: CloseSession(seq, 3), "closing") == Accepted(message.seq + 1)


def test_poll_waits_for_the_turn_of_the_server(connection, channel):
    call = Background(lambda: wait(connection, timeout=0))
    first, barrier = channel.expect(Wait), channel.expect(GetInfos)
    channel.say(done(first.seq), Infos(barrier.seq, b"", []))
    assert call.outcome() == done(first.seq)
    call = Background(lambda: wait(connection, timeout=0))
    channel.expect(Wait)
    channel.say(Infos(channel.expect(GetInfos).seq, b"", []))
    assert isinstance(call.outcome(), RainTimeoutError)
    channel.expect(StopWaiting)
    channel.check()


def test_interrupt_stops_the_waiting_only(connection, channel):
    def interrupt():
        message = channel.expect(Wait)
        os.kill(os.getpid(), signal.SIGINT)
        return message

    for _ in range(3):
        other = Background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            wait(connection)
        message = other.outcome()
        assert channel.expect(StopWaiting).waiting == message.seq
        channel.say(done(message.seq))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seq = message.seq + 1
    channel.say(Accepted(seq))
    assert connection.ask(lambda seq: CloseSession(seq, 1), "closing") == Accepted(seq)


def test_interrupted_reader_hands_over(connection, channel):
    def second():
        channel.expect(Wait)
        call = Background(lambda: wait(connection))
        message = channel.expect(Wait)
        os.kill(os.getpid(), signal.SIGINT)
        return call, message

    helper = Background(second)
    with pytest.raises(KeyboardInterrupt):
        wait(connection)
    call, message = helper.outcome()
    channel.expect(StopWaiting)
    channel.say(done(message.seq))
    assert call.outcome() == done(message.seq)


def test_interrupt_while_a_request_is_sent_comes_after_it(connection, channel):
    sent = []

    def send(*messages):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
        sent.extend(messages)

    channel.send = send
    with pytest.raises(KeyboardInterrupt):
        connection.ask(lambda seq: CloseSession(seq, 1), "closing")
    assert [type(message) for message in sent] == [CloseSession]


def test_interrupt_while_posting_stops_it(connection, channel):
    sent = []

    def send(*messages):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
        sent.extend(messages)

    channel.send = send
    with pytest.raises(KeyboardInterrupt):
        connection.post(Heartbeat())
    assert sent == []


@pytest.mark.parametrize("said_before", [True, False])
def test_lost_connection(connection, channel, said_before):
    calls = [Background(lambda: wait(connection)) for _ in range(3)]
    messages = [channel.expect(Wait) for _ in calls]
    if said_before:
        channel.say(done(messages[0].seq))
    channel.hang_up("the other side closed it")
    outcomes = [call.outcome() for call in calls]
    assert sum(isinstance(one, RainConnectionError) for one in outcomes) == (2 if said_before else 3)
    for call in (lambda: wait(connection), lambda: connection.post(Heartbeat())):
        with pytest.raises(RainConnectionError, match="the other side closed it"):
            call()
    assert connection.is_lost()
    assert channel.closed


def test_loss_names_the_address(channel):
    connection = Connection(channel, "host:7210")
    channel.wait_readable = lambda timeout: (_ for _ in ()).throw(OSError("cable cut"))
    with pytest.raises(RainConnectionError, match="host:7210 lost: cable cut"):
        wait(connection)


def test_silence_is_loss(channel):
    clock = Clock()
    connection = Connection(channel, "host:7210", clock=clock)
    waited = []

    def wait_readable(timeout):
        waited.append(timeout)
        clock.now += timeout
        return False

    channel.wait_readable = wait_readable
    with pytest.raises(RainConnectionError, match="host:7210 lost: no sign of life for 15 s"):
        wait(connection)
    assert waited[0] == 15.0


def test_silence_is_noticed_while_nobody_reads(channel):
    """Threads may be busy with sending, or with a worker: what they use is closed under them."""
    clock = Clock()
    connection = Connection(channel, "host:7210", clock=clock)
    closed = []
    connection.at_end(lambda: closed.append(True))
    clock.now += 14.0
    connection.notice_silence()
    channel.say(Heartbeat())
    clock.now += 14.0
    connection.notice_silence()
    assert not connection.is_lost()
    assert not closed
    with connection._sending:  # a sender is stuck
        connection.tick()
        clock.now += 15.0
        connection.tick()
    assert connection.is_lost()
    assert channel.closed
    assert closed == [True]


def test_silence_between_calls_is_noticed_by_the_next(channel):
    clock = Clock()
    connection = Connection(channel, "host:7210", clock=clock)
    clock.now += 60
    channel.say(Accepted(1))
    assert connection.ask(lambda seq: CloseSession(seq, 1), "closing") == Accepted(1)
    clock.now += 60
    with pytest.raises(RainConnectionError, match="no sign of life for 60 s"):
        wait(connection)


def test_tick_sends_a_heartbeat_and_reads(channel):
    clock = Clock()
    connection = Connection(channel, "host:7210", clock=clock)
    clock.now += 14
    channel.say(Heartbeat())
    connection.tick()
    assert channel.expect(Heartbeat) == Heartbeat()
    clock.now += 14
    connection.tick()
    assert not connection.is_lost()
    clock.now += 2
    connection.tick()
    assert connection.is_lost()
    connection.tick()


def test_background_thread_sends_heartbeats(channel):
    connection = Connection(channel, "host:7210", heartbeat_interval=0.01)
    for _ in range(3):
        channel.expect(Heartbeat)
    connection.close(RainException("closed"))


def test_heartbeats_while_waiting(channel):
    connection = Connection(channel, "host:7210", heartbeat_interval=0.05)
    call = Background(lambda: wait(connection))
    message = channel.expect(Wait)
    channel.expect(Heartbeat)
    channel.say(done(message.seq))
    assert call.outcome() == done(message.seq)
    connection.close(RainException("closed"))


def test_close_ends_pending_calls(connection, channel):
    call = Background(lambda: wait(connection))
    channel.expect(Wait)
    connection.close(RainException("The client is closed"))
    outcome = call.outcome()
    assert type(outcome) is RainException
    assert str(outcome) == "The client is closed"
    connection.close(RainException("again"))
    assert channel.closed


def test_warning_wakes_a_sleeping_thread(connection, channel):
    reader = Background(lambda: wait(connection, session=1))
    first = channel.expect(Wait)
    sleeper = Background(lambda: wait(connection, session=2))
    channel.expect(Wait)
    channel.say(SessionWarning(2, "no worker is connected"))
    assert isinstance(sleeper.outcome(), RainWarning)
    channel.say(done(first.seq))
    assert reader.outcome() == done(first.seq)


def test_dropping_the_last_reference_disconnects(channel):
    connection = Connection(channel, "host:7210")
    reference = weakref.ref(connection)
    del connection
    gc.collect()
    assert reference() is None
    assert channel.closed


def test_forked_child_leaves_the_connection_alone(channel, monkeypatch):
    connection = Connection(channel, "host:7210")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(RainException, match="inherited by fork"):
            wait(connection)
        connection.close(RainException("closed"))
        assert not channel.closed


def test_server_info_passes(connection, channel):
    channel.say(ServerInfo(1, {"workers": []}))
    assert connection.ask(GetServerInfo, "asking") == ServerInfo(1, {"workers": []})


def test_answers_that_come_together(connection, channel):
    questions = [
        (lambda seq: CloseSession(seq, 1), "closing"),
        (lambda seq: Wait(seq, 1, 0, ids()), "waiting"),
        (lambda seq: Wait(seq, 2, 0, ids()), "waiting for another"),
    ]
    first, second, third = connection.begin(questions, 1)
    for kind in (CloseSession, Wait, Wait):
        channel.expect(kind)
    channel.say(SessionWarning(1, "look"), Accepted(first.seq), done(second.seq))
    with pytest.warns(RainWarning, match="look"):
        assert connection.finish(first, is_wait=False) == Accepted(first.seq)
    channel.hang_up()
    assert connection.finish(second, 1.0) == done(second.seq)
    with pytest.raises(RainConnectionError):
        connection.finish(third, 1.0)
    with pytest.raises(RainConnectionError):
        connection.finish(third, 1.0)
