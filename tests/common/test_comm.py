import pytest

from rain.common.comm import MAX_FRAME, FrameError, FrameReader, pack_frame
from rain.common.utils import plural, short_str


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100])
def test_frames_survive_any_cut(step):
    payloads = [b"", b"a", b"x" * 300, b"end"]
    stream = b"".join(map(pack_frame, payloads))
    reader = FrameReader()
    found = []
    for start in range(0, len(stream), step):
        found += reader.feed(stream[start : start + step])
    assert found == payloads
    assert reader.pending == 0


def test_too_large():
    with pytest.raises(FrameError, match="exceeds the limit"):
        FrameReader().feed((MAX_FRAME + 1).to_bytes(4, "little"))
    reader = FrameReader(limit=10)
    assert reader.feed(pack_frame(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(FrameError):
        reader.feed(pack_frame(b"x" * 11)[:4])


def test_texts():
    assert plural(1, "task") == "1 task"
    assert plural(0, "task") == "0 tasks"
    assert short_str("x" * 100, 20) == "'xxxxxxx...xxxxxxxx'"
    assert short_str(5) == "5"
