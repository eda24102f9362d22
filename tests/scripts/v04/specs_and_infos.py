"""Specs before the run, infos after it."""

import datetime
import sys

from rain.client import Client, Output, Task, blob, remote
from rain.common import ID
from rain.common.attributes import ObjectSpec, TaskSpec


@remote(outputs=[Output("a", content_type="text"), "b"], inputs={})
def annotate(ctx, source):
    """Reads what the user said and says something itself."""
    ctx.info.user["sum"] = ctx.spec.user["x"] + ctx.spec.user["y"]["z"]
    ctx.info.user["from the input"] = source.spec.user["origin"]
    ctx.info.user["falsy"] = {"zero": 0, "no": False, "empty": "", "none": None, "list": []}
    result = ctx.blob(b"bytes of a", content_type="text-utf-8")
    result.info.user["made by"] = str(ctx.spec.id)
    source.info.user["passed"] = True
    ctx.debug("attempt {}", ctx.attempt)
    return result, source


with Client(sys.argv[1], int(sys.argv[2])) as client, client.new_session() as session:
    source = blob("source")
    source.spec.user["origin"] = ["here", 1]
    task = annotate(source, name="annotated")
    task.spec.user["x"] = 40
    task.spec.user["y"] = {"z": 2}
    generic = Task([("in", source)], ["out"], task_type="buildin/concat", cpus=2, user_spec={"k": False})
    print(generic.id.id, generic.output.id.id, generic.inputs["in"] is source)
    print(generic.spec.user, generic.spec.resources)
    print(generic.spec.inputs[0].label, generic.spec.inputs[0].id == source.id, generic.output.spec.label)
    print(ID(1, 2) < ID(1, 3), ID.parse("3/4") == (3, 4), ID.parse("3:4"), str(ID(5, 6)))
    session.keep_all()
    session.submit()
    session.wait_all()
    print(task.info, generic.state.name)
    session.update([task, generic, source, *task.outputs])
    print(task.info.user)
    print(task.info.debug, task.info.error or None, task.info.attempts, task.info.cached)
    print(task.outputs["a"].info.user == {"made by": str(task.id)}, task.outputs["b"].info.user)
    print(task.outputs["a"].content_type, task.outputs["a"].spec.content_type, task.outputs["a"].info.content_type)
    start = datetime.datetime.fromisoformat(task.info.start_time)
    print(start.microsecond >= 0, isinstance(task.info.duration, float), task.info.governor == task.info.worker)
    print(generic.spec.user, generic.info.user, source.info.size, generic.output.fetch().info.size)
    print(task.attributes["x"], task.attributes["sum"], sorted(task.attributes["info"]))

    for make in (lambda: TaskSpec(nonsense=1), lambda: ObjectSpec._from_json({"nonsense": 1}), lambda: Task([], 1)):
        try:
            make()
        except (TypeError, AttributeError, ValueError) as error:
            print(type(error).__name__)
    print(TaskSpec(config=0, name="n")._to_json(), ObjectSpec(label="l", user={"a": 0})._to_json())
