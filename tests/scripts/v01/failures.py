"""What users see when tasks fail, and that everything goes on."""

import os
import sys

from rain.client import (
    Client,
    Input,
    RainException,
    SessionException,
    TaskException,
    blob,
    remote,
    tasks,
)


@remote()
def divide(ctx, a, b):
    """Fails for b = 0."""
    ctx.debug("dividing {} by {}", a, b)
    return str(a // b)


@remote()
def exits(ctx):
    """Ends its process."""
    print("the last words", file=sys.stderr, flush=True)
    os._exit(9)


@remote()
def number(ctx):
    """Returns what is no value of a data object."""
    return 12


@remote(outputs=["a", "b"])
def incomplete(ctx):
    """Returns one of two outputs."""
    return {"a": "only this one"}


@remote(inputs={"data": Input(content_type="json")})
def wants_json(ctx, data):
    """Accepts one content type."""
    return "never"


client = Client(sys.argv[1], int(sys.argv[2]))

with client.new_session() as session:
    kept = blob("kept")
    kept.keep()
    good = divide(4, 2)
    good.output.keep()
    session.submit()
    good.wait()
    bad = divide(1, 0)
    bad.output.keep()
    dependent = tasks.concat([bad, good])
    session.submit()
    try:
        session.wait_all()
    except TaskException as error:
        print("ZeroDivisionError" in error.message, error.task is bad, error.task_id == bad.id, repr(error.cause))
        print(error.debug, error.attempts, error.worker.count(":"))
        lines = str(error).splitlines()
        print(lines[0] == f"Task {bad!r} failed", "divide(1, 0)" in str(error), lines[-2:])
    calls = {
        "wait": lambda: session.wait([dependent]),
        "wait_some": lambda: session.wait_some([dependent]),
        "fetch": good.output.fetch,
        "update": lambda: session.update([good]),
        "unkeep": good.output.unkeep,
        "submit": lambda: (blob("one more"), session.submit()),
    }
    for name, call in calls.items():
        try:
            call()
        except TaskException as error:
            print(name, error.task is bad)
try:
    session.wait_all()
except SessionException as error:
    print(error)

makers = {
    "crash": exits,
    "no value": number,
    "missing output": incomplete,
    "wrong type": lambda: wants_json(blob("text")),
    "open": lambda: tasks.open("/no/such/file"),
    "program": lambda: tasks.execute("exit 5", shell=True),
}
for name, make in makers.items():
    with client.new_session() as session:
        task = make()
        session.submit()
        try:
            task.wait()
        except TaskException as error:
            print(name, error.task is task, error.message.splitlines()[0] if name in ("crash", "program") else "")
            if name == "crash":
                print("the last words" in error.message)

for make in (
    lambda: divide(1),
    lambda: divide(1, 2, c=3),
    lambda: tasks.sleep(blob("x"), 1),
    lambda: tasks.concat(["text"]),
    lambda: tasks.sleep(-1, blob("x")),
    lambda: divide("x" * 300000, 1),
):
    with client.new_session() as session:
        try:
            make()
        except (RainException, TypeError, ValueError, Warning) as error:
            print(type(error).__name__)

with client.new_session() as session:
    last = divide(9, 3)
    last.output.keep()
    session.submit()
    print(last.output.fetch().get_str())
client.close()
