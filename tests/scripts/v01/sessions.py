"""Several sessions: active ones, default ones, many submits, and what the server knows of them."""

import sys
import threading
import time

from rain.client import Client, RainException, SessionException, blob, tasks
from rain.client.session import get_active_session, global_session_pop, global_session_push

client = Client(sys.argv[1], int(sys.argv[2]))

try:
    blob("nowhere")
except RainException as error:
    print(str(error)[:17])

with client.new_session("outer") as outer:
    with client.new_session("inner") as inner:
        print(get_active_session() is inner, inner.name, inner.session_id == outer.session_id + 1)
        blob("in the inner one")
        blob("in the outer one", session=outer)
        print(inner.dataobj_count, outer.dataobj_count, outer.task_count)
    print(get_active_session() is outer, inner.active)
    try:
        with inner:
            pass
    except SessionException as error:
        print(error)

default = client.new_session(default=True)
in_thread = []
thread = threading.Thread(target=lambda: in_thread.append(get_active_session()))
thread.start()
thread.join()
print(in_thread[0] is default)
default.close()

session = client.new_session()
global_session_push(session)
first = tasks.concat([blob("a"), blob("b")])
print(global_session_pop() is session)
first.output.keep()
with session.bind_only():
    second = tasks.concat([first, blob("c")])
    second.output.keep()
    print(session.task_count, session.dataobj_count)
    session.submit()
    print(session.task_count, session.dataobj_count)
    third = tasks.sleep(0.1, second)
    third.output.keep()
    session.submit()
session.wait_all()
print(third.output.fetch().get_str())

first.output.unkeep()
print(first.output.is_kept())
for call in (first.output.fetch, first.output.unkeep, second.output.keep):
    try:
        call()
    except RainException as error:
        print(type(error).__name__)

with session.bind_only():
    running = tasks.sleep(10, blob("running"))
    session.submit()
deadline = time.monotonic() + 9
while not any(tuple(running.id) in worker["tasks"] for worker in client.get_server_info()["workers"]):
    assert time.monotonic() < deadline, "the running task is not seen"
workers = client.get_server_info()["workers"]
print({"worker_id", "tasks", "objects", "objects_to_delete", "resources", "hostname", "pid"} <= set(workers[0]))
print([worker["worker_id"].partition(":")[0] for worker in workers])

session.close()
session.close()
print(session.active)
try:
    blob("late", session=session)
except SessionException as error:
    print(error)
deadline = time.monotonic() + 20
while any(tuple(running.id) in worker["tasks"] for worker in client.get_server_info()["workers"]):
    assert time.monotonic() < deadline, "the task still runs"
print("stopped")
client.close()
try:
    client.new_session()
except RainException as error:
    print(type(error).__name__)
