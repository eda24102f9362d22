"""Decodes mutated messages in a process of its own, so that an abort in native code is seen as what it is.

Called with the number of inputs, the seed and the path of a file that always holds the input being decoded.
"""

from __future__ import annotations

import mmap
import random
import resource
import struct
import sys
from pathlib import Path

from rain.protocol.codec import decode, encode
from rain.protocol.framing import segment_table
from rain.protocol.limits import ProtocolError
from rain.protocol.messages import Heartbeat
from tests.fuzz.fuzzing import BATCH, check_growth, cpu_limit, kept, mutated

MEMORY_LIMIT = 4 << 30
LARGEST = 1 << 20
GROWTH = (1 << 18, 300)
_TRACED_SHARE = 20


def decode_one(data: bytes) -> None:
    """A message, which can be sent again and arrives the same, or a ProtocolError."""
    try:
        message = decode(data)
    except ProtocolError as error:
        check_log_line(str(error))
        return
    sent = encode([message])
    assert encode([decode(sent)]) == sent


def check_log_line(text: str) -> None:
    """It goes into a log as it is."""
    assert text.isprintable(), ascii(text)


def framed(source: random.Random, data: bytes) -> bytes:
    """The spoilt message with a segment table that fits, as the frame reader would hand it on; mostly."""
    if source.random() < 0.2:
        return data
    words = data[8:] + bytes(-len(data) % 8)
    if len(words) > 16 and source.random() < 0.2:
        middle = source.randrange(len(words) // 8) * 8
        return segment_table([middle, len(words) - middle]) + words
    return segment_table([len(words)]) + words


def load_corpus(path: Path) -> list[bytes]:
    """The frames which the parent made, one behind the other with their lengths."""
    data = path.read_bytes()
    frames, position = [], 0
    while position < len(data):
        (size,) = struct.unpack_from("<I", data, position)
        frames.append(data[position + 4 : position + 4 + size])
        position += 4 + size
    return frames


def main(inputs: int, seed: int, corpus_path: Path, current_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    decode_one(encode([Heartbeat()]))  # loads the schema
    corpus = load_corpus(corpus_path)
    entries = [b"", *corpus, *kept("messages")]
    with open(current_path, "w+b") as file:
        file.truncate(LARGEST)
        with mmap.mmap(file.fileno(), LARGEST) as current:
            for entry in entries:
                _run(current, entry, traced=True)
            source = random.Random(seed)
            for _ in range(-(-inputs // BATCH)):
                with cpu_limit():
                    for _ in range(BATCH):
                        entry = mutated(source, source.choice(entries), entries)
                        _run(current, framed(source, entry), traced=source.randrange(_TRACED_SHARE) == 0)
    print("done", inputs)


def _run(current: mmap.mmap, data: bytes, *, traced: bool) -> None:
    data = data[: LARGEST - 4]
    current[: 4 + len(data)] = struct.pack("<I", len(data)) + data
    if traced:
        check_growth(decode_one, data, GROWTH)
    else:
        decode_one(data)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
