"""Tasks by their type strings: built-in ones, and those of an executor which the worker's configuration names."""

import sys

from rain.client import Client, RainException, Task, blob

client = Client(sys.argv[1], int(sys.argv[2]))

with client.new_session() as session:
    parts = (blob("one "), blob("two"))
    joined = Task("!concat", inputs=parts, outputs=("joined",))
    slept = Task("!sleep", 100, inputs=(joined,), outputs=1)
    counted = Task(
        "!run",
        {"args": ["/bin/sh", "-c", "wc -c < text"], "in_paths": [{"path": "text", "write": False}],
         "out_paths": ["+out"], "shell": False},
        inputs=(slept,),
        outputs=("count",),
        cpus=2,
    )
    upper = Task("text/upper", inputs=(slept,), outputs=1)
    words = Task("text/split", {"separator": " "}, (slept,), ("first", "second"))
    same = Task("text/same", inputs=[upper], outputs=1)
    again = Task("builtin/concat", inputs=[same, joined], outputs=["again"])

    print([label for label, _ in slept.outputs.items()], joined.output.label, [o.label for o in words.outputs])
    print(joined.output.id < joined.id, slept.task_type, counted.attributes["resources"])
    session.keep_all()
    session.submit()
    session.wait_all()

    for task in (joined, slept, counted, upper, same, again):
        print(task.task_type, task.output.fetch().get_str().strip())
    print(words.outputs["first"].fetch().get_str(), words.outputs["second"].fetch().get_str())
    words.update()
    print(words.attributes["debug"])

for task_type in ("text/fail", "text/unheard", "nowhere/upper", "!nothing"):
    with client.new_session() as session:
        Task(task_type, inputs=(blob("x"),), outputs=1)
        session.submit()
        try:
            session.wait_all()
        except RainException as error:
            print(type(error).__name__, error.message.splitlines()[0])

client.close()
