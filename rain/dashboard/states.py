"""What an id of a session is, and states as the dashboard shows them."""

NOTHING, WAITING, RUNNING, FINISHED, FAILED, CANCELLED, ABORTED, OBJECT, UNKEPT, CONSTANT = range(10)
"""A task in one of six states, an output, one that its client does not want any more, or a constant."""

STATES = ("waiting", "running", "finished", "failed", "cancelled", "aborted")
"""Names of the states of tasks, by number - 1."""

NUMBERS = {name: number for number, name in enumerate(STATES, start=1)}


class UnknownError(LookupError):
    """There is no such session, task or worker, or nothing is known of it any more."""
