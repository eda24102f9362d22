"""A Rain executor in plain Python, without Rain: it speaks the public protocol `msgpack-1` (docs/executors.md).

It shows how little an executor in any language needs. A worker starts it for tasks of the types `plain/...`;
in the worker's configuration:

    [executors.plain]
    command = "python3 /path/to/executor.py"
"""

import os
import socket
import struct
from typing import Any

import msgpack

TYPE = "plain"
INLINE_LIMIT = 64 << 10


def hello(inputs: list[bytes], config: Any) -> list[bytes]:
    """The first input behind a prefix."""
    return [(config or "Hello ").encode() + inputs[0]]


def upper(inputs: list[bytes], config: Any) -> list[bytes]:
    """All inputs, one behind the other, in capital letters."""
    return [b"".join(inputs).upper()]


def add(inputs: list[bytes], config: Any) -> list[bytes]:
    """The sum of the numbers in the inputs."""
    return [f"{sum(map(float, inputs)):.15g}".encode()]


def fail(inputs: list[bytes], config: Any) -> list[bytes]:
    """Fails with the text in the config."""
    raise RuntimeError(config or "Failed as it should")


METHODS = {"plain/hello": hello, "plain/upper": upper, "plain/sum": add, "plain/fail": fail}


def load(location: list[Any]) -> bytes:
    """The bytes of an input."""
    kind, value = location
    if kind == "memory":
        return bytes(value)
    with open(value, "rb") as file:  # kind is "path"
        return file.read()


def store(number: int, value: bytes) -> list[Any]:
    """A location: small values ride in the message, large ones become files, which the worker takes away."""
    if len(value) < INLINE_LIMIT:
        return ["memory", value]
    path = os.path.abspath(f"output-{number}")
    with open(path, "wb") as file:
        file.write(value)
    return ["path", path]


def answer(call: dict[str, Any]) -> dict[str, Any]:
    """The result of a call."""
    spec = call["spec"]
    try:
        method = METHODS[spec["task_type"]]
        values = method([load(item["location"]) for item in call["inputs"]], spec.get("config"))
        outputs = [{"location": store(number, value)} for number, value in enumerate(values)]
        return {"task": spec["id"], "success": True, "outputs": outputs}
    except Exception as error:  # whatever goes wrong in a task is told, and the next one comes
        return {"task": spec["id"], "success": False, "info": {"error": f"{type(error).__name__}: {error}"}}


def main() -> None:
    """Register, and run one call after another until the worker ends."""
    directory, name = os.path.split(os.environ["RAIN_EXECUTOR_SOCKET"])
    os.chdir(directory)  # the whole path may be longer than the address of a socket can be
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(name)
    stream = connection.makefile("rwb")

    def send(message: str, data: dict[str, Any]) -> None:
        payload = msgpack.packb([message, data])
        stream.write(struct.pack("<I", len(payload)) + payload)
        stream.flush()

    number = int(os.environ["RAIN_EXECUTOR_ID"])
    send("register", {"protocol": "msgpack-1", "executor_id": number, "executor_type": TYPE})
    while len(header := stream.read(4)) == 4:
        message, data = msgpack.unpackb(stream.read(struct.unpack("<I", header)[0]))
        if message == "call":
            send("result", answer(data))


if __name__ == "__main__":
    main()
