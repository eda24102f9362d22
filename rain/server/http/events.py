"""`POST /events`: the event log, filtered (spec 10.1)."""

from __future__ import annotations

import json

from tornado.iostream import StreamClosedError

from rain.eventlog.criteria import parse_criteria
from rain.server.http.handler import JSON, Problem
from rain.server.http.logview import Unavailable
from rain.server.http.pages import PageHandler


class EventsHandler(PageHandler):
    """Sends events piece by piece, as fast as they are taken."""

    async def post(self) -> None:
        """The events that fit the criteria in the body."""
        try:
            criteria = parse_criteria(json.loads(self.request.body))
        except (ValueError, RecursionError) as error:
            raise Problem(400, f"The body is not a JSON object with criteria of events: {error}") from error
        self.set_header("Content-Type", JSON)
        try:
            async for piece in self.site.log.events(criteria):
                self.write(piece)
                await self.flush_patiently()
        except StreamClosedError:
            return
        except Unavailable as error:
            if not self._headers_written:
                raise Problem(503, str(error)) from error
            self.stream.close()  # better no end than one that looks like the last event
