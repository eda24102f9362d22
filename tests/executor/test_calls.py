"""Batches of calls, failures, flushing, progress: the protocol between worker and executor."""

import pickle
import time

import pytest

from rain.common.content_type import decode_value
from rain.common.failure import Failure
from rain.common.packing import pack, pack_args, unpack
from tests.executor.driver import FUNCTION, Driver, Input, plain, remote, until


def value_of(row):
    ((value, info, size),) = row[5]
    assert size == len(value)
    content_type = unpack(info)["content_type"] if info else None
    return decode_value(value, content_type) if content_type else value


def failure_of(row):
    assert len(row) == 5
    return Failure.from_map(row[4])


def test_registration(executor):
    assert executor.registration == ["register", {"protocol": "rain-py-1", "executor_id": 7, "executor_type": "py"}]


def test_a_batch_is_run_in_order(executor):
    before = time.time()
    tasks = executor.batch(plain(), lambda a, b: (a, b), [(n, "x") for n in range(100)])
    rows, cached = executor.results(100)
    assert [row[0] for row in rows] == tasks
    assert [row[1] for row in rows] == [1] * 100
    assert [value_of(row) for row in rows] == [(n, "x") for n in range(100)]
    assert cached == [[executor.session, FUNCTION]]
    starts = [row[2] for row in rows]
    assert starts == sorted(starts)
    assert before - 1 < starts[0] < time.time() + 1
    assert all(0 <= row[3] < 10 for row in rows)


def test_the_same_function_object_serves_later_calls(executor):
    def function(memory=[]):  # noqa: B006
        memory.append(1)
        return len(memory)

    executor.batch(plain(), function, [()] * 3)
    rows, cached = executor.results(3)
    assert [value_of(row) for row in rows] == [1, 2, 3]
    assert cached
    executor.batch(plain(), None, [()] * 2)
    rows, cached = executor.results(2)
    assert [value_of(row) for row in rows] == [4, 5]
    assert cached == []


def test_dropped_functions_are_forgotten(executor):
    executor.call(plain(), lambda: 1)
    executor.drop_function()
    failure = failure_of(executor.call(plain(), None))
    assert f"Data object 1/{FUNCTION} was not sent" in failure.message


def test_a_failure_is_told_and_the_next_call_runs(executor):
    def function(number):
        if number == 1:
            raise ValueError("one")
        return number

    executor.batch(plain(), function, [(0,), (1,), (2,)], run=4)
    rows, _ = executor.results(3)
    assert [len(row) for row in rows] == [6, 5, 6]
    failure = failure_of(rows[1])
    assert (failure.kind, failure.session, failure.task, failure.attempts) == ("task", 1, rows[1][0], 4)
    assert failure.message.startswith("Traceback (most recent call last):\n")
    assert "in function" in failure.message
    assert failure.message.endswith("ValueError: one")
    assert "rain/executor" not in failure.message
    cause = pickle.loads(failure.exception)
    assert type(cause) is ValueError
    assert cause.args == ("one",)
    assert value_of(rows[2]) == 2


def test_causes_are_in_the_traceback(executor):
    def function():
        try:
            {}["missing"]
        except KeyError as error:
            raise RuntimeError("outer") from error

    message = failure_of(executor.call(plain(), function)).message
    assert "KeyError: 'missing'" in message
    assert "direct cause" in message
    assert message.endswith("RuntimeError: outer")


def test_exceptions_that_cannot_be_pickled_or_are_large(executor):
    def generator():
        raise ValueError(x for x in ())

    def large():
        raise ValueError("x" * 100_000)

    for function, text in ((generator, "generator object"), (large, "xxx")):
        executor.drop_function()
        failure = failure_of(executor.call(plain(), function))
        assert failure.exception is None
        assert text in failure.message


def test_exceptions_of_classes_that_only_the_script_knows(executor):
    namespace = {"__name__": "__main__"}
    exec("class Mine(Exception): pass\ndef function(): raise Mine('x')", namespace)
    failure = failure_of(executor.call(plain(), namespace["function"]))
    assert isinstance(pickle.loads(failure.exception), namespace["Mine"])


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), SystemExit()])
def test_exit_in_a_task_fails_the_task_only(executor, raised):
    def function():
        raise raised

    assert type(raised).__name__ in failure_of(executor.call(plain(), function)).message
    executor.drop_function()
    assert value_of(executor.call(plain(), lambda: 5)) == 5


def test_a_function_or_argument_that_cannot_be_loaded_fails_its_task(executor):
    function = [FUNCTION, None, None, b"garbage"]
    executor.send(["calls", 1, [[0, plain()]], [function], [[1, 1, 0, None, [FUNCTION], [2], None]]])
    (row,), cached = executor.results(1)
    assert "UnpicklingError" in failure_of(row).message
    assert cached == []
    executor.batch(plain(), lambda a: a, [(1,)])
    executor.results(1)
    calls = [[1, 1, 0, b"\xc1", [FUNCTION], [2], None], [2, 1, 99, None, [FUNCTION], [3], None]]
    executor.send(["calls", 1, [], [], calls])
    rows, _ = executor.results(2)
    assert all(len(row) == 5 for row in rows)


def test_results_are_sent_while_a_longer_call_runs(executor, tmp_path):
    gate = str(tmp_path / "gate")

    def function(path):
        import os
        import time

        while path and not os.path.exists(path):
            time.sleep(0.001)
        return path

    tasks = executor.batch(plain(), function, [("",), ("",), (gate,), ("",)])
    rows, _ = executor.results(2)
    assert [row[0] for row in rows] == tasks[:2]
    until(lambda: executor.progress() >= 3)
    open(gate, "w").close()
    rows, _ = executor.results(2)
    assert [row[0] for row in rows] == tasks[2:]


def test_results_are_sent_while_a_call_holds_the_interpreter(executor, tmp_path):
    gate = str(tmp_path / "gate")

    def function(path):
        import os

        while path and not os.path.exists(path):
            sum(range(100))
        return path

    executor.batch(plain(), function, [("",), (gate,)])
    executor.results(1)
    open(gate, "w").close()
    executor.results(1)


def test_progress_counts_calls(fresh_executor):
    assert fresh_executor.progress() == 0
    fresh_executor.batch(plain(), lambda: None, [()] * 5)
    fresh_executor.results(5)
    assert fresh_executor.progress() == 5

    def die():
        import os

        os._exit(3)

    fresh_executor.drop_function()
    fresh_executor.batch(plain(), die, [()] * 4)
    assert fresh_executor.wait_gone() == 3
    assert fresh_executor.progress() == 6


def test_what_was_printed_survives_a_crash(fresh_executor):
    def function():
        import os
        import sys

        print("to stdout", end="")
        print("to stderr", file=sys.stderr, end="")
        os._exit(1)

    fresh_executor.batch(plain(), function, [()])
    fresh_executor.wait_gone()
    assert (fresh_executor.root / "out").read_text() == "to stdout"
    assert (fresh_executor.root / "err").read_text() == "to stderr"


def test_the_process_ends_with_the_connection_even_in_user_code(fresh_executor, tmp_path):
    def function():
        import subprocess
        import time

        with open("../child", "w") as file:
            file.write(str(subprocess.Popen(["sleep", "100"]).pid))
        open("../started", "w").close()
        while True:
            time.sleep(10)

    fresh_executor.batch(plain(), function, [()])
    until((fresh_executor.root / "started").exists)
    fresh_executor.socket.close()
    fresh_executor.wait_gone()
    child = int((fresh_executor.root / "child").read_text())
    until(lambda: not alive(child))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_sessions_do_not_share_functions_and_can_be_ended(executor):
    executor.call(plain(), lambda: 1)
    executor.send(["end_session", 1])
    executor.send(["calls", 1, [], [], [[1, 1, 0, None, [FUNCTION], [2], None]]])
    (row,), _ = executor.results(1)
    failure_of(row)


def test_arguments(executor):
    def function(*args, **kwargs):
        return args, kwargs

    executor.call(plain(), function)
    args, kwargs = (1, "a", b"b", None, 2**80, (1, [2])), {"k": {"x": {3}}}
    executor.send(["calls", 1, [], [], [[1, 1, 0, pack_args(args, kwargs), [FUNCTION], [2], None]]])
    (row,), _ = executor.results(1)
    assert value_of(row) == (args, kwargs)


def test_data_objects_in_arguments_of_plain_functions_are_values(executor, tmp_path):
    numpy = pytest.importorskip("numpy")
    from rain.common.content_type import encode_value

    array = numpy.arange(50_000)
    (tmp_path / "array").write_bytes(encode_value(array, "pickle5"))
    pickle5 = pack({"content_type": "pickle5"})
    inputs = [
        [11, None, pickle5, encode_value({"a": 1}, "pickle5")],
        [12, pack({"content_type": "text"}), None, "ř".encode()],
        [13, None, None, b"raw"],
        [14, None, pickle5, str(tmp_path / "array")],
    ]

    def function(nested, text, raw, array):
        assert not array.flags.writeable
        return nested, text, raw, int(array.sum())

    row = executor.call(plain(), function, [Input(1)], Input(2), Input(3), Input(4), inputs=inputs)
    assert value_of(row) == ([{"a": 1}], "ř", b"raw", int(array.sum()))


def test_each_call_gets_its_own_copy(executor):
    inputs = [[11, None, pack({"content_type": "pickle"}), pickle.dumps([])]]

    def function(items):
        items.append(1)
        return len(items)

    executor.batch(plain(), function, [(Input(1),), (Input(1),)], inputs)
    rows, _ = executor.results(2)
    assert [value_of(row) for row in rows] == [1, 1]


def test_fork_in_a_task_does_not_disturb(executor):
    def function():
        import os

        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    assert value_of(executor.call(plain(), function)) == 0
    executor.drop_function()
    assert value_of(executor.call(plain(), lambda: 1)) == 1


def test_the_alias_module(tmp_path):
    driver = Driver(tmp_path, module="rain.subworker")
    try:
        assert driver.registration[1]["protocol"] == "rain-py-1"
        assert value_of(driver.call(plain(), lambda: 1)) == 1
    finally:
        driver.close()


def test_alias_names():
    import importlib

    import rain.executor.context
    import rain.executor.executor

    importlib.import_module("rain.subworker")
    assert importlib.import_module("rain.subworker.context") is rain.executor.context
    assert importlib.import_module("rain.subworker.executor") is rain.executor.executor


def test_long_socket_paths(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    import os

    here = os.open(deep, os.O_RDONLY)
    import socket

    from rain.executor.channel import connect

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        listener.listen()
        connect(str(deep / "socket")).close()


def test_remote_functions_get_the_context(executor):
    row = executor.call(remote({}, encode=["json"]), lambda ctx, a: [ctx.attempt, a], 5, run=2)
    assert value_of(row) == [2, 5]
