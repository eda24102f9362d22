"""Constants with and without content types, and their joining."""

import sys

from rain.client import Client, blob, directory, pickled, tasks
from rain.client.data import to_data, to_dataobj

print(to_data is to_dataobj)
client = Client(sys.argv[1], int(sys.argv[2]))

with client.new_session() as session:
    hello = blob("Hello ")
    world = blob(b"world!", "world")
    joined = tasks.concat((hello, world, hello))
    joined.output.keep()
    nothing = tasks.concat(())
    nothing.output.keep()

    constants = [
        hello,
        world,
        blob("\u00e9t\u00e9", encode="text:latin-1"),
        blob("\u00e9t\u00e9", encode="text:utf-16"),
        blob(b"\x89PNG", "logo", content_type="mime:image/png"),
        blob(b"raw", content_type="user:mine"),
        blob({"a": [1, None, "x"]}, encode="json"),
        pickled({1, 2, 3}),
        blob(b""),
    ]
    for constant in constants:
        constant.keep()
    empty_directory = directory()
    empty_directory.keep()
    session.submit()

    print(joined.output.fetch().get_str(), nothing.output.fetch().get_bytes())
    for constant in constants:
        instance = constant.fetch()
        print(constant.label, instance.content_type, instance.get_bytes()[:2], instance.size)
    for constant in (constants[0], constants[2], constants[3], constants[6], constants[7]):
        print(constant.fetch().load())
    print(empty_directory.is_directory(), empty_directory.content_type, empty_directory.fetch().size)

client.close()
