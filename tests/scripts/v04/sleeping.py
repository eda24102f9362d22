"""States of tasks and objects, waiting, and infos."""

import sys

from rain.client import Client, RainException, RainTimeoutError, blob, rpc, tasks

client = Client(f"{sys.argv[1]}:{sys.argv[2]}")

with client.new_session("sleeping") as session:
    first = tasks.Sleep(blob("value"), 0.1)
    second = tasks.Sleep(first, 0.1, cpus=1)
    endless = tasks.Sleep(blob("x"), 600)
    print(first.id.id, first.output.id.id, first.inputs[0].id.id, first.state, first.info)
    for call in (lambda: session.wait([first]), lambda: session.update([first]), first.output.fetch):
        try:
            call()
        except RainException as error:
            print(type(error).__name__)
    second.output.keep()
    session.submit()
    print(first.state.name, first.output.state.name, int(first.state))

    try:
        session.wait([endless], timeout=0)
    except RainTimeoutError as error:
        print(isinstance(error, TimeoutError))
    done, objects = session.wait_some([second, endless])
    print(done == [second], objects, second.state is rpc.common.TaskState.finished, second.info)
    session.update([second, first, endless, second.output])
    print(second.state.name, first.state.name, endless.state.name, second.output.state.name)
    print(0.09 <= second.info.duration <= 1.0, second.info.governor == second.info.worker, second.info.attempts)
    print(second.spec.config, second.spec.task_type, second.spec.resources, second.output.info.size)
    print(second.output.fetch().load(), first.output.is_kept(), rpc.common.allTasksId)

    server = client.get_server_info()
    print(server["governors"] == server["workers"], {"address", "sessions", "version"} <= set(server["server"]))
    nodes = [node for node in server["governors"] if tuple(endless.id) in node["tasks"]]
    print([node["governor_id"] == endless.info.governor or endless.info.governor == "" for node in nodes])

with client.new_session() as session:
    tasks.Sleep(blob("y"), 0.2)
    session.submit()
    session.wait_all()
    print("all done")
    session.wait_all()
client.close()
