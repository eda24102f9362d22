"""Load, LoadDir and Store work on absolute paths of the node that runs them."""

import os
import sys
import tempfile

from rain.client import Client, Output, OutputDir, TaskException, blob, directory, tasks

with Client(sys.argv[1], sys.argv[2]) as client, tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "in.json")
    with open(path, "w") as file:
        file.write('{"loaded": true}')
    with client.new_session() as session:
        loaded = tasks.Load(path, output=Output("json", content_type="json"))
        labelled = tasks.Load(path, "label")
        stored = tasks.Store(loaded, os.path.join(folder, "out.json"))
        tree = tasks.MakeDirectory({"a": blob("A"), "b/c": loaded})
        tasks.Store(tree, os.path.join(folder, "tree"))
        tasks.Store(directory(), os.path.join(folder, "empty"))
        session.keep_all()
        session.submit()
        session.wait_all()
        print(loaded.output.label, labelled.output.label, loaded.output.fetch().load(), list(stored.outputs))
        with open(os.path.join(folder, "out.json")) as file:
            print(file.read())
        print(sorted(os.listdir(os.path.join(folder, "tree"))), os.listdir(os.path.join(folder, "empty")))

    with client.new_session() as session:
        again = tasks.LoadDir(os.path.join(folder, "tree"), OutputDir("again"))
        sliced = tasks.SliceDirectory(again, "b/c", Output("c", content_type="json"))
        sliced.keep_outputs()
        again.keep_outputs()
        session.submit()
        # The loaded copy is a value: what happens to the original does not matter any more.
        session.wait_all()
        os.remove(os.path.join(folder, "tree", "a"))
        print(sliced.output.fetch().load(), again.output.fetch().size, repr(again.output).endswith("[D]>"))

    for make in (
        lambda: tasks.Load("in.json"),
        lambda: tasks.Load(folder),
        lambda: tasks.Load(path + ".missing"),
        lambda: tasks.LoadDir(path),
        lambda: tasks.Store(blob("x"), "relative"),
    ):
        with client.new_session() as session:
            task = make()
            session.submit()
            try:
                session.wait_all()
            except TaskException as error:
                print(task.spec.task_type, task.spec.config["path"] in error.message)
