"""Program: the command line is written once, the data comes with each call."""

import sys

from rain.client import Client, Input, InputDir, Output, OutputDir, Program, blob, tasks

convert = Program(
    ["sh", "-c", 'tr a-z A-Z < "$0" > "$1"', Input("source"), Output("result", content_type="text")], name="convert"
)
count = Program("wc -c", stdin="data", stdout="bytes", cpus=1)
unpack = Program(["tar", "xf", Input("archive"), "-C", "tree"], input_paths=[InputDir("tree", write=True)],
                 output_paths=[OutputDir("tree")])
pack = Program(["tar", "cf", Output("archive"), "-C", InputDir("folder"), "."])
shell = Program("echo $GREETING from $RAIN_TASK_CPUS cpus", shell=True, stdout=True)

with Client(sys.argv[1], int(sys.argv[2])) as client, client.new_session() as session:
    texts = [blob(f"text number {number}", label=f"t{number}") for number in range(20)]
    converted = [convert(source=text) for text in texts]
    counted = [count(data=task) for task in converted]
    other_name = convert(source=converted[0], name="again", output="other")
    folder = tasks.MakeDirectory({f"f{number}": task.output for number, task in enumerate(converted)})
    archive = pack(folder=folder)
    unpacked = unpack(archive=archive, tree=tasks.MakeDirectory({"before": blob("b")}))
    listing = tasks.Execute(["ls", InputDir("d", dataobj=unpacked)], stdout=True)
    greeting = shell.options(cpus=2, env={"GREETING": "hello"}, name="greeting")()
    print(converted[0].name, other_name.name, other_name.output.label, greeting.name, shell().name)
    print(converted[3].spec.config == converted[4].spec.config, converted[0].output.spec.content_type)

    session.keep_all()
    session.submit()
    session.wait_all()
    print(converted[7].output.fetch().load(), [int(task.output.fetch().get_str()) for task in counted][8:12])
    print(other_name.output.fetch().load(), len(listing.output.fetch().get_str().split()))
    print(greeting.output.fetch().get_str().strip())

    for call in (lambda: convert(), lambda: convert(source=3), lambda: convert(source=folder)):
        try:
            call()
        except Exception as error:
            print(type(error).__name__)
