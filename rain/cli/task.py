"""`rain task`: its verbs, and `rain task explain`."""

from __future__ import annotations

import sys
import time
from array import array
from typing import TYPE_CHECKING, Any

from rain.cli import connection, task_log, task_verbs, values
from rain.cli.output import Report, Table, show
from rain.common.errors import InvalidRequestError, RainTimeoutError
from rain.common.structs import dataclass
from rain.protocol.messages import Explain, Explained, ExplainTasks, TasksExplained

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rain.cli.values import Selector


def add_parser(verbs: Any) -> None:
    """Add the noun with its verbs."""
    parser = verbs.add_parser("task", help="list, show, explain and cancel tasks, read what they wrote")
    added = parser.add_subparsers(metavar="VERB", title="verbs", required=True)
    task_verbs.add_parsers(added)
    task_log.add_parser(added)
    explain = added.add_parser(
        "explain",
        help="say why tasks are in their state",
        description="Say why tasks are in their state: missing inputs, what workers lack, failed runs with reasons.",
    )
    explain.add_argument("tasks", type=values.selector, metavar="SEL", help=values.SELECTOR_HELP)
    connection.add_management_options(explain)
    explain.set_defaults(run=run_explain)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A text about `count` tasks with consecutive ids."""

    session: int
    first: int
    count: int
    text: str

    @property
    def name(self) -> str:
        """A selector of these tasks."""
        last = f"-{self.first + self.count - 1}" if self.count > 1 else ""
        return f"{self.session}/{self.first}{last}"


def run_explain(options: argparse.Namespace) -> int:
    """Ask the server and print."""
    wanted: Selector = options.tasks
    server = connection.find_server(options)
    explanations = list(_explanations(server, wanted, options.timeout))
    if not explanations:
        if wanted.last < values.LARGEST_ID:
            raise InvalidRequestError(f"{wanted.text}: session {wanted.session} has no tasks with these ids")
        print(f"session {wanted.session} has no tasks", file=sys.stderr)
    show(report_of(explanations), options.output, sys.stdout)
    return 0


def _explanations(server: connection.KnownServer, wanted: Selector, timeout: float) -> Iterator[Explanation]:
    """All that the server says; of many tasks it speaks in portions."""
    deadline = time.monotonic() + timeout
    if wanted.is_single:
        question = Explain(connection.SEQ, wanted.session, array("I", [wanted.first]))
        (text,) = connection.ask(server, question, Explained, timeout).texts
        yield Explanation(wanted.session, wanted.first, 1, text)
        return
    first = wanted.first
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RainTimeoutError(
                f"{server.address} has more to say about {wanted.text} than fits into {timeout:g} s; select fewer "
                "tasks, or give a larger --timeout"
            )
        portion = ExplainTasks(connection.SEQ, wanted.session, first, wanted.last)
        answer = connection.ask(server, portion, TasksExplained, left)
        for number, count, text in zip(answer.ids, answer.counts, answer.texts, strict=True):
            yield Explanation(wanted.session, number, count, text)
        if answer.next <= first:
            return
        first = answer.next


def report_of(explanations: list[Explanation]) -> Report:
    """Explanations in all forms of output; `quiet` names the tasks."""
    document = {
        "tasks": [
            {"tasks": one.name, "session": one.session, "first": one.first, "count": one.count, "text": one.text}
            for one in explanations
        ]
    }
    tables = [Table((), [(line,) for line in one.text.splitlines()]) for one in explanations]
    return Report(document, tables, [one.name for one in explanations])
