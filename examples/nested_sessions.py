"""Two sessions at the same time: each `with` makes its session the active one, leaving it brings back the outer one.

Usage: nested_sessions.py [HOST:PORT]
"""

import sys

from rain.client import Client, blob, tasks

with Client(*sys.argv[1:]) as client, client.new_session("outer") as outer:
    first = tasks.concat((blob("made in "), blob("the outer session")))
    first.output.keep()

    with client.new_session("inner") as inner:
        second = tasks.concat((blob("made in "), blob("the inner session")))
        second.output.keep()
        inner.submit()
        print(second.output.fetch().get_str())

    # The inner session is closed, with all its objects; the outer one is active again.
    third = tasks.concat((first.output, blob(", and read later")))
    third.output.keep()
    outer.submit()
    print(third.output.fetch().get_str())
