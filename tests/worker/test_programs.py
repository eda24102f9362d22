"""Programs in their sandboxes: inputs, outputs, environment, ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from rain.worker import sandbox as sandbox_module
from rain.worker.core.actions import RunInput
from rain.worker.core.events import BuiltinStopped, RunResult
from rain.worker.programs import Program, Programs
from tests.worker.builtin_rig import Rig

BIG = b"b" * 200_000


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.close()


def shell(command: str, *, inputs: list[tuple[str, bool]] | None = None, outputs: list[str] | None = None) -> dict:
    return {
        "args": command,
        "shell": True,
        "in_paths": [{"path": path, "write": write} for path, write in inputs or []],
        "out_paths": outputs or [],
    }


async def out(rig: Rig, command: str, *inputs: RunInput, paths: list[str] | None = None, **options) -> bytes:
    """The standard output of a shell command."""
    config = shell(command, inputs=[(path, False) for path in paths or []], outputs=["+out"])
    (value,) = await rig.result("buildin/run", list(inputs), config=config, **options)
    return value


@pytest.mark.parametrize("task_type", ["buildin/run", "builtin/run", "!run"])
async def test_a_program_without_anything(rig: Rig, task_type: str) -> None:
    rig.start(task_type, [], config={"args": ["true"]}, outputs=[])
    end = await rig.end()
    assert isinstance(end, RunResult)
    assert end.outputs == []
    assert end.start == 1000.5


async def test_arguments_are_not_interpreted(rig: Rig) -> None:
    config = {"args": ["printf", "%s|", "a b", "$HOME", ""], "out_paths": ["+out"]}
    assert await rig.result("buildin/run", [], config=config) == [b"a b|$HOME||"]


async def test_shell_joins_without_quoting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"args": ["echo", "$RAIN_TASK_ID", "'a", "b'"], "shell": True, "out_paths": ["+out"]}
    assert await rig.result("buildin/run", [], config=config) == [b"1/30 a b\n"]


async def test_standard_input(rig: Rig) -> None:
    assert await out(rig, "cat", rig.blob(10, b"hello"), paths=["+in"]) == b"hello"
    assert await out(rig, "cat", rig.blob(11, BIG), paths=["+in"]) == BIG
    assert await out(rig, "cat; readlink /proc/self/fd/0") == b"/dev/null\n"


async def test_inputs_and_outputs_at_their_paths(rig: Rig) -> None:
    config = shell(
        "cat a/b/small big > both; mkdir -p x/y; echo made > x/y/made; : > empty",
        inputs=[("a/b/small", False), ("./big", False)],
        outputs=["both", "x/y/made", "empty"],
    )
    values = await rig.result(
        "buildin/run", [rig.blob(10, b"small"), rig.blob(11, BIG)], config=config, outputs=["blob"] * 3
    )
    assert values == [b"small" + BIG, b"made\n", b""]


async def test_a_writable_copy_does_not_touch_the_store(rig: Rig) -> None:
    for number, value in ((10, b"small"), (11, BIG)):
        config = shell("printf X >> f", inputs=[("f", True)], outputs=["f"])
        assert await rig.result("buildin/run", [rig.blob(number, value)], config=config) == [value + b"X"]
        assert bytes(rig.store.read((1, number), 0, 1 << 20)) == value


@pytest.mark.parametrize("value", [b"small", BIG])
@pytest.mark.parametrize("linking", [False, True])
async def test_an_unmodified_input_passes_through(
    rig: Rig, value: bytes, linking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "_MAY_LINK", linking)
    config = shell("test -L f && test $LINKS = True; true", inputs=[("f", False)], outputs=["f"])
    run_env = {"LINKS": str(linking)}
    assert await rig.result("buildin/run", [rig.blob(10, value)], config=config, env=run_env) == [value]
    assert bytes(rig.store.read((1, 10), 0, 1 << 20)) == value


async def test_large_inputs_are_linked_where_modes_protect_them(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "_MAY_LINK", True)
    tree = {"sub/big": BIG, "x": b"x"}
    command = "readlink big dir; test -L small || echo no"
    found = await out(
        rig, command, rig.blob(10, BIG), rig.directory(11, tree), rig.blob(12, b"s"), paths=["big", "dir", "small"]
    )
    assert found.decode().splitlines() == [str(rig.store.get((1, 10))), str(rig.store.get((1, 11))), "no"]


@pytest.mark.parametrize("value", [b"small", BIG])
async def test_changing_a_linked_input_in_place_fails(rig: Rig, value: bytes) -> None:
    config = shell("printf X | dd of=f conv=notrunc", inputs=[("f", False)])
    failure = await rig.failure("buildin/run", [rig.blob(10, value)], config=config, outputs=[])
    assert "'f'" in failure.message  # said by Rain for root, by the program for others
    assert bytes(rig.store.read((1, 10), 0, 1 << 20)) == value


@pytest.mark.parametrize("command", ["echo new > n; mv -f n f", "rm -f f; echo new > f"])
async def test_replacing_a_linked_input_is_allowed(rig: Rig, command: str) -> None:
    config = shell(command, inputs=[("f", False)], outputs=["f"])
    assert await rig.result("buildin/run", [rig.blob(10, BIG)], config=config) == [b"new\n"]
    assert bytes(rig.store.read((1, 10), 0, 1 << 20)) == BIG


@pytest.mark.parametrize("size", [3, 200_000])
@pytest.mark.parametrize("command", ["echo X > d/sub/f", "touch d/sub/new", "rm -f d/sub/f"])
async def test_changing_a_linked_directory_fails(rig: Rig, size: int, command: str) -> None:
    tree = rig.directory(10, {"sub/f": b"f" * size})
    config = shell(command, inputs=[("d", False)])
    failure = await rig.failure("buildin/run", [tree], config=config, outputs=[])
    assert "d/sub" in failure.message
    assert rig.files(10) == {"sub": None, "sub/f": b"f" * size}


@pytest.mark.parametrize("size", [3, 200_000])
@pytest.mark.parametrize("linking", [False, True])
async def test_parts_of_a_mapped_directory_are_outputs(
    rig: Rig, size: int, linking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "_MAY_LINK", linking)
    tree = rig.directory(10, {"sub/f": b"f" * size, "sub/empty/x": b""})
    config = shell("true", inputs=[("d", False)], outputs=["d/sub/f", "d/sub", "d"])
    values = await rig.result("buildin/run", [tree], config=config, outputs=["blob", "dir", "dir"])
    below = {"empty": None, "empty/x": b"", "f": b"f" * size}
    assert values == [b"f" * size, below, {"sub": None, **{f"sub/{name}": value for name, value in below.items()}}]
    assert len(rig.files(10)) == 4


async def test_a_writable_directory_and_something_mapped_into_it(rig: Rig) -> None:
    tree = rig.directory(10, {"f": BIG})
    config = shell("rm d/f; cat d/in/more > d/g", inputs=[("d/in/more", False), ("d", True)], outputs=["d"])
    (value,) = await rig.result("buildin/run", [rig.blob(11, b"more"), tree], config=config, outputs=["dir"])
    assert value == {"g": b"more", "in": None, "in/more": b"more"}


async def test_links_in_outputs(rig: Rig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")
    command = (
        "mkdir -p o/sub other; echo in > o/sub/f; ln -s sub/f o/inner; ln -s ../gone o/gone; ln -s nothing o/nothing;"
        f"ln -s {outside} o/outer; echo other > other/f; ln -s ../other/f o/far; ln -s ../other o/fardir;"
        "echo lone > lone; ln -s ../lone o/lone; ln $PWD/o/sub/f hard"
    )
    config = shell(command, outputs=["lone", "o", "other"])
    lone, tree, other = await rig.result("buildin/run", [], config=config, outputs=["blob", "dir", "dir"])
    assert lone == b"lone\n"
    assert other == {"f": b"other\n"}
    assert tree == {
        "sub": None,
        "sub/f": b"in\n",
        "inner": "sub/f",
        "outer": b"outside",
        "far": b"other\n",
        "fardir": None,
        "fardir/f": b"other\n",
        "lone": b"lone\n",
    }


async def test_a_linked_output_is_copied(rig: Rig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(BIG)
    config = shell(f"ln -s {outside} o", outputs=["o"])
    assert await rig.result("buildin/run", [], config=config) == [BIG]
    assert outside.read_bytes() == BIG


async def test_large_trees_become_read_only(rig: Rig) -> None:
    config = shell("mkdir -p o/a/b; head -c 100000 /dev/zero > o/a/b/f; chmod +x o/a/b/f", outputs=["o"])
    run = rig.start("buildin/run", [], config=config, outputs=["dir"])
    end = await rig.end()
    assert isinstance(end, RunResult)
    assert end.outputs == [(100_000, None, None)]
    root = rig.store.get((1, run.outputs[0]))
    assert isinstance(root, Path)
    assert [oct((root / name).stat().st_mode & 0o777) for name in (".", "a", "a/b", "a/b/f")] == ["0o500"] * 4


@pytest.mark.parametrize(
    ("command", "kind", "text"),
    [
        ("true", "blob", "'o'"),
        ("ln -s nothing o", "blob", "'o'"),
        ("mkdir o", "blob", "'o' is a directory"),
        ("touch o", "dir", "'o' is a blob"),
        ("mkfifo o", "blob", "'o' is neither"),
        ("mkdir o; mkfifo o/p", "dir", "o/p' is neither"),
        ("mkdir o; ln -s ../.. o/up", "dir", "contains it"),
    ],
)
async def test_outputs_that_cannot_be_taken(rig: Rig, command: str, kind: str, text: str) -> None:
    failure = await rig.failure("buildin/run", [], config=shell(command, outputs=["o"]), outputs=[kind])
    assert text in failure.message
    assert failure.retriable


async def test_exit_codes_and_signals(rig: Rig) -> None:
    failure = await rig.failure("buildin/run", [], config=shell("echo bad >&2; exit 3"), outputs=[])
    assert failure.message == "Program exit with exit code 3\nStderr: bad\n"
    failure = await rig.failure("buildin/run", [], config=shell("echo bad >&2; kill -9 $$"), outputs=[])
    assert failure.message == "Program terminated by signal 9\nStderr: bad\n"
    assert failure.retriable


async def test_a_program_that_is_not_there(rig: Rig) -> None:
    failure = await rig.failure("buildin/run", [], config={"args": ["no-such-program"]}, outputs=[])
    assert failure.message == "[Errno 2] No such file or directory: 'no-such-program'"


async def test_programs_are_found_by_the_path_of_the_task(rig: Rig, tmp_path: Path) -> None:
    for name, mode in (("here", 0o755), ("denied", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\necho found\n")
        (tmp_path / name).chmod(mode)
    env = {"PATH": f"/nowhere:{tmp_path}"}
    config = {"args": ["here"], "out_paths": ["+out"]}
    assert await rig.result("buildin/run", [], config=config, env=env) == [b"found\n"]
    failure = await rig.failure("buildin/run", [], config=config)
    assert failure.message == "[Errno 2] No such file or directory: 'here'"
    failure = await rig.failure("buildin/run", [], config={"args": ["denied"]}, outputs=[], env=env)
    assert failure.message == "[Errno 13] Permission denied: 'denied'"
    mapped = {"args": ["ls"], "in_paths": [{"path": "ls", "write": True}]}
    failure = await rig.failure(
        "buildin/run", [rig.blob(10, b"x")], config=mapped, outputs=[], env={"PATH": "/nowhere"}
    )
    assert failure.message == "[Errno 2] No such file or directory: 'ls'"


async def test_read_only_leftovers_are_removed(rig: Rig) -> None:
    command = "mkdir -p a/b/c d; touch a/b/c/f d/f; chmod 500 a/b/c a/b a; chmod 0 d; chmod 500 ."
    rig.start("buildin/run", [], config=shell(command), outputs=[])
    assert isinstance(await rig.end(), RunResult)


async def test_much_error_output_is_cut(rig: Rig) -> None:
    command = "head -c 300000000 /dev/zero | tr '\\0' a >&2; echo end >&2; exit 1"
    failure = await rig.failure("buildin/run", [], config=shell(command), outputs=[])
    first, second, text = failure.message.split("\n", 2)
    assert first == "Program exit with exit code 1"
    assert second == "Stderr: (cut: these are the last 65,536 of 300,000,004 bytes)"
    assert text == "a" * (65536 - 4) + "end\n"


async def test_environment(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAIN_TOKEN", "secret")
    monkeypatch.setenv("RAIN_TOKEN_FILE", "/secret")
    monkeypatch.setenv("RAIN_OWNER_FD", "3")
    monkeypatch.setenv("FROM_WORKER", "1")
    monkeypatch.setenv("REMOVED", "1")
    (tmp_path / "second").mkdir()
    fresh = Rig(tmp_path / "second")
    lines = await out(
        fresh,
        "pwd; env; ls -A; ulimit -c 0",
        env={"MINE": "a b", "REMOVED": None},
        resources={"cpus": 2, "gpus": 2},
        gpus=(1, 3),
    )
    await fresh.close()
    directory, *found = lines.decode().splitlines()
    assert Path(directory).parent == tmp_path / "second" / "tmp"
    assert Path(directory).name.startswith("1-30.")
    assert found[-2:] == ["+err", "+out"]
    variables = dict(line.split("=", 1) for line in found[:-2])
    assert variables.keys().isdisjoint({"RAIN_TOKEN", "RAIN_TOKEN_FILE", "RAIN_OWNER_FD", "REMOVED"})
    expected = {
        "FROM_WORKER": "1",
        "MINE": "a b",
        "RAIN_TASK_ID": "1/30",
        "RAIN_TASK_CPUS": "2",
        "RAIN_TASK_RUN": "1",
        "RAIN_TASK_GPUS": "1,3",
        "CUDA_VISIBLE_DEVICES": "1,3",
    }
    assert {name: variables[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (None, "config"),
        ({"args": []}, "args"),
        ({"args": "ls -l"}, "args"),
        ({"args": ["ls", 1]}, "args"),
        ({"args": ["ls", "\0"], "out_paths": ["o"]}, "null"),
        ({"args": ["ls"], "out_paths": ["/tmp/x"]}, "'/tmp/x' must be relative"),
        ({"args": ["ls"], "out_paths": ["a/../../x"]}, "leads upward"),
        ({"args": ["ls"], "out_paths": ["+in"]}, "reserved"),
        ({"args": ["ls"], "out_paths": ["a", "a"]}, "1 outputs"),
        ({"args": ["ls"], "out_paths": ["a"], "in_paths": [{"path": "x"}]}, "exactly 1 input"),
    ],
)
async def test_malformed_configs(rig: Rig, config: object, text: str) -> None:
    failure = await rig.failure("buildin/run", [], config=config, outputs=["blob"])
    assert text in failure.message
    assert not failure.retriable


async def gone(group: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        members = [
            entry
            for entry in os.listdir("/proc")
            if entry.isdigit() and (fields := stat_of(entry)) and int(fields[2]) == group and fields[0] not in "ZX"
        ]
        if not members:
            return
        assert time.monotonic() < deadline, members
        await asyncio.sleep(0.01)


def stat_of(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


async def pid_of_running(rig: Rig, mark: Path) -> int:
    """Wait until the program made its mark; its process id."""
    deadline = time.monotonic() + 10
    while mark.name not in os.listdir(mark.parent):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    ((_, pid, _),) = rig.builtins.watched()
    return pid


MEMORY = {"resources": {"memory": 1 << 30}}


async def test_stopping_at_once_kills_the_group(rig: Rig, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run = rig.start("buildin/run", [], config=shell(f"sleep 100 & touch {mark}; sleep 100"), outputs=[], **MEMORY)
    pid = await pid_of_running(rig, mark)
    assert list(rig.builtins.watched()) == [(run.key, pid, 1 << 30)]
    rig.builtins.stop(run.key)
    await gone(pid)
    assert rig.events == []


async def test_grace_is_for_the_whole_group(rig: Rig, tmp_path: Path) -> None:
    mark, cleaned = tmp_path / "mark", tmp_path / "cleaned"
    child = f"trap 'sleep 0.1; touch {cleaned}; exit' TERM; touch {mark}; while :; do sleep 0.01; done"
    run = rig.start("buildin/run", [], config=shell(f"({child}) & wait"), outputs=[], **MEMORY)
    await pid_of_running(rig, mark)
    rig.builtins.stop(run.key, 30.0)
    deadline = time.monotonic() + 10
    while not rig.events:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert cleaned.exists()


async def test_stopping_with_grace_lets_it_clean_up(rig: Rig, tmp_path: Path) -> None:
    mark, cleaned = tmp_path / "mark", tmp_path / "cleaned"
    command = f"trap 'touch {cleaned}; exit 1' TERM; touch {mark}; while :; do sleep 0.01; done"
    run = rig.start("buildin/run", [], config=shell(command), outputs=[], **MEMORY)
    pid = await pid_of_running(rig, mark)
    rig.builtins.stop(run.key, 30.0)
    await gone(pid)
    await rig.builtins.programs.close()
    assert rig.events == [BuiltinStopped(run.key)]
    assert cleaned.exists()


@pytest.mark.parametrize("how", ["grace is over", "stopped at once"])
async def test_who_does_not_listen_is_killed(rig: Rig, tmp_path: Path, how: str) -> None:
    mark = tmp_path / "mark"
    command = f"trap '' TERM; touch {mark}; while :; do sleep 0.01; done"
    run = rig.start("buildin/run", [], config=shell(command), outputs=[], **MEMORY)
    pid = await pid_of_running(rig, mark)
    if how == "grace is over":
        rig.builtins.stop(run.key, 0.05)
        await gone(pid)
        await rig.builtins.programs.close()
        assert rig.events == [BuiltinStopped(run.key)]
    else:
        rig.builtins.stop(run.key, 100.0)
        assert stat_of(str(pid))
        rig.builtins.stop(run.key)
        await gone(pid)
        assert rig.events == []


async def test_what_a_program_leaves_running_is_killed(rig: Rig) -> None:
    pid = int(await out(rig, "sleep 100 & echo $!"))
    deadline = time.monotonic() + 10
    while (fields := stat_of(str(pid))) and fields[0] not in "ZX":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_stopped_while_inputs_and_outputs_are_on_their_way(rig: Rig) -> None:
    tree = rig.directory(10, {"f": BIG})
    run = rig.start("buildin/run", [tree], config=shell("true", inputs=[("d", True)], outputs=["d"]), outputs=["dir"])
    rig.builtins.stop(run.key, 1.0)
    assert rig.events == [BuiltinStopped(run.key)]
    await rig.builtins.close()
    await asyncio.to_thread(rig.threads.submit(int).result)
    await asyncio.sleep(0.05)


async def test_signals_reach_programs_unblocked(rig: Rig) -> None:
    assert b"PIPE" not in await out(rig, "trap")
    failure = await rig.failure("buildin/run", [], config=shell("kill -PIPE $$; sleep 5"), outputs=[])
    assert f"signal {signal.SIGPIPE.value}" in failure.message


async def test_each_program_finds_an_empty_directory_of_its_own(rig: Rig) -> None:
    found = [await out(rig, "pwd; ls -A; wc -c < +out; touch x; mkdir d; echo >&2") for _ in range(3)]
    found += [await out(rig, "pwd; ls -A; wc -c < +err") for _ in range(10)]
    directories = []
    for text in found:
        directory, *names, size = text.decode().splitlines()
        directories.append(directory)
        assert names == ["+err", "+out"]
        assert size == (str(len(directory) + 1 + len("+err\n+out\n")) if len(directories) <= 3 else "0")
    assert [Path(directory).name.split(".")[0] for directory in directories] == [
        f"1-{task}" for task in range(30, 160, 10)
    ]
    assert len(set(directories)) == len(directories)


async def test_directories_are_used_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # as if nobody else got process ids
    monkeypatch.setattr(Programs, "sequence", property(lambda _: 1, lambda _, value: None), raising=False)
    inodes = [await out(rig, "stat -c %i .; ls -A") for _ in range(6)]
    assert len(set(inodes)) == 2
    assert len(os.listdir(rig.sandboxes)) == 2
    async with asyncio.timeout(20):
        while os.listdir(rig.sandboxes):  # noqa: ASYNC110 - there is nothing that tells
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "command",
    ["chmod 644 +out", "ln +err $OTHER", "rm +out; ln -s $OTHER +out", "echo; echo >&2", "rm +err; mkdir +err"],
)
async def test_changed_streams_are_not_used_again(
    rig: Rig, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Programs, "sequence", property(lambda _: 1, lambda _, value: None), raising=False)
    await rig.result("buildin/run", [], config=shell(command), outputs=[], env={"OTHER": str(tmp_path / "other")})
    for _ in range(3):
        assert await out(rig, "stat -c '%a %h %s %F' +out +err") == b"600 1 0 regular empty file\n" * 2


async def test_who_left_the_group_is_not_in_a_later_directory(rig: Rig, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    daemon = f"touch {mark}.begin; while ! test -e {mark}; do sleep 0.01; done; touch found; touch {mark}.end"
    command = f"setsid sh -c '{daemon}' >&- 2>&- & while ! test -e {mark}.begin; do sleep 0.01; done"
    await rig.result("buildin/run", [], config=shell(command), outputs=[])
    for _ in range(3):
        rig.start("buildin/run", [], config={"args": ["true"]}, outputs=[])
        assert isinstance(await rig.end(), RunResult)
    command = f"touch {mark}; while ! test -e {mark}.end; do sleep 0.01; done; ls -A"
    assert await out(rig, command) == b"+err\n+out\n"


async def test_a_sequence_of_programs_is_one_of_process_ids(rig: Rig) -> None:
    programs, ends = rig.builtins.programs, []

    def start(command: str) -> Program:
        return programs.start(
            (1, 1, 1), ["sh", "-c", command], programs.environment({}), str(tmp), stdin=os.devnull, stdout=os.devnull,
            stderr=os.devnull, memory_limit=None, ended=ends.append,
        )  # fmt: skip

    tmp = rig.sandboxes
    started = [start("exit") for _ in range(20)]
    for first, second in pairwise(started):
        assert (second.sequence == first.sequence) == (second.pid == first.pid + 1)
    forking = start("(exit); exit")
    async with asyncio.timeout(20):
        while len(ends) < 21:  # noqa: ASYNC110 - counted is enough
            await asyncio.sleep(0.01)
    assert start("exit").sequence > forking.sequence
    await programs.close()
