"""Execute with mapped paths, standard streams and the shell."""

import sys

from rain.client import Client, Input, Output, TaskException, blob, tasks

with Client(sys.argv[1], int(sys.argv[2])) as client:
    with client.new_session() as session:
        table = blob("name,age\nann,3\nbob,5\n", label="table")
        head = tasks.Execute("head -n 1", stdin=table, stdout="header")
        cut = tasks.Execute(["cut", "-d,", "-f1", table], stdout=Output("names", content_type="text"))
        piped = tasks.Execute(["sort", "-r"], stdin=cut, stdout=True)
        mapped = tasks.Execute(
            "mkdir -p out && cp data/in.csv out/copy.csv && wc -l < data/in.csv > lines && pwd > where",
            shell=True,
            input_paths=[Input("in", path="data/in.csv", dataobj=table)],
            output_paths=[Output("copy", path="out/copy.csv", content_type="user/csv"), "lines", "where"],
        )
        generated = tasks.Execute(["cat", blob("1"), blob("2"), Input(dataobj=blob("3"))], stdout=True)
        defaults = tasks.Execute(["sh", "-c", 'echo "$0" > "$0"', Output("named")])
        unlabelled = tasks.Execute(["sh", "-c", 'echo "$0" > "$0"', Output()])
        environment = tasks.Execute(["sh", "-c", "echo $COLOUR $RAIN_TASK_RUN ${RAIN_TOKEN-none}"], stdout=True,
                                    env={"COLOUR": "blue"}, name="environment")
        passed = tasks.Execute("true", input_paths=[Input("x", dataobj=table)], output_paths=[Output("y", path="x")])
        print(head.spec.config)
        print(cut.spec.config["args"], [spec.label for spec in piped.spec.inputs], environment.name)
        print([output.label for output in mapped.outputs], defaults.output.label, unlabelled.output.label)
        print([output.id < head.id for output in head.outputs], generated.spec.config["in_paths"])

        session.keep_all()
        session.submit()
        session.wait_all()
        print(head.output.fetch().get_str().strip(), cut.output.fetch().load().split())
        print(piped.output.fetch().get_str().split())
        print(mapped.outputs["lines"].fetch().get_str().strip(), mapped.outputs["copy"].content_type)
        where = mapped.outputs["where"].fetch().get_str()
        print(f"{mapped.id.session_id}-{mapped.id.id}." in where)
        print(generated.output.fetch().get_str(), defaults.output.fetch().get_str().strip())
        print(unlabelled.output.fetch().get_str().strip(), environment.output.fetch().get_str().strip())
        print(passed.output.fetch().get_bytes() == table.fetch().get_bytes())

    with client.new_session() as session:
        data = blob("x")
        for call in (
            lambda: tasks.Execute(["cat", 5]),
            lambda: tasks.Execute(["cat", Input("no object")]),
            lambda: tasks.Execute(["cat"], output_paths=[Output()]),
            lambda: tasks.Execute(["cat"], input_paths=[Input("a", path="/etc/x", dataobj=data)]),
            lambda: tasks.Execute(["cat"], input_paths=[Input("a", path="../x", dataobj=data)]),
            lambda: tasks.Execute(["cat"], input_paths=[Input("a", path="+in", dataobj=data)]),
            lambda: tasks.Execute(["cat", Input("a", dataobj=data), Input("b", path="a", dataobj=data)]),
            lambda: tasks.Execute(["cat", Output("a"), Output("b", path="out_a")]),
            lambda: tasks.Execute(["cat", Output("a", encode="json")]),
            lambda: tasks.Execute(["cat", Input("a", dataobj=data, load=True)]),
            lambda: tasks.Execute(["cat", Output("a"), Output("a", path="b")]),
            lambda: tasks.Execute("cat", input_files=[], input_paths=[Input("a", dataobj=data)]),
        ):
            try:
                call()
                print("accepted")
            except (ValueError, TypeError, KeyError) as error:
                print(type(error).__name__, end=" ")
        print(session.task_count, session.dataobj_count)

    for arguments in (
        {"args": ["sh", "-c", "echo out; echo err >&2; exit 7"]},
        {"args": "kill -15 $$", "shell": True},
        {"args": ["cat", "missing-file"]},
        {"args": "true", "stdout": True, "output_paths": ["not-there"]},
    ):
        with client.new_session() as session:
            tasks.Execute(**arguments)
            session.submit()
            try:
                session.wait_all()
            except TaskException as error:
                print(error.message.splitlines()[0] if "stdout" not in arguments else "not-there" in error.message)
