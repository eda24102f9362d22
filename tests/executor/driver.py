"""Drives a real executor process the way a worker does."""

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cloudpickle
import msgpack

import rain
from rain.common.blocks import BlockResult, joined
from rain.common.comm import FrameReader, pack_frame
from rain.common.content_type import decode_value
from rain.common.packing import PickledValue, pack_args, unpack
from rain.executor.executor import unpickle_input_object

ROOT = str(Path(rain.__file__).parents[1])
FUNCTION = 10
TIMEOUT = 20.0


class Input:
    """A data object inside of an argument: pickles as the client does it."""

    def __init__(self, index, name="a", load=False, content_type=None):
        self.arguments = (name, index, load, content_type)

    def __reduce__(self):
        return unpickle_input_object, self.arguments


def pickler(value):
    return cloudpickle.dumps(value)


class BlockRow(NamedTuple):
    first: int
    row: list
    result: BlockResult | None

    @property
    def outputs(self):
        """Encoded values and their infos."""
        result, start, found = self.result, 0, []
        for index, size in enumerate(result.sizes):
            info = result.infos[result.kinds[index] if result.kinds else 0]
            found.append((result.value(index, start), info))
            start += size
        return found

    @property
    def values(self):
        """Decoded values."""
        return [decode_value(data, unpack(info)["content_type"]) if info else data for data, info in self.outputs]


class Driver:
    def __init__(self, root, session=1, module="rain.executor"):
        self.session = session
        self.root = Path(root)
        self.values = self.root / "large"
        self.values.mkdir()
        self.task = 100
        self.begun = 0
        #: what runs wrote, as told so far
        self.written = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.root / "socket"))
        listener.listen()
        listener.settimeout(TIMEOUT)
        environment = {
            **os.environ,
            "RAIN_EXECUTOR_SOCKET": str(self.root / "socket"),
            "RAIN_EXECUTOR_ID": "7",
            "PYTHONPATH": ROOT,
        }
        with open(self.root / "out", "wb") as out, open(self.root / "err", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.socket, _ = listener.accept()
        listener.close()
        self.socket.settimeout(TIMEOUT)
        self.reader = FrameReader()
        self.frames = []
        self.registration = self.receive()
        self.send(["welcome", {"values": str(self.values), "inline_limit": 64 << 10}])

    def send(self, message):
        self.socket.sendall(pack_frame(msgpack.packb(message)))

    def receive(self):
        while not self.frames:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            self.frames += [msgpack.unpackb(frame) for frame in self.reader.feed(data)]
        return self.frames.pop(0)

    def batch(self, template, function, arguments, inputs=(), *, run=1, number=0, outputs=None, specs=None):
        """Send a batch of calls of one function; inputs: rows of further inputs of each call; specs: packed, of the
        outputs of each call."""
        objects = [*inputs]
        if function is not None:
            objects.append([FUNCTION, None, None, cloudpickle.dumps(function)])
        ids = [FUNCTION, *(row[0] for row in inputs)]
        count = len(template.get("outputs", ()))
        calls = []
        for args in arguments:
            self.task += 1
            results = outputs or [1000 * self.task + index for index in range(count)]
            calls.append([self.task, run, number, pack_args(args, {}, pickler), ids, results, specs])
        self.send(["calls", self.session, [[number, template]], objects, calls])
        return [call[0] for call in calls]

    def results(self, count):
        rows, cached = [], []
        while len(rows) < count:
            name, new_rows, new_cached, *written = self.receive()
            assert name == "results"
            rows += new_rows
            cached += new_cached
            self.written += written[0] if written else []
        return rows, cached

    def call(self, template, function, *args, inputs=(), run=1):
        """One call; returns its row."""
        self.batch(template, function, [args], inputs, run=run)
        (row,), _ = self.results(1)
        return row

    def block(self, template, function, arguments, inputs=(), *, run=1, packed=None):
        """Send a block and take its end; returns its row with the result unpacked, and the id of its first task.

        packed: the arguments as they are to be sent.
        """
        objects = [*inputs]
        if function is not None:
            objects.append([FUNCTION, None, None, cloudpickle.dumps(function)])
        first = self.task + 1
        self.task += len(arguments)
        args = packed or joined(len(arguments), b"".join(pack_args(args, {}, pickler) for args in arguments))
        ids = [FUNCTION, *(row[0] for row in inputs)]
        row = [first, run, 0, args, ids, 1000 * first, len(arguments), None]
        self.send(["block", self.session, [[0, template]], objects, row])
        (row,), _ = self.results(1)
        assert row[:2] == [first, run]
        return BlockRow(first, row, BlockResult.unpack(row[6]) if len(row) == 8 else None)

    def wrote(self):
        """What tasks wrote to stdout and stderr since the last call, in order: (task, run, out, err)."""
        written, self.written = self.written, []
        logs = [(self.root / name).read_bytes() for name in ("out", "err")]
        return [
            (task, run, logs[0][out_start:out_end], logs[1][err_start:err_end])
            for task, run, out_start, out_end, err_start, err_end in written
        ]

    def progress(self):
        return struct.unpack_from("<Q", (self.root / "progress").read_bytes())[0]

    def drop_function(self):
        self.send(["drop_cached", [[self.session, FUNCTION]]])

    def wait_gone(self):
        return self.process.wait(TIMEOUT)

    def close(self):
        self.socket.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(TIMEOUT)


def plain(outputs=1, **spec):
    return {"task_type": "py/", "config": {"plain": True}, "outputs": [spec] * outputs}


def remote(*specs, encode=None, **more):
    specs = specs or ({},)
    return {
        "task_type": "py/",
        "config": {"encode_outputs": encode or [None] * len(specs)},
        "outputs": list(specs),
        **more,
    }


def until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


__all__ = ["FUNCTION", "Driver", "Input", "PickledValue", "pickle", "plain", "remote", "until"]
