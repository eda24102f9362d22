"""A session that outlives its block: `bind_only()` makes it active without closing it at the end.

Usage: bind_only.py [HOST:PORT]
"""

import sys

from rain.client import Client, blob, tasks

with Client(*sys.argv[1:]) as client:
    session = client.new_session("kept open")

    with session.bind_only():
        numbers = [blob(str(number)) for number in range(10)]

    with session.bind_only():
        row = tasks.concat(numbers)
        row.output.keep()
        session.submit()

    print(row.output.fetch().get_str())
    session.close()
