"""Tasks of an executor in the worker's configuration, through a class of their own."""

import sys

from rain.client import Client, Output, Task, TaskException, blob, remote


class Upper(Task):
    """Upper-case text."""

    TASK_TYPE = "text/upper"

    def __init__(self, source, **options):
        super().__init__((source,), (Output("upper", content_type="text"),), **options)


class Split(Task):
    """Parts of a text, one output per part."""

    TASK_TYPE = "text/split"

    def __init__(self, source, count, separator=","):
        super().__init__((source,), count, config={"separator": separator})


@remote()
def reverse(ctx, text):
    """A Python task between the others."""
    return text.get_str()[::-1]


with Client(sys.argv[1], int(sys.argv[2])) as client:
    with client.new_session() as session:
        large = blob("abc," * 100000 + "end")
        upper = Upper(blob("a,b,c"), name="loud")
        parts = Split(upper, 3)
        turned = reverse(parts.outputs[0])
        again = Upper(turned)
        same = Task((again,), 1, task_type="text/same")
        count = Task((large, large), 1, task_type="text/count")
        print(upper.id.id, upper.output.id.id, upper.name, parts.outputs[1].label, parts.spec.config)
        session.keep_all()
        session.submit()
        session.wait_all()
        print(upper.output.fetch().load(), [output.fetch().get_bytes() for output in parts.outputs])
        print(same.output.fetch().get_str(), count.output.fetch().get_str())
        session.update([upper, parts])
        print(upper.info.debug, upper.info.user, parts.info.debug, upper.info.duration < 10)
        print(upper.info.governor.count(":"))

    for make in (
        lambda: Split(blob("a,b"), 3),
        lambda: Task((blob("x"),), 1, task_type="text/fail"),
        lambda: Task((blob("x"),), 1, task_type="text/unknown"),
        lambda: Task((blob("x"),), 1, task_type="unknown/method"),
    ):
        with client.new_session() as session:
            task = make()
            session.submit()
            try:
                task.wait()
            except TaskException as error:
                print(error.message)

    with client.new_session() as session:
        upper = Upper(blob("still there"))
        upper.keep_outputs()
        session.submit()
        print(upper.output.fetch().load())
