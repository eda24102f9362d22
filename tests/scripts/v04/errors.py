"""Which exception tells what, and that a failed session leaves the others alone."""

import sys

from rain.client import (
    Client,
    InvalidRequestError,
    RainException,
    SessionException,
    TaskException,
    blob,
    remote,
    tasks,
)


@remote()
def works(ctx, text):
    """Fine."""
    return text


@remote()
def broken(ctx):
    """A bug."""
    return undefined_name  # noqa: F821


def raised(call):
    """Class and first line of what the call raises."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error).splitlines()[0]
    return None


with Client(sys.argv[1], int(sys.argv[2])) as client:
    outside = client.new_session("outside")
    with outside.bind_only():
        slow = tasks.Sleep(blob("fine"), 0.3)
        slow.output.keep()
        outside.submit()

    with client.new_session("inside") as session:
        good = works("good")
        good.output.keep()
        session.submit()
        print(good.output.fetch().get_str())
        bad = broken()
        after = tasks.Sleep(bad, 0)
        after.output.keep()
        session.submit()
        print(raised(lambda: after.output.fetch())[0])
        for call in (
            lambda: session.wait([good]),
            lambda: session.wait_some([good]),
            lambda: session.wait_all(),
            lambda: good.output.fetch(),
            lambda: session.update([good]),
            lambda: session.unkeep([good.output]),
        ):
            try:
                call()
            except TaskException as error:
                print(error.task is bad, "undefined_name" in error.message, type(error.cause).__name__)
        session.close()
        print(raised(session.wait_all), session.active)

    print(slow.output.fetch().get_str())
    outside.close()

    with client.new_session() as session:
        data = blob("data")
        first = tasks.Concat([data])
        print(raised(lambda: data.unkeep())[0], raised(lambda: data.fetch())[0])
        print(raised(lambda: session.wait(["x"]))[0], raised(lambda: session.unkeep([first]))[0])
        print(raised(lambda: works())[0], "'text'" in raised(lambda: works())[1])
        print(raised(lambda: tasks.Sleep(3, data))[0], raised(lambda: tasks.Sleep(data, -1))[0])
        session.submit()
        first.wait()
        second = tasks.Concat([first])
        kind, text = raised(session.submit)
        print(kind == InvalidRequestError.__name__, str(first.output.id) in text)
        print(session.task_count, raised(lambda: data.keep())[0])
    with client.new_session() as one, client.new_session() as other:
        foreign = blob("foreign", session=one)
        tasks.Concat([foreign], session=other)
        print(issubclass(InvalidRequestError, RainException), raised(other.submit)[0])
    print(raised(lambda: works("x"))[1].partition(";")[0], issubclass(TaskException, SessionException))
print(raised(client.new_session)[0])
