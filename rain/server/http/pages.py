"""Pages and files: the application, `/lite/`, `/health`, `/metrics`."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from tornado.web import StaticFileHandler

from rain.protocol.messages import GetServerInfo
from rain.server.http.handler import HTML, BaseHandler, Problem, answer_of
from rain.server.http.metrics import CONTENT_TYPE, metrics_page

_LITE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Rain</title></head><body>
<h1>Rain</h1>
<p>{time}</p>
<table>
<tr><th>Worker</th><th>Cpus</th></tr>
{rows}
</table>
</body></html>
"""


class PageHandler(BaseHandler):
    """The application, whatever the path: it finds out itself what to show."""

    def get(self, *_: str) -> None:
        """Its page."""
        try:
            text = (self.site.facts.static / "index.html").read_text("utf-8")
        except FileNotFoundError:
            raise Problem(404, "The dashboard's page is not installed; /lite/ and /metrics work without it") from None
        # Links in the page are relative to the root, which may be below a path of a proxy that only the browser knows.
        up = "../" * (self.request.path.count("/") - 1)
        if up:
            text = text.replace("<head>", f'<head><base href="{up}">', 1)
        self.set_header("Cache-Control", "no-cache")
        self.say_text(text, HTML)

    head = get


class FileHandler(BaseHandler, StaticFileHandler):
    """A file of the application."""

    def parse_url_path(self, url_path: str) -> str:
        """The path of the file below the folder."""
        if "\0" in url_path:
            raise Problem(404, "There is no such file")
        return super().parse_url_path(url_path)

    def set_extra_headers(self, path: str) -> None:
        """The browser keeps it, and asks whether it is still the same."""
        self.set_header("Cache-Control", "no-cache")


class LiteHandler(BaseHandler):
    """The workers, without scripts."""

    async def get(self) -> None:
        """The page."""
        info = (await answer_of(self.site.asker.ask(GetServerInfo))).info
        rows = [
            f"<tr><td>{escape(str(worker['worker_id']))}</td><td>{escape(str(worker['resources'].get('cpus')))}</td></tr>"
            for worker in info["workers"]
        ]
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        self.say_text(_LITE.format(time=now, rows="\n".join(rows)), HTML)

    head = get


class HealthHandler(BaseHandler):
    """Whether the server serves."""

    def get(self) -> None:
        """`ok`."""
        if self.site.facts.is_ending():
            self.say_error(503, "ending")
        else:
            self.say_text("ok")

    head = get


class MetricsHandler(BaseHandler):
    """Figures for Prometheus."""

    def get(self) -> None:
        """The page."""
        site = self.site
        facts = site.facts
        self.say_text(metrics_page(facts.metrics(), facts.turns(), site.lag, len(site.connections)), CONTENT_TYPE)

    head = get
