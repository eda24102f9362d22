"""Directories as values: made, sliced, given to programs and to functions."""

import os
import sys
import tempfile

from rain.client import Client, InputDir, OutputDir, TaskException, blob, directory, remote, tasks


@remote(outputs=OutputDir("tree"))
def numbers(ctx, count):
    """Make a directory in a task."""
    os.makedirs("made/deep/er")
    for number in range(count):
        with open(f"made/deep/{number}.txt", "w") as file:
            file.write(str(number))
    return ctx.stage_directory("made")


@remote()
def names(ctx, tree):
    """Read a directory in a task."""
    tree.write("copy")
    found = []
    for path, folders, files in os.walk("copy"):
        found += [os.path.relpath(os.path.join(path, name), "copy") for name in folders + files]
    return ",".join(sorted(found))


client = Client(sys.argv[1], int(sys.argv[2]))
with tempfile.TemporaryDirectory() as folder, client.new_session() as session:
    with open(os.path.join(folder, "file"), "w") as file:
        file.write("content")
    os.symlink("file", os.path.join(folder, "link"))

    local = directory(folder, label="local")
    made = tasks.make_directory([("a.txt", blob("a")), ("sub/b.txt", blob("b")), ("sub/tree", local)])
    one = tasks.slice_directory(made, "sub/b.txt", content_type="text")
    part = tasks.slice_directory(made, "sub/")
    listed = tasks.execute(["find", InputDir("tree", dataobj=part), "-type", "f"], stdout=True)
    output = tasks.execute(
        "mkdir -p out/x && echo 1 > out/x/one && echo 2 > out/two", shell=True, output_files=[OutputDir("out")]
    )
    inner = tasks.execute(
        "echo new > copy/new",
        shell=True,
        input_files=[InputDir("copy", dataobj=made, write=True)],
        output_files=[OutputDir("copy"), "copy/a.txt", OutputDir("sub", path="copy/sub")],
    )
    slept = tasks.sleep(0, made)
    counted = numbers(3)
    described = [names(tree) for tree in (made, part, local, output, inner.outputs["copy"], counted, slept)]
    print(made.output.is_directory(), one.output.label, part.output.is_directory(), slept.output.is_directory())

    session.keep_all()
    session.submit()
    session.wait_all()
    print(one.output.fetch().load(), sorted(listed.output.fetch().get_str().split()))
    for task in described:
        print(task.output.fetch().get_str())
    print(inner.outputs["copy/a.txt"].fetch().get_str(), made.output.fetch().size)

    target = os.path.join(folder, "target")
    made.output.fetch().write(target)
    with open(os.path.join(target, "sub", "tree", "link")) as file:
        print(file.read(), os.path.islink(file.name))
    made.output.fetch(to=os.path.join(folder, "streamed"))
    print(sorted(os.listdir(os.path.join(folder, "streamed", "sub"))))

    try:
        tasks.slice_directory(blob("x"), "a")
    except TypeError as error:
        print(type(error).__name__)

for name, make in (
    ("no such path", lambda: tasks.slice_directory(directory(), "missing.txt")),
    ("upward", lambda: tasks.make_directory([("../a", blob("a"))])),
    ("absolute", lambda: tasks.make_directory([("/a", blob("a"))])),
):
    with client.new_session() as session:
        make()
        session.submit()
        try:
            session.wait_all()
        except TaskException as error:
            print(name, error.worker is not None)

client.close()
