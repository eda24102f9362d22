"""Test mode (spec 6.6): constants placed on given workers, with a size pretended for scheduling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from rain.server.core.assign import assignment_message

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState


def place_constants(state: ServerState, session: Session, specs: dict[int, bytes]) -> None:
    """Put new constants whose spec asks for it on exactly the workers named."""
    graph = session.graph
    for number, packed in specs.items():
        user: Any = msgpack.unpackb(packed).get("user")
        wish = user.get("_testing") if isinstance(user, dict) else None
        if not isinstance(wish, dict) or not graph.at_server(number):
            continue
        if isinstance(wish.get("size"), int):
            session.weights[number] = wish["size"]
        names = wish.get("workers") or wish.get("governors")
        if not isinstance(names, list):
            continue
        for worker in state.workers.values():
            if worker.worker_id in names:
                message = assignment_message(state, session, worker, [], extra=[number])
                graph.add_replica(number, worker.incarnation)
                state.send(worker.peer, message)
