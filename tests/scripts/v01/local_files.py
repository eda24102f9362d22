"""Files and directories of the worker's machine: open, open_dir and export."""

import os
import sys
import tempfile

from rain.client import Client, TaskException, blob, tasks

client = Client(sys.argv[1], int(sys.argv[2]))

with tempfile.TemporaryDirectory() as folder:
    source = os.path.join(folder, "source.txt")
    with open(source, "w") as file:
        file.write("from a file")
    tree = os.path.join(folder, "tree")
    os.makedirs(os.path.join(tree, "sub", "empty"))
    with open(os.path.join(tree, "sub", "run.sh"), "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(file.name, 0o755)

    with client.new_session() as session:
        opened = tasks.open(source)
        copied = tasks.export(tasks.concat((opened, blob("!"))), os.path.join(folder, "target.txt"))
        opened_tree = tasks.open_dir(tree)
        opened_tree.output.keep()
        copied_tree = tasks.export(opened_tree, os.path.join(folder, "copy"))
        print(list(copied.outputs), opened_tree.output.is_directory())
        session.submit()
        session.wait_all()
        with open(os.path.join(folder, "target.txt")) as file:
            print(file.read())
        for path, names, files in sorted(os.walk(os.path.join(folder, "copy"))):
            print(os.path.relpath(path, folder), sorted(names), files)
        print(os.access(os.path.join(folder, "copy", "sub", "run.sh"), os.X_OK))
        print(opened_tree.output.fetch().size)

    os.remove(source)
    for name, make in (
        ("missing", lambda: tasks.open(source)),
        ("relative", lambda: tasks.open("source.txt")),
        ("a directory", lambda: tasks.open(tree)),
        ("no directory", lambda: tasks.open_dir(os.path.join(folder, "target.txt"))),
        ("relative target", lambda: tasks.export(blob("x"), "target.txt")),
    ):
        with client.new_session() as session:
            task = make()
            session.submit()
            try:
                session.wait_all()
            except TaskException as error:
                path = task.attributes["config"]["path"]
                print(name, error.task is task, path in error.message)

client.close()
