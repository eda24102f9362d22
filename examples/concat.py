"""Two blobs joined by the built-in task `concat`: the smallest graph that computes something.

Run it as it is (an embedded cluster is started), or with the address of a server: `concat.py HOST:PORT`.
"""

import sys

from rain.client import Client, blob, tasks

with Client(*sys.argv[1:]) as client, client.new_session("concat") as session:
    joined = tasks.concat((blob("Hello "), blob("world!")))
    joined.output.keep()
    session.submit()
    print(joined.output.fetch().get_str())
