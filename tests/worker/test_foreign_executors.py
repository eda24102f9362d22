"""The executor pool with real processes that speak the public protocol."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from rain.common.fs import pack_directory, unpack_directory
from rain.worker.core.actions import Run, RunInput
from rain.worker.core.events import ExecutorLost, RunFailed, RunKept, RunResult, RunsEnded, RunSkipped, StoreFailed
from tests.worker import mini_cbor
from tests.worker.test_executors import Rig, no_leaks, script

SPEAKER = """
import os, select, socket, struct, sys, time
import msgpack as encoding
protocol, kind = "msgpack-1", "x"
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["RAIN_EXECUTOR_SOCKET"])
def send(name, data):
    payload = encoding.dumps([name, data])
    s.sendall(struct.pack("<I", len(payload)) + payload)
def receive():
    (length,) = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))
    return encoding.loads(s.recv(length, socket.MSG_WAITALL))
def call():
    name, data = receive()
    assert name == "call", name
    return data
def register(**changes):
    number = int(os.environ["RAIN_EXECUTOR_ID"])
    send("register", {"protocol": protocol, "executor_id": number, "executor_type": kind, **changes})
def answer(data, *locations, **fields):
    send("result", {"task": data["spec"]["id"], "success": True,
                    "outputs": [{"location": location} for location in locations], **fields})
def path(name):
    return os.path.join(os.getcwd(), name)
def write(name, data):
    with open(name, "wb") as file:
        file.write(data)
    return ["path", path(name)]
"""
BLOB: dict[str, Any] = {}
DIRECTORY = {"data_type": "dir"}
LARGE = 200_000

Make = Callable[..., Rig]


@pytest.fixture
async def speaking(tmp_path: Path) -> Iterator[Make]:
    """Makes pools whose executors of one type, by default `x`, are a script."""
    with no_leaks():
        rigs: list[Rig] = []

        def make(text: str, kind: str = "x", **options: Any) -> Rig:
            commands = {kind: script(tmp_path, f"{SPEAKER}\nkind = {kind!r}\n{text}\ntime.sleep(100)")}
            rigs.append(Rig(tmp_path, commands=commands, **options))
            return rigs[-1]

        yield make
        for rig in rigs:
            await rig.pool.close()
            assert rig.work_directories == []
            rig.store.close()
            assert rig.events == []


def run(number: int, *inputs: int, outputs: tuple[Any, ...] = (BLOB,), spec: Any = None, config: Any = None) -> Run:
    """Its outputs have the ids number * 10 and so on."""
    packed = None if spec is None else msgpack.packb(spec)
    return Run(
        (1, number, 1),
        0,
        {"task_type": "x/do", "outputs": outputs},
        msgpack.packb(config),
        tuple(RunInput((1, source), packed, None, False) for source in inputs),
        tuple(range(number * 10, number * 10 + len(outputs))),
    )


async def outcome(rig: Rig, one: Run) -> Any:
    """The result of a run by executor 1, which is ready."""
    rig.pool.call(1, [one])
    ended = await rig.event(RunsEnded)
    (result,) = ended.results
    assert result.key == one.key
    return result


async def test_values_come_and_go(speaking: Make) -> None:
    """In memory and in files; the worker takes files away and stores them read-only."""
    rig = speaking("""
register()
data = call()
kinds = [item["location"][0] for item in data["inputs"]]
values = [item["location"][1] for item in data["inputs"]]
content = open(values[1], "rb").read()
answer(data, ["memory", repr(kinds).encode()], write("large", content), ["memory", content], write("small", values[0]),
       ["other_object", [1, 6]], info={"user": {"k": 1}})
data = call()
answer(data, ["memory", repr(os.listdir()).encode()])
""")
    await rig.ready(kind="x")
    rig.store.put((1, 5), b"little")
    rig.store.put((1, 6), bytes(LARGE))
    result = await outcome(rig, run(2, 5, 6, outputs=(BLOB,) * 5))
    assert isinstance(result, RunResult)
    assert msgpack.unpackb(result.info) == {"user": {"k": 1}}
    assert [size for size, _, _ in result.outputs] == [18, LARGE, LARGE, 6, LARGE]
    assert [value for _, _, value in result.outputs] == [b"['memory', 'path']", None, None, b"little", None]
    for number in (21, 22, 24):
        value = rig.store.get((1, number))
        assert isinstance(value, Path)
        assert value.read_bytes() == bytes(LARGE)
    listed = (await outcome(rig, run(3))).outputs[0][2]
    assert b"large" not in listed
    assert b"small" not in listed


async def test_directories(speaking: Make, tmp_path: Path) -> None:
    """Trees by path, small ones as tar; what comes back is stored the same way."""
    rig = speaking("""
import io, tarfile
register()
data = call()
assert data["inputs"][0]["location"][0] == "memory"
os.mkdir("tree")
tarfile.open(fileobj=io.BytesIO(data["inputs"][0]["location"][1])).extractall("tree", filter="data")
write("tree/more", bytes(200_000))
answer(data, ["path", path("tree")], ["memory", data["inputs"][0]["location"][1]], ["other_object", [1, 5]])
data = call()
kind, place = data["inputs"][0]["location"]
answer(data, ["memory", f"{kind} {sorted(os.listdir(place))} {data['inputs'][0]['info']['size']}".encode()])
""")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"content")
    packed = pack_directory(source)
    rig.store.put((1, 5), packed)
    await rig.ready(kind="x")
    result = await outcome(rig, run(2, 5, outputs=(DIRECTORY,) * 3, spec=DIRECTORY))
    assert isinstance(result, RunResult), result
    assert result.outputs == [(200_007, None, None), (7, None, packed), (7, None, packed)]
    tree = rig.store.get((1, 20))
    assert isinstance(tree, Path)
    assert (tree / "sub" / "file").read_bytes() == b"content"
    seen = (await outcome(rig, run(3, 20, spec=DIRECTORY))).outputs[0][2]
    assert seen == b"path ['more', 'sub'] 200007"
    unpack_directory(packed, tmp_path / "again")


@pytest.mark.parametrize(
    ("location", "spec", "text"),
    [
        ("write('file', b'x')", DIRECTORY, "file is a file, but a directory is declared"),
        ("(os.mkdir('tree'), ['path', path('tree')])[1]", BLOB, "tree is a directory, but a blob is declared"),
        ("(os.symlink('/etc', 'link'), ['path', path('link')])[1]", DIRECTORY, "link is a symbolic link"),
        ("['memory', b'no tar' * 100]", DIRECTORY, "directory"),
        ("['other_object', [1, 5]]", DIRECTORY, "a blob, but a directory is declared"),
        ("['path', path('nothing')]", BLOB, "nothing"),
        ("['path', path('socket')]", BLOB, "socket"),
    ],
)
async def test_values_that_cannot_be_stored(speaking: Make, location: str, spec: Any, text: str) -> None:
    """The task fails, the executor goes on, and nothing of the result stays."""
    rig = speaking(f"""
register()
data = call()
answer(data, ["memory", b"good"], {location})
data = call()
answer(data, ["memory", b"next"])
""")
    await rig.ready(kind="x")
    rig.store.put((1, 5), b"value")
    result = await outcome(rig, run(2, 5, outputs=(BLOB, spec)))
    assert isinstance(result, RunFailed)
    assert text in result.failure.message
    assert rig.store.get((1, 20)) is None
    assert (await outcome(rig, run(3))).outputs[0][2] == b"next"


@pytest.mark.parametrize(
    ("reply", "defect"),
    [
        ("answer(data, ['path', '/etc/passwd'])", "/etc/passwd' is outside"),
        ("answer(data, ['path', path('../x')])", "outside"),
        ("(os.symlink('/etc', 'etc'), answer(data, ['path', path('etc/passwd')]))", "outside"),
        ("answer(data, ['path', os.getcwd()])", "outside"),
        ("answer(data, ['other_object', [1, 99]])", "object 99, which is no input of task 2"),
        ("answer(data)", "0 outputs of task 2, which has 1"),
        ("answer(data, ['memory', b''], task=[1, 3])", "a result of task [1, 3]; called was task [1, 2]"),
        ("send('results', [])", "unknown message 'results'"),
        ("s.sendall(struct.pack('<I', 3) + b'\\xc1' * 3)", "not MessagePack"),
        ("s.sendall(struct.pack('<I', (128 << 20) + 1))", "exceeds the limit"),
    ],
)
async def test_malformed_results_blame_the_task(speaking: Make, reply: str, defect: str) -> None:
    """And the process is killed."""
    rig = speaking(f"register()\ndata = call()\n{reply}")
    await rig.ready(kind="x")
    rig.pool.call(1, [run(2)])
    lost = await rig.event(ExecutorLost)
    assert lost.running == (1, 2, 1)
    assert lost.failure.message.startswith("Malformed message from the executor: ")
    assert defect in lost.failure.message


async def test_talking_without_being_asked(speaking: Make) -> None:
    rig = speaking("register()\nsend('result', {'task': [1, 2], 'success': True})")
    await rig.ready(kind="x")
    lost = await rig.event(ExecutorLost)
    assert lost.running is None
    assert "nothing was called" in lost.failure.message


async def test_another_id_is_only_logged(speaking: Make, caplog: pytest.LogCaptureFixture) -> None:
    rig = speaking("register(executor_id='strange')\nanswer(call(), ['memory', b'good'])")
    with caplog.at_level(logging.WARNING):
        await rig.ready(kind="x")
    assert "registered with the id 'strange'" in caplog.text
    assert (await outcome(rig, run(2))).outputs[0][2] == b"good"


async def test_errors(speaking: Make) -> None:
    rig = speaking("""
register()
answer(call(), success=False, info={"error": "it is 'so'", "debug": "d"})
answer(call(), ["memory", b"good"])
""")
    await rig.ready(kind="x")
    failed = await outcome(rig, run(2))
    assert isinstance(failed, RunFailed)
    assert (failed.failure.message, failed.failure.debug) == ("it is 'so'", "d")
    assert failed.start > 0
    assert isinstance(await outcome(rig, run(3)), RunResult)


async def test_a_lost_input_fails_the_run_and_nothing_is_sent(speaking: Make) -> None:
    rig = speaking("register()\nanswer(call(), ['memory', b'good'])")
    await rig.ready(kind="x")
    rig.pool.call(1, [run(2, 9)])
    assert (await rig.event(StoreFailed)).object == (1, 9)
    (failed,) = (await rig.event(RunsEnded)).results
    assert "input was lost" in failed.failure.message
    assert isinstance(await outcome(rig, run(3)), RunResult)


async def test_cached_objects(speaking: Make) -> None:
    """What it reported is given as cached, and it is told when it is removed."""
    rig = speaking("""
register()
answer(call(), ["memory", b""], cached_objects=[[1, 5]])
data = call()
answer(data, ["memory", data["inputs"][0]["location"].encode()])
name, data = receive()
answer(call(), ["memory", f"{name} {data}".encode()])
name, data = receive()
""")
    await rig.ready(kind="x")
    rig.store.put((1, 5), b"value")
    rig.pool.call(1, [run(2, 5)])
    assert (await rig.event(RunsEnded)).cached == [(1, 5)]
    again = run(3, 5)
    again.inputs[0].cached = True
    assert (await outcome(rig, again)).outputs[0][2] == b"cached"
    rig.pool.drop_cached(1, [(1, 5), (1, 6)])
    assert (await outcome(rig, run(4))).outputs[0][2] == b"drop_cached {'objects': [[1, 5]]}"


async def test_one_call_at_a_time(speaking: Make) -> None:
    """Also where the worker hands over a batch: an overridden `py`."""
    text = """
register()
while True:
    data = call()
    more, _, _ = select.select([s], [], [], 0.01)
    answer(data, ["memory", b"early" if more else b"alone"])
"""
    rig = speaking(text, kind="py")
    await rig.ready(kind="py")
    rig.pool.call(1, [run(number) for number in (2, 3)])
    rig.pool.call(1, [run(number) for number in (4, 5)])
    results = await rig.results(4)
    assert [result.key[1] for result in results] == [2, 3, 4, 5]
    assert [result.outputs[0][2] for result in results] == [b"alone"] * 4


async def test_who_was_running_when_it_died(speaking: Make) -> None:
    """The call that was under way; those which were not sent yet are innocent."""
    rig = speaking("register()\nanswer(call(), ['memory', b''])\ncall()\nprint('last words')\nsys.exit(9)", kind="py")
    await rig.ready(kind="py")
    rig.pool.call(1, [run(number) for number in (2, 3, 4)])
    assert (await rig.event(RunsEnded)).results[0].key == (1, 2, 1)
    lost = await rig.event(ExecutorLost)
    assert lost.running == (1, 3, 1)
    assert lost.failure.message.startswith("Lost connection to executor\nExecutor terminated with exit code 9\n")
    assert "last words" in lost.failure.message


async def test_a_forbidden_run_is_never_sent(speaking: Make) -> None:
    """The executor ends when it would be its turn, and nobody is to blame."""
    rig = speaking("""
register()
data = call()
while not os.path.exists("go"):
    time.sleep(0.01)
answer(data, ["memory", b"first"])
write("seen", encoding.dumps(receive()))
""", kind="py")  # fmt: skip
    await rig.ready(kind="py")
    rig.pool.call(1, [run(2), run(3), run(4)])
    rig.pool.forbid(1, (1, 3, 1))
    rig.pool.forbid(1, (1, 2, 1))
    assert (await rig.event(RunKept)).key == (1, 3, 1)
    (directory,) = (rig.root / "work/executors/work").iterdir()
    (directory / "go").touch()
    assert (await rig.event(RunsEnded)).results[0].key == (1, 2, 1)
    lost = await rig.event(ExecutorLost)
    assert lost.running is None


async def test_cbor(speaking: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same talk in the other encoding."""
    if importlib.util.find_spec("cbor2") is None:
        monkeypatch.setitem(sys.modules, "cbor2", mini_cbor)
    rig = speaking(f"""
sys.path.insert(0, {str(Path(mini_cbor.__file__).parent)!r})
import mini_cbor as encoding
protocol = "cbor-1"
register()
data = call()
answer(data, ["memory", data["inputs"][0]["location"][1] * 2], ["memory", repr(data["spec"]["config"]).encode()])
answer(call(), success=False, info={{"error": "no"}})
""")
    await rig.ready(kind="x")
    rig.store.put((1, 5), b"value")
    result = await outcome(rig, run(2, 5, outputs=(BLOB, BLOB), config={"a": [1.5, None, True, -7]}))
    assert [value for _, _, value in result.outputs] == [b"valuevalue", b"{'a': [1.5, None, True, -7]}"]
    assert (await outcome(rig, run(3))).failure.message == "no"


async def test_cbor_without_its_library(speaking: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbor2", None)
    rig = speaking(f"""
sys.path.insert(0, {str(Path(mini_cbor.__file__).parent)!r})
import mini_cbor as encoding
protocol = "cbor-1"
register()
""")
    rig.pool.start(1, "x", ())
    message = (await rig.event(ExecutorLost)).failure.message
    assert message.startswith("Registration of the executor refused: ")
    assert "'cbor2' is not installed" in message
    assert "rain[cbor]" in message


async def test_registration_with_another_type_or_protocol(speaking: Make) -> None:
    rig = speaking("register(executor_type='y', protocol='msgpack-2')")
    rig.pool.start(1, "x", ())
    message = (await rig.event(ExecutorLost)).failure.message
    for shown in ("'y'", "'x'", "'msgpack-2'", "'msgpack-1'"):
        assert shown in message


async def test_a_connection_closed_early(speaking: Make) -> None:
    """Without registration or within a task: the process is useless, and is ended."""
    rig = speaking("s.close()")
    rig.pool.start(1, "x", ())
    assert (await rig.event(ExecutorLost)).failure.message.startswith("Executor unexpectedly terminated with signal 9")


async def test_a_run_whose_input_was_not_made_is_skipped(speaking: Make) -> None:
    """Also by an executor that gets its calls one at a time: the value of the run before is in the store, or is not."""
    rig = speaking("""
register()
for _ in range(2):
    data = call()
    if data["spec"]["id"][1] == 2:
        send("result", {"task": data["spec"]["id"], "success": False, "info": {"error": "no"}})
    else:
        answer(data, ["memory", b"value"])
""")
    await rig.ready(kind="x")
    runs = [run(1), run(2, 10), run(3, 20)]
    for one in runs[1:]:
        one.inputs[0].live = True
    rig.pool.call(1, runs)
    ends: list[Any] = []
    while len(ends) < len(runs):
        ends += (await rig.event(RunsEnded)).results
    assert [type(end) for end in ends] == [RunResult, RunFailed, RunSkipped]
