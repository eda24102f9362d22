from rain.common.failure import MAX_TEXT
from rain.executor.failures import describe, format_traceback
from rain.executor.workspace import Workspace


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_frames_of_rain_are_left_out():
    error = raised(lambda: Workspace("/proc/nowhere/x"))
    text = format_traceback(error)
    assert "workspace.py" not in text
    assert "test_failures.py" in text
    assert "FileNotFoundError" in text


def test_groups_and_notes():
    def function():
        error = ExceptionGroup("many", [ValueError("a"), TypeError("b")])
        error.add_note("noted")
        raise error

    text = format_traceback(raised(function))
    assert all(part in text for part in ("ValueError: a", "TypeError: b", "noted"))


def test_long_texts_keep_their_end():
    def function():
        raise ValueError("x" * (2 * MAX_TEXT) + "end")

    text = format_traceback(raised(function))
    assert len(text) <= MAX_TEXT + 20
    assert text.endswith("end")


def test_errors_that_raise_while_pickled():
    class Evil(Exception):
        def __reduce__(self):
            raise RuntimeError("never")

    failure = describe(Evil("x"), session=1, task=2, run=3, debug="d")
    assert failure.exception is None
    assert (failure.session, failure.task, failure.attempts, failure.debug) == (1, 2, 3, "d")
