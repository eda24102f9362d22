"""An executor that speaks the public protocol and misbehaves as its argument says, which is its type as well."""

import os
import socket
import struct
import sys
import time

import msgpack


def send(connection, name, data):
    payload = msgpack.packb([name, data])
    connection.sendall(struct.pack("<I", len(payload)) + payload)


def receive(connection):
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack("<I", data[:4])[0]:
        piece = connection.recv(1 << 16)
        if not piece:
            sys.exit(0)
        data += piece
    return msgpack.unpackb(data[4:])


def answer(connection, call, **changes):
    outputs = [{"info": {}, "location": ["memory", b"good"]} for _ in call["outputs"]]
    send(connection, "result", {"task": call["spec"]["id"], "success": True, "outputs": outputs, **changes})


def main():
    evil = sys.argv[1]
    if evil == "exits":
        print("written before the end")
        print("nothing works", file=sys.stderr)
        sys.exit(5)
    connection = socket.socket(socket.AF_UNIX)
    if evil == "never-registers":
        time.sleep(600)
    connection.connect(os.environ["RAIN_EXECUTOR_SOCKET"])
    if evil == "greets-with-garbage":
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
        time.sleep(600)
    registration = {
        "protocol": "msgpack-7" if evil == "another-protocol" else "msgpack-1",
        "executor_id": 12345 if evil == "another-id" else int(os.environ["RAIN_EXECUTOR_ID"]),
        "executor_type": "something-else" if evil == "another-type" else evil,
    }
    send(connection, "register", registration)
    while True:
        _, call = receive(connection)
        if evil == "hangs":
            time.sleep(600)
        elif evil == "dies":
            print("the last words", file=sys.stderr, flush=True)
            os._exit(6)
        elif evil == "another-task":
            session, number = call["spec"]["id"]
            answer(connection, call, task=[session, number + 1])
        elif evil == "garbage":
            connection.sendall(struct.pack("<I", 100) + b"\xc1" * 100)
        elif evil == "huge-frame":
            connection.sendall(struct.pack("<I", 0xFFFFFFFF))
        elif evil == "unknown-message":
            send(connection, "nonsense", {})
        elif evil == "too-few-outputs":
            answer(connection, call, outputs=[])
        elif evil == "path-outside":
            outputs = [{"info": {}, "location": ["path", "/etc/passwd"]} for _ in call["outputs"]]
            answer(connection, call, outputs=outputs)
        elif evil == "fails-without-text":
            answer(connection, call, success=False, info={})
        else:
            answer(connection, call)


if __name__ == "__main__":
    main()
