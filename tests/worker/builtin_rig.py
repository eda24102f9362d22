"""Built-in tasks on a real loop, a real store and real processes."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack

from rain.common import fs
from rain.common.failure import Failure
from rain.worker.builtins import Builtins
from rain.worker.core.actions import Run, RunInput
from rain.worker.core.events import RunFailed, RunResult, RunsEnded, WorkerEvent
from rain.worker.store import Store
from rain.worker.task_logs import TaskLogs

SESSION = 1


class Rig:
    """A store, built-ins, and what they reported.

    Args:
        root: where everything is kept.
    """

    def __init__(self, root: Path) -> None:
        for name in ("data", "tmp"):
            (root / name).mkdir()
        self.sandboxes = root / "tmp"
        self.store = Store(str(root / "data"), memory_budget=0)
        self.events: list[WorkerEvent] = []
        self.threads = ThreadPoolExecutor(2)
        self.task_logs = TaskLogs(root / "log")
        self._reported = asyncio.Event()
        self._tasks = 20
        self.builtins = Builtins(
            loop=asyncio.get_running_loop(),
            store=self.store,
            task_logs=self.task_logs,
            report=self._report,
            wall_clock=lambda: 1000.5,
            sandboxes=self.sandboxes,
            threads=self.threads,
        )

    def _report(self, event: WorkerEvent) -> None:
        self.events.append(event)
        self._reported.set()

    async def close(self) -> None:
        """Stop everything and check that nothing is left."""
        await self.builtins.close()
        await asyncio.to_thread(self.threads.shutdown)
        self.store.close()
        assert os.listdir(self.sandboxes) == []
        assert os.listdir(self.store.data_directory) == []

    def blob(self, number: int, value: bytes) -> RunInput:
        """An input with this value."""
        self.store.put((SESSION, number), value)
        return RunInput((SESSION, number), None, None, False)

    def directory(self, number: int, files: dict[str, bytes]) -> RunInput:
        """An input with this tree."""
        path = self.store.new_tree()
        Path(path).mkdir()
        for name, content in files.items():
            target = Path(path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        self.store.put_tree((SESSION, number), path)
        return RunInput((SESSION, number), msgpack.packb({"data_type": "dir"}), None, False)

    def start(
        self,
        task_type: str,
        inputs: list[RunInput],
        *,
        config: Any = None,
        outputs: list[str] | None = None,
        specs: tuple[bytes | None, ...] = (),
        **template: Any,
    ) -> Run:
        """Start a task with outputs of these data types; specs: packed ones of its own."""
        self._tasks += 10
        outputs = ["blob"] if outputs is None else outputs
        data = {"task_type": task_type, "outputs": [{"data_type": kind} for kind in outputs], **template}
        numbers = tuple(range(self._tasks + 1, self._tasks + 1 + len(outputs)))
        gpus = tuple(template.get("gpus", ()))
        packed = None if config is None else msgpack.packb(config)
        run = Run((SESSION, self._tasks, 1), 0, data, packed, tuple(inputs), numbers, gpus, specs)
        self.builtins.run(run)
        return run

    async def end(self) -> RunResult | RunFailed:
        """The end of the only job."""
        await asyncio.wait_for(self._reported.wait(), 20)
        self._reported.clear()
        (event,) = self.events
        self.events.clear()
        assert isinstance(event, RunsEnded), event
        (result,) = event.results
        return result

    async def result(self, task_type: str, inputs: list[RunInput], **options: Any) -> list[Any]:
        """Run a task; the values of its outputs, directories as dicts of names and contents."""
        run = self.start(task_type, inputs, **options)
        end = await self.end()
        assert isinstance(end, RunResult), end
        kinds = [spec["data_type"] for spec in run.template_data["outputs"]]
        values = []
        for number, kind, (size, _, inline) in zip(run.outputs, kinds, end.outputs, strict=True):
            value = self.store.get((SESSION, number))
            assert value is not None
            assert inline == (value if isinstance(value, bytes) else None)
            if kind == "dir":
                files = self.files(number)
                assert size == sum(len(content) for content in files.values() if isinstance(content, bytes))
                values.append(files)
            else:
                content = value if isinstance(value, bytes) else value.read_bytes()
                assert size == len(content)
                values.append(content)
        return values

    def files(self, number: int) -> dict[str, bytes | str | None]:
        """A stored directory: contents of files, targets of links as str, None for directories."""
        key = (SESSION, number)
        packed = bytes(self.store.read(key, 0, 1 << 30))
        target = Path(self.sandboxes, f"unpacked-{number}")
        fs.unpack_directory(packed, target)
        found: dict[str, bytes | str | None] = {}
        for path in sorted(target.rglob("*")):
            name = str(path.relative_to(target))
            found[name] = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
        self.store.drop_tar(key)
        fs.remove_tree(target)
        return found

    async def failure(self, task_type: str, inputs: list[RunInput], **options: Any) -> Failure:
        """Run a task that fails; why it did. Its outputs are not stored."""
        run = self.start(task_type, inputs, **options)
        end = await self.end()
        assert isinstance(end, RunFailed), end
        assert all((SESSION, number) not in self.store for number in run.outputs)
        return end.failure
