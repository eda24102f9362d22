"""The public executor protocol as the worker writes and reads it."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, strategies as st

from rain.common.comm import MAX_FRAME, FrameError
from rain.common.fs import pack_directory
from rain.worker.core.actions import Run, RunInput
from rain.worker.executor_frames import CallError, check_registration, read_registration
from rain.worker.foreign_codec import ForeignCodec
from rain.worker.foreign_encoding import CBOR, MESSAGE_PACK, Encoding
from tests.worker import mini_cbor

TASK = (3, 20, 2)
OUTPUTS: list[dict[str, Any]] = [
    {"label": "out", "content_type": "text", "user": {"a": [1, {"b": False}]}, "size_hint": 5.0},
    {"data_type": "dir"},
]


class FakeStore:
    """Values by object number, of session 3."""

    def __init__(self, **values: bytes | Path) -> None:
        self.values = {(3, int(name[1:])): value for name, value in values.items()}

    def get(self, key: tuple[int, int]) -> bytes | Path | None:
        return self.values.get(key)

    def size(self, key: tuple[int, int]) -> int:
        value = self.values[key]
        return len(value) if isinstance(value, bytes) else 100_000


class Talk:
    """A codec and the other side of it."""

    def __init__(self, encoding: Encoding, store: FakeStore) -> None:
        self.encoding = encoding
        self.missing: list[tuple[int, int]] = []
        self.codec = ForeignCodec(encoding, store, self.missing.append)

    def heard(self, frames: list[bytes]) -> list[Any]:
        for frame in frames:
            assert struct.unpack("<I", frame[:4]) == (len(frame) - 4,)
        return [self.encoding.unpack(frame[4:]) for frame in frames]

    def call(self, run: Run) -> dict[str, Any]:
        ((name, call),) = self.heard(self.codec.calls([run]))
        assert name == "call"
        return call

    def result(self, **data: Any) -> Any:
        return self.codec.results(self.encoding.pack(["result", {"task": [3, 20], "success": True, **data}]))


@pytest.fixture(params=[MESSAGE_PACK, CBOR], ids=["msgpack-1", "cbor-1"])
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Encoding:
    if importlib.util.find_spec("cbor2") is None:
        monkeypatch.setitem(sys.modules, "cbor2", mini_cbor)
    return request.param


@pytest.fixture
def talk(encoding: Encoding) -> Talk:
    return Talk(encoding, FakeStore(o10=b"small", o11=Path("/store/large"), o12=pack_directory(Path(__file__).parent)))


def run(
    *inputs: RunInput, args: Any = None, outputs: list[Any] | None = None, labels: Any = None, **template: Any
) -> Run:
    data = {"task_type": "x/do", "outputs": OUTPUTS if outputs is None else outputs, **template}
    if labels is not None:
        data["labels"] = labels
    numbers = tuple(range(21, 21 + len(data["outputs"])))
    return Run(TASK, 0, data, None if args is None else msgpack.packb(args), inputs, numbers)


def source(number: int, *, cached: bool = False, spec: Any = None, info: Any = None) -> RunInput:
    def pack(fields: Any) -> bytes | None:
        return None if fields is None else msgpack.packb(fields)

    return RunInput((3, number), pack(spec), pack(info), cached)


def memory(value: bytes = b"v", **info: Any) -> dict[str, Any]:
    return {"location": ["memory", value], "info": info}


# --- registration -----------------------------------------------------------------------------------


def registration(encoding: Encoding, **changes: Any) -> bytes:
    data = {"protocol": encoding.protocol, "executor_id": 4, "executor_type": "x", **changes}
    return encoding.pack(["register", data])


def test_registration(encoding: Encoding) -> None:
    said = read_registration(registration(encoding))
    assert (said.protocol, said.type, said.executor_id) == (encoding.protocol, "x", 4)
    assert said.encoding is encoding
    check_registration(said, "x")


@pytest.mark.parametrize("changes", [{"protocol": "other-1"}, {"executor_type": "y"}, {"protocol": None}])
def test_a_wrong_registration_is_named(encoding: Encoding, changes: dict[str, Any]) -> None:
    with pytest.raises(FrameError) as caught:
        check_registration(read_registration(registration(encoding, **changes)), "x")
    text = str(caught.value)
    for shown in ("'x'", repr(encoding.protocol), encoding.name, *(repr(str(value)) for value in changes.values())):
        assert shown in text


def test_the_protocol_must_name_the_encoding(encoding: Encoding) -> None:
    other = "cbor-1" if encoding is MESSAGE_PACK else "msgpack-1"
    with pytest.raises(FrameError, match=f"by {encoding.name} with protocol '{other}'"):
        check_registration(read_registration(registration(encoding, protocol=other)), "x")


@pytest.mark.parametrize("payload", [b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02"])
def test_all_forms_of_the_first_message_pack_array(payload: bytes) -> None:
    rest = registration(MESSAGE_PACK)[1:]
    assert read_registration(payload + rest).encoding is MESSAGE_PACK


@pytest.mark.parametrize("message", [["register"], ["register", 5], ["hello", {}], 7, [b"register", {}]])
def test_the_first_message_must_be_a_registration(encoding: Encoding, message: Any) -> None:
    with pytest.raises(FrameError):
        read_registration(encoding.pack(message))


def test_cbor_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what to install."""
    monkeypatch.setitem(sys.modules, "cbor2", None)
    payload = mini_cbor.dumps(["register", {"protocol": "cbor-1", "executor_id": 1, "executor_type": "x"}])
    with pytest.raises(FrameError, match=r"CBOR.*'cbor2' is not installed.*rain\[cbor\]"):
        read_registration(payload)


def test_the_registration_is_not_answered(talk: Talk) -> None:
    assert talk.codec.welcome("/values", 65536) == []


# --- calls ------------------------------------------------------------------------------------------


def test_a_call_has_the_fields_of_rain_0_4(talk: Talk) -> None:
    """And no others, whatever the template knows."""
    call = talk.call(
        run(
            source(10, spec={"label": "in", "content_type": "text", "size_hint": 1}, info={"content_type": "text"}),
            source(11, info={"user": {"k": 0}, "debug": "d"}),
            labels=["first", None],
            args={"any": [None, 1.5]},
            resources={"cpus": 3, "memory": 1 << 30, "gpus": 1},
            name="a name",
            user={"u": ""},
            retries=5,
            timeout=3.0,
            priority=7,
            cache=True,
            env={"X": "y"},
        )
    )
    assert call["spec"] == {
        "id": [3, 20],
        "task_type": "x/do",
        "config": {"any": [None, 1.5]},
        "inputs": [{"id": [3, 10], "label": "first"}, {"id": [3, 11]}],
        "outputs": [[3, 21], [3, 22]],
        "resources": {"cpus": 3},
        "name": "a name",
        "user": {"u": ""},
    }
    assert call["inputs"] == [
        {
            "spec": {"id": [3, 10], "label": "in", "content_type": "text", "data_type": "blob"},
            "info": {"size": 5, "content_type": "text"},
            "location": ["memory", b"small"],
            "cache_hint": False,
        },
        {
            "spec": {"id": [3, 11], "data_type": "blob"},
            "info": {"size": 100_000, "user": {"k": 0}, "debug": "d"},
            "location": ["path", "/store/large"],
            "cache_hint": False,
        },
    ]
    first = {"id": [3, 21], "label": "out", "content_type": "text", "data_type": "blob", "user": OUTPUTS[0]["user"]}
    assert call["outputs"] == [
        {"spec": first, "cache_hint": False},
        {"spec": {"id": [3, 22], "data_type": "dir"}, "cache_hint": False},
    ]


def test_an_output_may_have_a_spec_of_its_own(talk: Talk) -> None:
    one = run()
    one.output_specs = (None, msgpack.packb({"label": "mine", "content_type": "json"}))
    first, second = (output["spec"] for output in talk.call(one)["outputs"])
    assert first["label"] == "out"
    assert second == {"id": [3, 22], "label": "mine", "content_type": "json", "data_type": "blob"}


def test_blocks_are_refused(talk: Talk) -> None:
    one = run()
    one.members = 3
    with pytest.raises(CallError, match="runs no blocks"):
        talk.codec.calls([one])


def test_the_smallest_call(talk: Talk) -> None:
    call = talk.call(run(outputs=[]))
    spec = {"id": [3, 20], "task_type": "x/do", "inputs": [], "outputs": [], "resources": {"cpus": 1}}
    assert call == {"spec": spec, "inputs": [], "outputs": []}


def test_the_config_may_be_that_of_the_template(talk: Talk) -> None:
    assert talk.call(run(config={"a": 0}, outputs=[]))["spec"]["config"] == {"a": 0}
    assert talk.call(run(args=False, outputs=[]))["spec"]["config"] is False


def test_directories_in_memory_are_tars_with_the_size_of_their_files(talk: Talk) -> None:
    (item,) = talk.call(run(source(12, spec={"data_type": "dir"}), outputs=[]))["inputs"]
    assert item["spec"]["data_type"] == "dir"
    kind, data = item["location"]
    assert kind == "memory"
    assert 0 < item["info"]["size"] < len(data)


def test_a_cached_input_has_no_value(talk: Talk) -> None:
    cached, gone = talk.call(run(source(10, cached=True), source(99, cached=True), outputs=[]))["inputs"]
    assert cached["location"] == gone["location"] == "cached"
    assert talk.missing == []


def test_a_lost_input(talk: Talk) -> None:
    with pytest.raises(CallError, match="input was lost"):
        talk.codec.calls([run(source(99))])
    assert talk.missing == [(3, 99)]


def test_a_call_that_fits_no_frame(encoding: Encoding) -> None:
    """Many small values."""
    many = {f"o{number}": bytes(65_000) for number in range(10, 10 + MAX_FRAME // 65_000 + 1)}
    talk = Talk(encoding, FakeStore(**many))
    with pytest.raises(CallError, match=f"exceeds the limit of {MAX_FRAME} bytes"):
        talk.codec.calls([run(*(source(number) for number in range(10, 10 + len(many))))])


def test_only_what_it_reported_is_dropped(talk: Talk) -> None:
    talk.call(run(outputs=[]))
    cached = [[3, 10], [3, 11], [4, 12]]
    assert talk.result(cached_objects=cached).cached == [(3, 10), (3, 11), (4, 12)]
    assert talk.codec.drop_cached([(3, 77)]) == []
    dropped = talk.heard(talk.codec.drop_cached([(3, 10), (3, 77)]))
    assert dropped == [["drop_cached", {"objects": [[3, 10]]}]]
    assert talk.codec.drop_cached([(3, 10)]) == []
    assert talk.heard(talk.codec.end_session(3)) == [["drop_cached", {"objects": [[3, 11]]}]]
    assert talk.codec.end_session(3) == []


# --- results ----------------------------------------------------------------------------------------


def test_a_result(talk: Talk) -> None:
    talk.call(run(source(10), source(11)))
    outputs = [
        memory(b"abc", content_type="text-utf8", size=77, user={"k": [0], "_own": 1}, debug="od"),
        {"location": ["path", "/data/tree"], "cache_hint": True},
    ]
    info = {"user": {"n": 1}, "debug": "hello", "duration": 5.0, "start_time": "", "governor": "", "error": None}
    results = talk.result(outputs=outputs, info=info)
    ((number, attempt, start, duration, task_info, values),) = results.rows
    assert (number, attempt) == (20, 2)
    assert start > 1e9
    assert 0 <= duration < 60
    assert msgpack.unpackb(task_info) == {"user": {"n": 1}, "debug": "hello"}
    (value, object_info, size), second = values
    assert (value, size) == (b"abc", None)
    assert msgpack.unpackb(object_info) == {"content_type": "text-utf8", "user": {"k": [0]}, "debug": "od"}
    assert second == ["/data/tree", None, None]
    assert results.cached == []


def test_missing_maps_count_as_empty(talk: Talk) -> None:
    talk.call(run(outputs=[{}]))
    ((*_, info, outputs),) = talk.result(outputs=[{"location": ["other_object", [3, 10]]}]).rows
    assert info is None
    assert outputs == [[10, None, None]]
    talk.call(run(outputs=[]))
    ((*_, info, outputs),) = talk.result().rows
    assert (info, outputs) == (None, [])


@pytest.mark.parametrize(
    "data",
    [
        {"success": False, "info": {"error": 'it\'s "so"', "debug": "d"}},
        {"success": True, "info": {"error": 'it\'s "so"', "debug": "d"}, "outputs": []},
        {"success": True, "info": {"debug": "d"}, "outputs": [memory(error='it\'s "so"')]},
    ],
)
def test_an_error_text_is_taken_as_it_is(talk: Talk, data: dict[str, Any]) -> None:
    talk.call(run(outputs=[{}]))
    ((*_, failure),) = talk.result(**data).rows
    assert failure["message"] == 'it\'s "so"'
    assert (failure["kind"], failure["session"], failure["task"], failure["attempts"]) == ("task", 3, 20, 2)
    assert failure["debug"] == "d"


def test_a_content_type_that_contradicts_the_static_one(talk: Talk) -> None:
    talk.call(run(outputs=[{"content_type": "text"}]))
    ((*_, failure),) = talk.result(outputs=[memory(content_type="pickle")]).rows
    assert "'text'" in failure["message"]
    assert "'pickle'" in failure["message"]


def test_long_texts_are_cut(talk: Talk) -> None:
    talk.call(run(outputs=[]))
    ((*_, info, _),) = talk.result(info={"debug": "x" * (3 << 20)}).rows
    assert 1 << 20 < len(info) < (1 << 20) + 100
    assert msgpack.unpackb(info)["debug"].endswith("(cut at 1 MiB)")


@pytest.mark.parametrize(
    ("data", "defect"),
    [
        ({"task": [3, 21]}, r"a result of task \[3, 21\]; called was task \[3, 20\]"),
        ({"task": [4, 20]}, "called was task"),
        ({"task": "3/20"}, "called was task"),
        ({"task": None}, "called was task"),
        ({"success": 1}, "'success'"),
        ({"success": None}, "'success'"),
        ({"success": False}, "no error text"),
        ({"info": 5}, "'info' of the result is not a map"),
        ({"info": {"error": 5}}, "'error' of an info is not a text"),
        ({"info": {"debug": b"x"}}, "'debug' of an info is not a text"),
        ({"info": {"user": []}}, "'user' of an info is not a map"),
        ({"outputs": {}}, "'outputs' of a result is not an array"),
        ({"outputs": []}, "0 outputs of task 20, which has 1"),
        ({"outputs": [memory(), memory()]}, "2 outputs of task 20, which has 1"),
        ({"outputs": [5]}, "output 0 is not a map"),
        ({"outputs": [{}]}, "location of output 0 is None"),
        ({"outputs": [{"location": "cached"}]}, "location of output 0 is 'cached'"),
        ({"outputs": [{"location": ["memory", "text"]}]}, "kind 'memory' with a value of type 'str'"),
        ({"outputs": [{"location": ["path", b"/x"]}]}, "kind 'path' with a value of type 'bytes'"),
        ({"outputs": [{"location": ["path", "x"]}]}, "the path 'x' of output 0 is not absolute"),
        ({"outputs": [{"location": ["other_object", 10]}]}, "kind 'other_object' with a value of type 'int'"),
        ({"outputs": [{"location": ["other_object", [4, 10]]}]}, "no input of task 20"),
        ({"outputs": [{"location": ["strange", b""]}]}, "kind 'strange'"),
        ({"cached_objects": 5, "outputs": [memory()]}, "'cached_objects' of a result is not an array"),
        ({"cached_objects": [10], "outputs": [memory()]}, "a cached object is not an id"),
    ],
)
def test_defects_are_named(talk: Talk, data: dict[str, Any], defect: str) -> None:
    talk.call(run(outputs=[{}]))
    with pytest.raises(FrameError, match=defect):
        talk.result(**data)


def test_results_without_a_call(talk: Talk) -> None:
    with pytest.raises(FrameError, match="nothing was called"):
        talk.result()
    talk.call(run(outputs=[]))
    talk.result()
    with pytest.raises(FrameError, match="nothing was called"):
        talk.result()


@pytest.mark.parametrize(
    "message", [["call", {}], ["result"], ["result", 5], "result", {"result": {}}, [["result"], {}]]
)
def test_other_messages_are_refused(talk: Talk, message: Any) -> None:
    talk.call(run(outputs=[]))
    with pytest.raises(FrameError):
        talk.codec.results(talk.encoding.pack(message))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x92\xa6result", b"\x9f", b"\x82\x66result", b"\xff" * 20])
def test_garbage_is_refused(talk: Talk, payload: bytes) -> None:
    talk.call(run(outputs=[]))
    with pytest.raises(FrameError):
        talk.codec.results(payload)


def test_nested_garbage_is_refused(talk: Talk) -> None:
    """It does not exhaust the stack."""
    with pytest.raises(FrameError):
        talk.codec.results((b"\x91" if talk.encoding is MESSAGE_PACK else b"\x81") * 1_000_000)


LEAVES = st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
WORDS = st.sampled_from(
    ["error", "user", "debug", "content_type", "info", "location", "memory", "path", "other_object"]
)
ANYTHING = st.recursive(
    LEAVES | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.binary(max_size=1), inner, max_size=3),
    max_leaves=8,
)
FIELDS = {
    "task": st.just([3, 20]) | ANYTHING,
    "success": st.booleans() | ANYTHING,
    "info": ANYTHING,
    "outputs": st.lists(ANYTHING, min_size=1, max_size=1) | ANYTHING,
    "cached_objects": ANYTHING,
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_whatever_an_executor_says_is_a_result_or_malformed(data: dict[str, Any]) -> None:
    """No other error reaches the worker's loop."""
    talk = Talk(MESSAGE_PACK, FakeStore())
    talk.call(run(outputs=[{"content_type": "text"}]))
    try:
        ((number, attempt, *_),) = talk.result(**data).rows
    except FrameError:
        return
    assert (number, attempt) == (20, 2)
