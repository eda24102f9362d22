"""A server of the dashboard with made-up answers, for states that a real one shows rarely or not for long.

python -m tests.ui.fake_server [PORT]
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

from rain.dashboard import static_files

NOW = 1_790_000_000.0
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
STEPS = ("load/read", "load/clean", "train/fold", "train/score", "report")


def counts(total: int, **states: int) -> dict[str, int]:
    """Tasks by state; the rest waits."""
    filled = {state: states.get(state, 0) for state in ("running", "finished", "failed", "cancelled", "aborted")}
    return {"total": total, **filled, "waiting": total - sum(filled.values())}


def session(number: int, name: str, status: str, tasks: dict[str, int], message: str = "") -> dict[str, Any]:
    """One row of the list."""
    created = NOW - 4000 + 300 * number
    ended = None if status in ("open", "detached") else created + 250
    return {
        "id": number,
        "name": name,
        "status": status,
        "client": f"127.0.0.1:{40000 + number}",
        "created": created,
        "ended": ended,
        "message": message,
        "submits": 2,
        "objects": tasks["total"] + 3,
        "tasks": tasks,
    }


class World:
    """What the fake server says; a test changes it as it likes. `fail`: path -> (status, text)."""

    def __init__(self) -> None:
        error = "Task 12 (py/score) failed: ValueError: fold 3 is empty\n  in score, model.py:41"
        self.live = True
        self.last_event = 4211
        self.fail: dict[str, tuple[int, str]] = {}
        self.sessions = [
            session(5, "", "open", counts(0)),
            session(4, "nightly", "detached", counts(400, finished=120)),
            session(3, "training", "open", counts(1200, finished=700, running=8)),
            session(2, "broken", "error", counts(40, finished=11, failed=1, aborted=28), error),
            session(1, "first", "lost", counts(9, finished=9)),
        ]

    def answer(self, path: str, arguments: dict[str, str]) -> Any:
        """The answer to a path below `api/`; KeyError: there is none."""
        if path in self.fail:
            raise tornado.web.HTTPError(self.fail[path][0], reason=self.fail[path][1])
        parts = path.split("/")
        if parts[0] in ("status", "sessions", "workers", "events", "stream") and len(parts) == 1:
            return getattr(self, parts[0])(arguments) if parts[0] != "sessions" else {"sessions": self.sessions}
        if parts[0] == "sessions":
            found = next(one for one in self.sessions if str(one["id"]) == parts[1])
            return self.of_session(found) if len(parts) == 2 else getattr(self, parts[2])(arguments, found)
        if len(parts) == 4:
            return getattr(self, parts[3])(arguments)
        return self.task(int(parts[1]), int(parts[2]))

    def status(self, arguments: dict[str, str]) -> Any:
        return {
            "version": "1.0",
            "address": "127.0.0.1:7210",
            "started": NOW - 9000,
            "now": NOW,
            "live": self.live,
            "last_event": self.last_event,
            "sessions": {"open": 2, "detached": 1, "error": 1, "lost": 1},
            "workers": {"connected": 2 if self.live else 0, "lost": 1},
            "tasks": counts(1649, finished=840, running=8, failed=1, aborted=28),
            "cpus": 16,
        }

    def of_session(self, row: dict[str, Any]) -> Any:
        begin, total = row["created"], row["tasks"]["total"]
        left = [[begin + i * 6.25, round(total - row["tasks"]["finished"] * i / 40)] for i in range(41)]
        failed = row["tasks"]["failed"]
        first = {"task": 12, "name": "train/score", "message": row["message"]} if failed else None
        return {**row, "on_failure": "fail", "unprocessed": left, "bytes": 73_400_000, "first_error": first}

    def groups(self, arguments: dict[str, str], row: dict[str, Any]) -> Any:
        prefix = arguments.get("prefix", "")
        start = f"{prefix}/" if prefix else ""
        names = list(dict.fromkeys(s[len(start) :].split("/")[0] for s in STEPS if s.startswith(start)))
        shares = [2.0**-i / 1.94 for i in range(len(names))]
        groups = [
            {
                "name": name,
                "path": start + name,
                "leaf": start + name in STEPS,
                **counts(240, finished=140, running=2, failed=int(name == "train" and row["id"] == 2)),
                "mean": 0.5 * share,
                "std": 0.07,
                "sum": 120 * share,
                "share": share,
            }
            for name, share in zip(names, shares, strict=True)
        ]
        return {"prefix": prefix, "groups": groups, "more": 0}

    def tasks(self, arguments: dict[str, str], row: dict[str, Any]) -> Any:
        first = int(arguments.get("after") or 9) + 1
        states = [arguments["state"]] if arguments.get("state") else ["finished", "finished", "running", "waiting"]
        name = arguments.get("group", "load/read")
        ids = range(first, min(first + 100, 250))
        tasks = [
            {
                "id": i,
                "name": name,
                "type": "py/" + name.split("/")[-1],
                "state": states[i % len(states)],
                "worker": "127.0.0.1:41235",
                "start": NOW - 900 + i,
                "duration": 0.31 + i / 1000 if states[i % len(states)] == "finished" else None,
            }
            for i in ids
        ]
        return {"tasks": tasks, "next": ids[-1] if ids and ids[-1] < 249 else 0}

    def task(self, session_id: int, number: int) -> Any:
        failed = session_id == 2
        return {
            "id": number,
            "session": session_id,
            "name": "train/score",
            "type": "py/score",
            "state": "failed" if failed else "finished",
            "worker": "127.0.0.1:41235",
            "start": NOW - 900,
            "duration": 1.732,
            "attempts": 1,
            "error": "ValueError: fold 3 is empty" if failed else "",
            "debug": 'Traceback (most recent call last):\n  File "model.py", line 41, in score' if failed else "",
            "user": {"fold": 3},
            "spec": {
                "id": [session_id, number],
                "task_type": "py/score",
                "name": "train/score",
                "resources": {"cpus": 1},
            },
            "inputs": [
                {"id": 10, "state": "finished", "producer": None, "label": "config", "size": 1234},
                {"id": 11, "state": "removed", "producer": 11, "label": "model", "size": 5_300_000},
            ],
            "outputs": [
                {"id": number, "state": "finished", "size": 88, "label": "", "kept": True, "content_type": "pickle"}
            ],
            "history": [
                {"time": NOW - 950, "text": "submitted"},
                {"time": NOW - 900, "text": "started on 127.0.0.1:41235"},
                {"time": NOW - 898.268, "text": "failed" if failed else "finished"},
            ],
        }

    def explain(self, arguments: dict[str, str]) -> Any:
        return {"text": "Task 12 (train/score) is finished.\nIt ran once, on 127.0.0.1:41235, for 1.732 s."}

    def log(self, arguments: dict[str, str]) -> Any:
        whole = "".join(f"epoch {i:3d}  loss {1 / (i + 1):.4f}\n" for i in range(6000))
        offset = int(arguments.get("offset") or 0)
        text = whole[offset : offset + 65536] if arguments.get("stream") == "stdout" else ""
        size = len(whole) if arguments.get("stream") == "stdout" else 0
        return {"text": text, "offset": offset, "next": offset + len(text), "size": size, "ended": True, "hint": ""}

    def graph(self, arguments: dict[str, str], row: dict[str, Any]) -> Any:
        if row["id"] == 3:
            nodes = [
                {
                    "id": f"g:{s}",
                    "kind": "group",
                    "label": s,
                    "type": "",
                    "state": "",
                    **counts(240, finished=240 - 60 * i),
                }
                for i, s in enumerate(STEPS)
            ]
            edges = [[f"g:{a}", f"g:{b}", 240] for a, b in itertools.pairwise(STEPS)]
            return {"mode": "groups", "nodes": nodes, "edges": edges}
        return tree(486 if row["id"] == 4 else 20)

    def stream(self, arguments: dict[str, str], row: dict[str, Any] | None = None) -> Any:
        begin, end = NOW - 600, NOW
        low, high = float(arguments.get("from") or begin), float(arguments.get("to") or end)
        pixel = (high - low) / float(arguments.get("width") or 800)
        rows, total = [], 0
        for worker in range(2):
            slots = [packed(slot + 4 * worker, begin, end, low, high, pixel) for slot in range(4)]
            total += sum(bar[5] for bars in slots for bar in bars)
            rows.append({"worker": f"127.0.0.1:{41235 + worker}", "slots": slots})
        return {"from": low, "to": high, "names": list(STEPS), "rows": rows, "total": total}

    def workers(self, arguments: dict[str, str]) -> Any:
        return {
            "workers": [
                worker(0),
                worker(1),
                {**worker(2), "state": "lost", "lost": NOW - 500, "reason": "no heartbeat for 15 s"},
            ]
        }

    def events(self, arguments: dict[str, str]) -> Any:
        last = int(arguments.get("before") or self.last_event + 1)
        kinds: list[dict[str, Any]] = [
            {"type": "TaskFinished", "task": [3, 14], "info": {"duration": 0.31}},
            {"type": "DataObjectFinished", "dataobject": [3, 14], "size": 4096, "worker": "127.0.0.1:41235"},
            {"type": "TaskFailed", "task": [2, 12], "info": {"error": "ValueError: fold 3 is empty"}},
            {"type": "Monitoring", "worker": "127.0.0.1:41235", "cpu_usage": [90, 80], "mem_usage": 31},
        ]
        ids = range(last - 1, max(0, last - 101), -1)
        events = [{"id": i, "time": logged(NOW - (4211 - i) * 0.7), "event": kinds[i % 4]} for i in ids]
        if arguments.get("type"):
            events = [entry for entry in events if entry["event"]["type"] == arguments["type"]]
        return {"events": events, "next": ids[-1] if ids and ids[-1] > 1 else 0}


def logged(moment: float) -> str:
    """A time as the event log has it."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S.%f}000 UTC"


def packed(seed: int, begin: float, end: float, low: float, high: float, pixel: float) -> list[list[Any]]:
    """Bars of one slot; what is narrower than a pixel is merged."""
    dice = random.Random(seed)
    bars: list[list[Any]] = []
    t, number = begin + dice.random(), 10 + seed
    while t < end:
        name = min(4, int(5 * (t - begin) / (end - begin)))
        stop = min(end, t + dice.uniform(0.05, 4.0))
        if stop >= low and t <= high:
            state = 2 if stop == end else int(dice.random() < 0.01)
            if bars and stop - t < pixel and t - bars[-1][1] < pixel:
                bars[-1][1], bars[-1][5] = stop, bars[-1][5] + 1
            else:
                bars.append([t, stop, name, number, state, 1])
        t, number = stop + dice.uniform(0.0, 0.3), number + 8
    return bars


def worker(number: int) -> dict[str, Any]:
    """One worker with an hour of measurements."""
    history = [
        [
            NOW - 2000 + 5 * i,
            60 + 35 * math.sin(i / 30 + number),
            20 + i / 40,
            4e6 + 3e6 * math.sin(i / 9),
            1e6,
            1e6 * i,
        ]
        for i in range(400)
    ]
    return {
        "id": f"127.0.0.1:{41235 + number}",
        "hostname": f"node{number + 1}",
        "pid": 4000 + number,
        "resources": {"cpus": 8},
        "state": "connected",
        "since": NOW - 9000,
        "lost": None,
        "reason": "",
        "running": 4,
        "finished": 420,
        "cpu": 78.2,
        "memory": 30.0,
        "store": {"memory": 311_000_000, "disk": 0},
        "executors": {"busy": 4, "idle": 1},
        "net": {"rx": 4.1e6, "tx": 9.9e5},
        "history": history,
    }


def tree(leaves: int) -> dict[str, Any]:
    """A graph of tasks that merge eight at a time, with their objects."""
    nodes: list[dict[str, Any]] = []
    edges: list[list[Any]] = []
    level: list[int] = []

    def task(name: str, inputs: list[int]) -> int:
        number = 10 + len(nodes)
        state = "finished" if number < leaves * 2 else "running" if number < leaves * 2 + 20 else "waiting"
        done = "finished" if state == "finished" else "unfinished"
        nodes.append({"id": f"t{number}", "kind": "task", "label": name, "type": f"py/{name}", "state": state})
        nodes.append({"id": f"o{number}", "kind": "object", "label": "", "type": "", "state": done})
        edges.extend([f"o{source}", f"t{number}", 1] for source in inputs)
        edges.append([f"t{number}", f"o{number}", 1])
        return number

    level = [task("parse_file", []) for _ in range(leaves)]
    while len(level) > 1:
        level = [task("merge_parts", level[i : i + 8]) for i in range(0, len(level), 8)]
    return {"mode": "tasks", "nodes": nodes, "edges": edges}


class Page(tornado.web.StaticFileHandler):
    """Static files under the policy of the real server."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Content-Security-Policy", POLICY)


class Api(tornado.web.RequestHandler):
    """Answers of the world."""

    def initialize(self, world: World) -> None:
        self.world = world

    def get(self, path: str) -> None:
        arguments = {name: self.get_argument(name) for name in self.request.arguments}
        try:
            answer = self.world.answer(path, arguments)
        except tornado.web.HTTPError as error:
            self.set_status(error.status_code)
            answer = {"error": error.reason}
        except (AttributeError, StopIteration):
            self.set_status(404)
            answer = {"error": f"There is nothing at {path}."}
        self.write(json.dumps(answer))


class Live(tornado.websocket.WebSocketHandler):
    """Tells of a grown log."""

    def initialize(self, world: World) -> None:
        self.world = world

    async def open(self, *args: str, **kwargs: str) -> None:
        self.watching = asyncio.create_task(self.watch())

    async def watch(self) -> None:
        told = self.world.last_event
        while True:
            await asyncio.sleep(0.2)
            if self.world.last_event != told:
                told = self.world.last_event
                await self.write_message({"last_event": told})

    def on_close(self) -> None:
        self.watching.cancel()


def application(world: World) -> tornado.web.Application:
    """The whole server."""
    return tornado.web.Application(
        [
            (r"/api/live", Live, {"world": world}),
            (r"/api/(.*)", Api, {"world": world}),
            (r"/static/(.*)", Page, {"path": str(static_files())}),
            (r"/()", Page, {"path": str(static_files()), "default_filename": "index.html"}),
        ],
        log_function=lambda handler: None,
    )


@contextmanager
def fake_server(world: World, port: int = 0) -> Iterator[int]:
    """Serve a world from a thread; gives the port."""
    started = threading.Event()
    ports: list[int] = []
    stop: list[Any] = []

    async def serve() -> None:
        end = asyncio.Event()
        stop.append((asyncio.get_running_loop(), end))
        server = tornado.httpserver.HTTPServer(application(world))
        sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
        server.add_sockets(sockets)
        ports.append(sockets[0].getsockname()[1])
        started.set()
        await end.wait()
        server.stop()
        await server.close_all_connections()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        if not started.wait(10):
            raise RuntimeError("the fake server did not start within 10 s")
        yield ports[0]
    finally:
        loop, end = stop[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


def main() -> None:
    """Serve until interrupted."""
    with fake_server(World(), int(sys.argv[1]) if len(sys.argv) > 1 else 8000) as port:
        print(f"http://127.0.0.1:{port}/")
        threading.Event().wait()


if __name__ == "__main__":
    main()
