"""Python functions as tasks, in the ways of the first releases."""

import os
import sys

from rain.client import Client, Input, Output, blob, pickled, remote, tasks


@remote()
def hello(ctx):
    """One output, made of the returned text."""
    return "Hello"


@remote(outputs=2)
def halves(ctx, text):
    """Two outputs without names: out0 and out1."""
    data = text.get_str()
    return data[: len(data) // 2], data[len(data) // 2 :].encode()


@remote(outputs=("sum", Output("product", encode="json")))
def arithmetic(ctx, numbers, scale=1):
    """Two outputs with names."""
    product = 1
    for number in numbers.load():
        product *= number
    return {"product": product, "sum": str(scale * sum(numbers.load()))}


@remote(auto_load=True, auto_encode="pickle")
def total(ctx, parts, *more, **named):
    """Data objects anywhere in the arguments."""
    return sum(parts["list"]) + sum(more) + sum(named.values())


@remote(inputs={"data": Input(content_type="json", load=True)})
def describe(ctx, data):
    """Files in the working directory, debug text and attributes."""
    ctx.debug("{} keys", len(data))
    ctx.debug("in {}", "an empty directory" if not os.listdir(".") else "a used directory")
    ctx.attributes["keys"] = sorted(data)
    ctx.attributes["doubled"] = ctx.attributes["given"] * 2
    with open("report.txt", "w") as file:
        file.write(f"{len(data)} keys")
    return ctx.stage_file("report.txt", content_type="text")


@remote(outputs=0)
def check(ctx, text):
    """No output."""
    assert text.content_type == "text"


@remote()
def same(ctx, value):
    """The input is the output."""
    value.attributes["seen"] = True
    return value


client = Client(sys.argv[1], int(sys.argv[2]))
with client.new_session() as session:
    first = hello()
    split = halves(tasks.concat((first.output, blob(" world"))))
    numbers = pickled([2, 3, 7])
    results = arithmetic(numbers, scale=10)
    added = total({"list": [pickled(1), results.outputs["product"]]}, pickled(2), 3, x=pickled(4), y=5)
    source = blob({"b": 1, "a": 2}, encode="json")
    described = describe(source, name="the description")
    described.attributes["given"] = 21
    checked = check(first)
    passed = same(source)
    renamed = hello(output="greeting")
    print(first.name, described.name, renamed.output.label, [o.label for o in split.outputs], list(checked.outputs))
    print(first.output.id < first.id, numbers.id[1], first.task_type)

    session.keep_all()
    session.submit()
    session.wait_all()

    print(first.output.fetch().get_str(), first.output.content_type)
    print([output.fetch().get_bytes() for output in split.outputs], split.outputs["out0"].content_type)
    print(results.outputs["sum"].fetch().load(), results.outputs["product"].fetch().load())
    print(added.output.fetch().load())
    print(described.output.fetch().load(), described.attributes.get("keys"))
    described.update()
    print(described.attributes["keys"], described.attributes["doubled"], described.attributes["debug"].splitlines())
    print(passed.output.fetch().load(), passed.output.content_type, passed.output.attributes["seen"])

client.close()
