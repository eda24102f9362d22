"""Built-in tasks with files and directories."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import pytest_asyncio

from rain.worker.core.events import RunFailed, RunResult
from tests.worker.builtin_rig import Rig

BIG = b"b" * 200_000
HUGE = b"h" * (3 << 20)


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "f").write_bytes(b"f")
    return root


@pytest.mark.parametrize("task_type", ["buildin/open", "builtin/open", "!open"])
@pytest.mark.parametrize("value", [b"", b"small", BIG, HUGE])
async def test_a_file_is_copied_in(rig: Rig, tmp_path: Path, task_type: str, value: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(value)
    assert await rig.result(task_type, [], config={"path": str(path)}) == [value]
    assert path.read_bytes() == value


@pytest.mark.parametrize("size", [1, 200_000])
async def test_a_directory_is_copied_in(rig: Rig, tree: Path, size: int) -> None:
    (tree / "sub" / "f").write_bytes(b"f" * size)
    (value,) = await rig.result("buildin/open_dir", [], config={"path": str(tree)}, outputs=["dir"])
    assert value == {"sub": None, "sub/empty": None, "sub/f": b"f" * size}
    assert os.access(tree / "sub", os.W_OK)


@pytest.mark.parametrize(
    ("task_type", "path", "output", "text"),
    [
        ("!open", "relative", "blob", "'relative' must be absolute"),
        ("!open", "{tmp}/missing", "blob", "{tmp}/missing' does not exist"),
        ("!open", "{tmp}/tree", "blob", "{tmp}/tree' is a directory"),
        ("!open", "/dev/null", "blob", "'/dev/null' is not a regular file"),
        ("!open", "{tmp}/tree/sub/f", "dir", "{tmp}/tree/sub/f' is a blob"),
        ("buildin/open_dir", "relative", "dir", "'relative' must be absolute"),
        ("buildin/open_dir", "{tmp}/missing", "dir", "{tmp}/missing' does not exist"),
        ("buildin/open_dir", "{tmp}/tree/sub/f", "dir", "{tmp}/tree/sub/f' is not a directory"),
        ("buildin/open_dir", "{tmp}/tree", "blob", "{tmp}/tree' is a directory"),
    ],
)
async def test_paths_that_cannot_be_opened(
    rig: Rig, tree: Path, tmp_path: Path, task_type: str, path: str, output: str, text: str
) -> None:
    failure = await rig.failure(task_type, [], config={"path": path.format(tmp=tmp_path)}, outputs=[output])
    assert text.format(tmp=tmp_path) in failure.message


async def test_the_spec_of_the_output_itself_counts(rig: Rig, tree: Path) -> None:
    rig.start("buildin/open_dir", [], config={"path": str(tree)}, specs=(msgpack.packb({"data_type": "dir"}),))
    assert isinstance(await rig.end(), RunResult)
    rig.start("buildin/open_dir", [], config={"path": str(tree)}, outputs=["dir"], specs=(msgpack.packb({}),))
    end = await rig.end()
    assert isinstance(end, RunFailed)
    assert "declared as a blob" in end.failure.message


@pytest.mark.parametrize("config", [None, {}, {"path": 1}, {"path": ""}, {"path": "/a\0b"}])
async def test_configs_without_a_path(rig: Rig, config: Any) -> None:
    for task_type, inputs, outputs in (
        ("!open", [], ["blob"]),
        ("!export", [rig.blob(10, b"x")], []),
        ("!slice_directory", [rig.directory(11, {})], ["blob"]),
    ):
        failure = await rig.failure(task_type, inputs, config=config, outputs=outputs)
        assert "path" in failure.message
        assert not failure.retriable


@pytest.mark.parametrize("value", [b"small", BIG, HUGE])
async def test_a_blob_is_written(rig: Rig, tmp_path: Path, value: bytes) -> None:
    for target in (tmp_path / "new", tmp_path / "old"):
        (tmp_path / "old").write_bytes(b"old")
        (tmp_path / "link").unlink(missing_ok=True)
        rig.start("buildin/export", [rig.blob(10, value)], config={"path": str(target)}, outputs=[])
        assert isinstance(await rig.end(), RunResult)
        assert target.read_bytes() == value
        with target.open("ab"):
            assert target.stat().st_mode & 0o200


@pytest.mark.parametrize("size", [1, 200_000])
async def test_a_directory_is_written(rig: Rig, tmp_path: Path, size: int) -> None:
    source = rig.directory(10, {"a/f": b"f" * size})
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        rig.start("!export", [source], config={"path": str(tmp_path / name)}, outputs=[])
        assert isinstance(await rig.end(), RunResult)
        (tmp_path / name / "a" / "g").write_bytes((tmp_path / name / "a" / "f").read_bytes())


@pytest.mark.parametrize(
    ("path", "directory", "text"),
    [
        ("relative", False, "'relative' must be absolute"),
        ("{tmp}/tree", False, "{tmp}/tree'"),
        ("{tmp}/missing/x", False, "{tmp}/missing/x'"),
        ("/dev/null", False, "/dev/null'"),
        ("{tmp}/tree", True, "{tmp}/tree'"),
        ("{tmp}/tree/sub/f", True, "{tmp}/tree/sub/f'"),
    ],
)
async def test_paths_that_cannot_be_written(
    rig: Rig, tree: Path, tmp_path: Path, path: str, directory: bool, text: str
) -> None:
    source = rig.directory(10, {"f": b"f"}) if directory else rig.blob(10, b"x")
    before = sorted(os.listdir(tmp_path))
    failure = await rig.failure("!export", [source], config={"path": path.format(tmp=tmp_path)}, outputs=[])
    assert text.format(tmp=tmp_path) in failure.message
    assert sorted(os.listdir(tmp_path)) == before
    assert (tree / "sub" / "f").read_bytes() == b"f"


@pytest.mark.parametrize("value", [b"small", BIG])
async def test_a_directory_is_made(rig: Rig, value: bytes) -> None:
    inputs = [rig.blob(10, value), rig.directory(11, {"x/y": value}), rig.directory(12, {"z": b"z"})]
    config = {"paths": ["a/b/c", "d/", "."]}
    (made,) = await rig.result("!make_directory", inputs, config=config, outputs=["dir"])
    assert made == {
        "a": None, "a/b": None, "a/b/c": value, "d": None, "d/x": None, "d/x/y": value, "z": b"z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["a", "a"], "'a'"),
        (["a", "a/b"], "'a/b'"),
        (["/a", "b"], "'/a' must be relative"),
        (["a", "b/../../c"], "leads upward"),
        (["a", "."], "'.'"),
        (["a"], "exactly 1 input"),
        (["a", 1], "1 is not a path"),
        ("ab", "list of paths"),
    ],
)
async def test_directories_that_cannot_be_made(rig: Rig, paths: Any, text: str) -> None:
    inputs = [rig.blob(10, b"x"), rig.blob(11, b"y")]
    failure = await rig.failure("buildin/make_directory", inputs, config={"paths": paths}, outputs=["dir"])
    assert text in failure.message


@pytest.mark.parametrize("size", [1, 200_000])
async def test_parts_of_a_directory(rig: Rig, size: int) -> None:
    source = rig.directory(10, {"a/b/f": b"f" * size, "a/g": b"g"})
    for path, kind, expected in (
        ("a/b/f", "blob", b"f" * size),
        ("a//./g", "blob", b"g"),
        ("a/b/", "dir", {"f": b"f" * size}),
        ("./", "dir", {"a": None, "a/b": None, "a/b/f": b"f" * size, "a/g": b"g"}),
    ):
        assert await rig.result("buildin/slice_directory", [source], config={"path": path}, outputs=[kind]) == [
            expected
        ]
    failure = await rig.failure("buildin/slice_directory", [source], config={"path": "a/c"})
    assert "'a/c'" in failure.message
    failure = await rig.failure("buildin/slice_directory", [rig.blob(11, b"x")], config={"path": "a"})
    assert "not a directory" in failure.message
