"""Chains of sleeps; ids, states and times of the tasks."""

import datetime
import sys

from rain.client import Client, blob, rpc, tasks

client = Client(sys.argv[1], sys.argv[2])

with client.new_session() as session:
    first = tasks.sleep(0.1, blob("slept"))
    print([thing.id.id for thing in (first.inputs[0], first.output, first)])
    print(first.state, first.output.state)
    second = tasks.sleep(0.1, first)
    quick = tasks.sleep(0, blob("quick", content_type=None), cpus=0)
    long = tasks.sleep(30, blob("too long"))
    first.keep_outputs()
    quick.keep_outputs()

    session.submit()
    print(first.state is rpc.common.TaskState.notAssigned, first.output.state is rpc.common.DataObjectState.unfinished)

    finished_tasks, finished_objects = session.wait_some((long, quick), (long.output,))
    print([task is quick for task in finished_tasks], finished_objects)

    second.wait()
    print(second.state.name, first.state.name, long.state.name)
    first.update()
    print(first.state.name, first.output.fetch().get_str(), first.output.content_type)

    info = first.attributes["info"]
    print(type(info["duration"]).__name__, 90 <= info["duration"] <= 1000, info["worker"].rpartition(":")[0])
    started = datetime.datetime.strptime(info["start"][: info["start"].index(".") + 6], "%Y-%m-%dT%H:%M:%S.%f")
    print(started.year >= 2017, first.attributes["config"], first.attributes["resources"]["cpus"])

print(session.active)
client.close()
