"""An executor for text, written from the description of the public protocol alone: MessagePack over a unix socket.

Methods: `upper`, `split` (config `{"separator"}`), `same`, `count` and `fail`.
"""

import os
import socket
import struct
import sys

import msgpack


def receive(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data


def read(connection):
    (size,) = struct.unpack("<I", receive(connection, 4))
    return msgpack.unpackb(receive(connection, size))


def send(connection, name, data):
    payload = msgpack.packb([name, data])
    connection.sendall(struct.pack("<I", len(payload)) + payload)


def value(given):
    kind, content = given["location"]
    if kind == "memory":
        return content
    with open(content, "rb") as file:
        return file.read()


def output(data, content_type=""):
    return {"info": {"size": len(data), "content_type": content_type}, "location": ["memory", data]}


def run(spec, inputs):
    """Outputs and debug text of a call; raises ValueError for a failure."""
    method = spec["task_type"].partition("/")[2]
    if method == "upper":
        return [output(value(inputs[0]).upper(), "text")], "shouted"
    if method == "split":
        parts = value(inputs[0]).split(spec["config"]["separator"].encode())
        if len(parts) != len(spec["outputs"]):
            raise ValueError(f"{len(parts)} parts for {len(spec['outputs'])} outputs")
        return [output(part) for part in parts], f"{len(parts)} parts"
    if method == "same":
        return [{"info": {}, "location": ["other_object", inputs[0]["spec"]["id"]]}], ""
    if method == "count":
        path = os.path.abspath("count")
        with open(path, "w") as file:
            file.write(str(sum(len(value(given)) for given in inputs)))
        return [{"info": {"size": os.path.getsize(path)}, "location": ["path", path]}], ""
    if method == "fail":
        raise ValueError('the executor says "no"')
    raise ValueError(f"there is no method {method!r}")


def main():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["RAIN_EXECUTOR_SOCKET"])
    number = int(os.environ["RAIN_EXECUTOR_ID"])
    assert os.environ["RAIN_SUBWORKER_ID"] == os.environ["RAIN_EXECUTOR_ID"]
    assert os.environ["RAIN_SUBWORKER_SOCKET"] == os.environ["RAIN_EXECUTOR_SOCKET"]
    assert "RAIN_TOKEN" not in os.environ
    send(connection, "register", {"protocol": "msgpack-1", "executor_id": number, "executor_type": sys.argv[1]})
    while True:
        name, data = read(connection)
        if name != "call":
            continue
        spec = data["spec"]
        result = {"task": spec["id"], "success": True}
        try:
            result["outputs"], debug = run(spec, data["inputs"])
            result["info"] = {"debug": debug, "user": {"method": spec["task_type"]}}
        except ValueError as error:
            result["success"] = False
            result["info"] = {"error": str(error)}
        send(connection, "result", result)


if __name__ == "__main__":
    main()
