"""One Program, many tasks."""

import sys

from rain.client import Client, Input, InputDir, Output, Program, RainException, blob, directory, tasks

client = Client(sys.argv[1], int(sys.argv[2]))

grep = Program(
    ["grep", "-c", "-f", Input("pattern"), Input("text", path="dir/text.txt")], stdout="count", name="grep"
)
sort = Program("sort", stdin="unsorted", stdout=Output("sorted", content_type="text"))
paste = Program(
    ["sh", "-c", "paste -d, left right > joined"],
    input_files=["left", Input("right")],
    output_files=[Output("joined")],
)
listing = Program(["ls", InputDir("tree")], stdout=True)
count = Program(["wc", "-c", Input()], stdout=True, cpus=1)

with client.new_session() as session:
    lines = blob("\n".join(str(number) for number in range(100, 0, -1)) + "\n")
    counts = [grep(pattern=blob(f"{digit}\n"), text=lines) for digit in range(10)]
    named = grep(pattern=blob("99\n"), text=lines, name="only this one", ignored=blob("unknown names are ignored"))
    sorted_lines = sort(unsorted=lines)
    retyped = sort(unsorted=blob("b\na\n"), output=Output(content_type="text:ascii"))
    relabelled = sort(unsorted=blob("d\nc\n"), outputs=["my label"])
    joined = paste(left=blob("1\n2\n"), right=blob("a\nb\n"))
    tree = tasks.make_directory([("one", blob("1")), ("sub/two", blob("2"))])
    listed = listing(tree=tree)
    listed_empty = listing(tree=directory())
    counted = count(arg2=blob("12345"))
    print(counts[0].name, named.name, sorted_lines.name, relabelled.output.label, [o.label for o in joined.outputs])

    session.keep_all()
    session.submit()
    session.wait_all()
    print([int(task.output.fetch().get_str()) for task in counts], int(named.output.fetch().get_str()))
    print(sorted_lines.output.fetch().load().split()[:3], sorted_lines.output.content_type)
    print(retyped.output.fetch().get_str().split(), relabelled.output.fetch().get_str().split())
    print(joined.outputs["joined"].fetch().get_str().split())
    print(listed.output.fetch().get_str().split(), listed_empty.output.fetch().get_bytes())
    print(counted.output.fetch().get_str().split()[0])

    for name, call in (
        ("missing", lambda: grep(text=lines)),
        ("not an object", lambda: sort(unsorted="text")),
        ("no label", lambda: Program("cat", input_files=[Input()])),
        ("with object", lambda: Program(["cat", Input("a", dataobj=lines)])),
        ("wrong argument", lambda: Program(["cat", 3])),
        ("both spellings", lambda: Program("cat", input_files=["a"], input_paths=["b"])),
    ):
        try:
            call()
        except (RainException, KeyError, ValueError, TypeError) as error:
            print(name, type(error).__name__)

client.close()
