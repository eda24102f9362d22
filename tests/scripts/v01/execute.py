"""Programs: arguments, files, standard streams, the shell, and what happens when they fail."""

import sys

from rain.client import Client, Input, Output, TaskException, blob, tasks

client = Client(sys.argv[1], int(sys.argv[2]))
poem = "roses are red\nviolets are blue\n"

with client.new_session() as session:
    text = blob(poem)

    plain = tasks.execute("echo 'two  words' three", stdout=True)
    piped = tasks.execute(["sort", "-r"], stdin=text, stdout="sorted")
    as_argument = tasks.execute(("wc", "-l", text), stdout=True)
    many = tasks.execute(["cat", text, blob("and so on\n"), text], stdout=Output("all", content_type="text"))
    mapped = tasks.execute(
        ["sh", "-c", "cat in/poem.txt > copied; wc -w < copied > words"],
        input_files=[Input("poem", path="in/poem.txt", dataobj=text)],
        output_files=["copied", Output("count", path="words")],
    )
    inside = tasks.execute(["cp", Input("poem", dataobj=text), Output("copy", path="sub.txt")])
    shell = tasks.execute("x=$((20 + 22)); echo $x", shell=True, stdout=True)
    joined = tasks.execute(("echo", "$RAIN_TASK_CPUS", "&&", "echo", "$RAIN_TASK_ID"), shell=True, stdout=True, cpus=2)
    changed = tasks.execute(
        ["sed", "-i", "s/red/green/", Input("poem", dataobj=text, write=True)],
        output_files=[Output("changed", path="poem")],
    )
    silent = tasks.execute("true", stdout=True)
    print([output.label for output in mapped.outputs], mapped.outputs["count"].id < mapped.id, silent.output.label)

    session.keep_all()
    session.submit()
    session.wait_all()
    print(plain.output.fetch().get_str(), end="")
    print(piped.outputs["sorted"].fetch().get_str(), end="")
    print(as_argument.output.fetch().get_str().split()[0])
    print(many.output.fetch().load().count("\n"), many.output.content_type)
    print(mapped.outputs["copied"].fetch().get_str() == poem, mapped.outputs["count"].fetch().get_str().strip())
    print(inside.output.fetch().get_str() == poem, shell.output.fetch().get_str().strip())
    print(joined.output.fetch().get_str().split()[0], joined.output.fetch().get_str().split()[1] == str(joined.id))
    print(changed.outputs["changed"].fetch().get_str().split()[2], text.fetch().get_str().split()[2])
    print(silent.output.fetch().get_bytes())

failures = {
    "exit code": lambda: tasks.execute("echo sorry >&2; exit 3", shell=True),
    "signal": lambda: tasks.execute("kill -9 $$", shell=True),
    "not found": lambda: tasks.execute("no-such-program-here"),
    "missing output": lambda: tasks.execute("true", output_files=["never-made"]),
    "directory instead of a blob": lambda: tasks.execute("mkdir made", output_files=["made"]),
}
for name, make in failures.items():
    with client.new_session() as session:
        make()
        session.submit()
        try:
            session.wait_all()
        except TaskException as error:
            lines = error.message.splitlines()
            named = next((word for word in ("no-such-program-here", "never-made", "made") if word in error.message), "")
            print(name, "|", lines[:2] if "Program" in lines[0] else named)

client.close()
