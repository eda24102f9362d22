"""MakeDirectory and SliceDirectory, and trees that come back to the client."""

import os
import sys
import tempfile

from rain.client import Client, InputDir, OutputDir, TaskException, blob, directory, remote, tasks
from rain.common import DataType


@remote(outputs=OutputDir())
def grow(ctx, tree):
    """Copies a tree, changes it, and gives it back."""
    tree.write("tree")
    with open("tree/grown", "w") as file:
        file.write("x" * 10)
    os.remove("tree/one")
    return ctx.stage_directory("tree")


with Client(sys.argv[1], int(sys.argv[2])) as client, tempfile.TemporaryDirectory() as folder:
    os.makedirs(os.path.join(folder, "source", "empty"))
    with open(os.path.join(folder, "source", "script"), "w") as file:
        file.write("#!/bin/sh\necho run\n")
    os.chmod(file.name, 0o755)

    with client.new_session() as session:
        source = directory(os.path.join(folder, "source"))
        twin = directory(os.path.join(folder, "source"), label="twin")
        print(source.data == twin.data, source.spec.data_type is DataType.DIRECTORY, source.content_type)
        made = tasks.MakeDirectory([("one", blob("1")), ("two/three", blob("3")), ("source", source)])
        sub = tasks.SliceDirectory(made, "two/")
        leaf = tasks.SliceDirectory(sub, "three")
        deep = tasks.SliceDirectory(made, "source/empty/")
        grown = grow(made)
        run = tasks.Execute(["source/script"], input_paths=[InputDir("source", dataobj=source)], stdout=True)
        for task in (made, sub, leaf, deep, grown, run):
            task.keep_outputs()
        session.submit()
        print(leaf.output.fetch().get_str(), leaf.output.label, sub.output.label, deep.output.fetch().size)
        print(run.output.fetch().get_str().strip())
        made.output.fetch(to=os.path.join(folder, "made"))
        grown.output.fetch().write(os.path.join(folder, "grown"))
        for name in ("made", "grown"):
            found = []
            for path, folders, files in os.walk(os.path.join(folder, name)):
                found += [os.path.relpath(os.path.join(path, entry), os.path.join(folder, name))
                          for entry in folders + files]
            print(name, sorted(found))
        print(made.output.size, grown.output.info.size, made.output.fetch().data_type)
        try:
            grown.output.fetch().write(os.path.join(folder, "made"))
        except FileExistsError as error:
            print(type(error).__name__)
        session.wait_all()

    for make in (
        lambda: tasks.MakeDirectory([("../up", blob("x"))]),
        lambda: tasks.SliceDirectory(directory(), "nothing/here"),
        lambda: tasks.SliceDirectory(tasks.MakeDirectory({"d/f": blob("x")}), "d"),
    ):
        with client.new_session() as session:
            make()
            session.submit()
            try:
                session.wait_all()
            except TaskException as error:
                print(type(error).__name__, error.task.task_type)

    with client.new_session() as session:
        for call in (
            lambda: tasks.MakeDirectory(["a", "b", "c"]),
            lambda: tasks.SliceDirectory(blob("x"), "a"),
            lambda: tasks.Concat([directory()]),
        ):
            try:
                call()
            except TypeError as error:
                print(type(error).__name__)
