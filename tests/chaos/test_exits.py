"""However a client with an embedded cluster ends, in whatever call: at once, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.chaos.exiting_client import IN_CALL

ROOT = Path(__file__).resolve().parents[2]
MARK = "EXIT_TEST_CELL"
CALLS = ("submit", "hung submit", "wait", "fetch")
ENDS = ("return", "exception", "exit", "ctrl-c", "sigterm", "sigkill", "restart")
AT_A_TIME = 4

EXIT_LIMIT = 15.0
GONE_LIMIT = 20.0
START_LIMIT = 60.0

CODES = {"return": 0, "exception": 1, "exit": 3, "ctrl-c": -signal.SIGINT, "sigterm": -signal.SIGTERM, "sigkill": -9}
TEXTS = {"exception": "ValueError: an error of the script", "ctrl-c": "KeyboardInterrupt"}


@dataclass
class Cell:
    """One cell of the matrix.

    Attributes:
        problems: what was wrong.
        exit_seconds: from the cause to the end.
        gone_seconds: from the end until nothing was left.
    """

    where: str
    how: str
    folder: Path
    problems: list[str]
    exit_seconds: float = 0.0
    gone_seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.how} in {self.where}"

    def run(self) -> None:
        """Start the client, end it, look what is left."""
        self.folder.mkdir()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAIN_")}
        output = self.folder.with_suffix(".err")
        with output.open("wb") as errors:
            client = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.exiting_client", self.where, self.how],
                cwd=ROOT,
                env={**clean, "TMPDIR": str(self.folder), MARK: self.name},
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        with client:
            try:
                self._end(client)
            finally:
                client.kill()
        text = output.read_text("utf-8", errors="replace")
        self._check_text(text)
        if self.problems:
            self.problems.append(f"stderr: {text[-3000:]}")
        begin = time.monotonic()
        while left := self._left():
            if time.monotonic() - begin > GONE_LIMIT:
                self.problems.append(f"left after {GONE_LIMIT:g} s: {', '.join(left)}")
                return
            time.sleep(0.05)
        self.gone_seconds = time.monotonic() - begin

    def _end(self, client: subprocess.Popen[bytes]) -> None:
        assert client.stdout is not None
        line = client.stdout.readline()
        if not line:
            self.problems.append(f"the client did not come to its call: exit code {client.wait(EXIT_LIMIT)}")
            return
        time.sleep(IN_CALL)
        begin = time.monotonic()
        if self.how == "ctrl-c":
            os.killpg(client.pid, signal.SIGINT)
        elif self.how == "sigterm":
            client.terminate()
        elif self.how == "sigkill":
            client.kill()
        if self.where == "submit" and self.how in ("ctrl-c", "sigterm", "sigkill"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGCONT)
        if self.how == "restart":
            if client.stdout.readline() != b"restarted\n":
                self.problems.append("it was not restarted")
            self._wait_for_others(client)
            return
        try:
            code = client.wait(2 * EXIT_LIMIT)
        except subprocess.TimeoutExpired:
            self.problems.append(f"still there after {2 * EXIT_LIMIT:g} s")
            return
        self.exit_seconds = time.monotonic() - begin
        if self.exit_seconds > EXIT_LIMIT:
            self.problems.append(f"ended after {self.exit_seconds:.1f} s")
        if code != CODES[self.how]:
            self.problems.append(f"exit code {code}, expected {CODES[self.how]}")

    def _wait_for_others(self, client: subprocess.Popen[bytes]) -> None:
        """The cluster ends though the process with this id lives on as another program."""
        begin = time.monotonic()
        while [pid for pid in self._processes() if pid != client.pid]:
            if time.monotonic() - begin > GONE_LIMIT:
                self.problems.append("the cluster outlived the restart")
                return
            time.sleep(0.05)

    def _check_text(self, text: str) -> None:
        expected = TEXTS.get(self.how)
        if expected is None:
            if text:
                self.problems.append(f"wrote to stderr: {text[-2000:]}")
        elif expected not in text or "Exception ignored" in text:
            self.problems.append(f"expected {expected!r} in: {text[-2000:]}")

    def _processes(self) -> dict[int, str]:
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == self.name and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())[:100]
        return found

    def _left(self) -> list[str]:
        # Unlike Path.rglob, os.walk does not mind what vanishes meanwhile.
        entries = [
            os.path.join(folder, name) for folder, folders, files in os.walk(self.folder) for name in folders + files
        ]
        return [*self._processes().values(), *entries]


@pytest.mark.timeout(300)
def test_matrix(tmp_path: Path) -> None:
    cells = [Cell(where, how, tmp_path / f"{how}-{where}".replace(" ", "-"), []) for where in CALLS for how in ENDS]
    begin = time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(Cell.run, cells))
    slowest = max(cell.exit_seconds for cell in cells)
    longest = max(cell.gone_seconds for cell in cells)
    print(
        f"{len(cells)} cells in {time.monotonic() - begin:.1f} s; slowest exit {slowest:.2f} s, "
        f"last trace gone after {longest:.2f} s"
    )
    problems = [f"{cell.name}: {problem}" for cell in cells for problem in cell.problems]
    assert not problems, "\n".join(problems)
