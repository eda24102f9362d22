"""Directories as values, through real processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rain.client import Client, InputDir, LocalCluster, Output, OutputDir, Task, TaskException, blob, remote, tasks
from rain.common import DataType, fs
from tests.cluster.program_tasks import directory_from, program

MB = 1 << 20


@pytest.fixture(params=["small", "large"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with everything a directory can hold."""
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "f").write_bytes(b"f" * (10 if request.param == "small" else 2 * MB))
    (root / "sub" / "run").write_text("#!/bin/sh\necho ran\n")
    (root / "sub" / "run").chmod(0o755)
    (root / "inner").symlink_to("sub/run")
    (tmp_path / "outside").write_text("outside")
    (root / "outer").symlink_to(tmp_path / "outside")
    (root / "dangling").symlink_to("/nothing")
    return root


def content(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def expected(tree: Path) -> dict[str, Any]:
    found = content(tree)
    del found["dangling"]
    found["outer"] = (b"outside", False)
    return found


def kept(task: Task) -> Task:
    task.keep_outputs()
    return task


@remote(outputs=OutputDir("d"))
def copied(ctx: Any, source: Any) -> Any:
    source.write("copy")
    os.chmod("copy", 0o755)
    Path("copy", "new").write_text("new")
    return ctx.stage_directory("copy")


@remote(outputs=[Output("names", encode="json"), OutputDir("same")], inputs={"source": InputDir()})
def looked_at(ctx: Any, source: Any) -> Any:
    source.link("linked")
    names = sorted(os.listdir("linked"))
    assert source.data_type.value == "dir"
    assert len(source.get_bytes()) % 512 == 0
    return names, source


def test_a_directory_goes_everywhere(client: Client, tree: Path, tmp_path: Path) -> None:
    with client.new_session() as session:
        source = kept(directory_from(tree))
        slept = kept(Task("buildin/sleep", 0.0, [source.output], [OutputDir("d")]))
        through = kept(program("chmod +w d; echo new > d/new", inputs={"d": slept.output}, write=("d",),
                               outputs={"d": "dir"}))  # fmt: skip
        function = kept(copied(slept.output))
        looked = kept(looked_at(source.output))
        session.submit()
        session.wait_all(timeout=30)
        same = [source.output, slept.output, looked.outputs["same"]]
        values = session.fetch(same[0]).get_bytes(), *(obj.fetch().get_bytes() for obj in same[1:])
        assert len(set(values)) == 1
        fs.unpack_directory(values[0], tmp_path / "a")
        assert content(tmp_path / "a") == expected(tree)
        size = sum(len(value[0]) for value in expected(tree).values() if isinstance(value, tuple))
        for obj in same:
            value = obj.fetch()
            assert (value.data_type, value.size, obj.size) == (DataType.DIRECTORY, size, size)
        assert looked.outputs["names"].fetch().load() == ["f", "inner", "outer", "sub"]
        for task, text in ((through, b"new\n"), (function, b"new")):
            target = tmp_path / f"from-{task.id.id}"
            task.output.fetch(to=target)
            assert content(target) == {**expected(tree), "new": (text, False)}


def test_made_of_values_and_taken_apart(client: Client, tree: Path, tmp_path: Path) -> None:
    with client.new_session() as session:
        source = directory_from(tree)
        pairs = {"a/b/x": blob("x"), "big": blob(b"b" * MB), "tree": source.output}
        made = kept(Task("buildin/make_directory", {"paths": list(pairs)}, list(pairs.values()), [OutputDir("d")]))
        blob_slice = kept(Task("!slice_directory", {"path": "tree/inner"}, [made.output], [Output("x")]))
        tree_slice = kept(Task("buildin/slice_directory", {"path": "tree/"}, [made.output], [OutputDir("x")]))
        exported = Task("buildin/export", {"path": str(tmp_path / "out")}, [made.output], ())
        empty = kept(Task("buildin/make_directory", {"paths": []}, (), [OutputDir("d")]))
        session.submit()
        session.wait_all(timeout=30)
        assert blob_slice.output.fetch().get_str() == "#!/bin/sh\necho ran\n"
        tree_slice.output.fetch().write(tmp_path / "slice")
        assert content(tmp_path / "slice") == expected(tree)
        assert empty.output.fetch().get_bytes() == fs.empty_directory()
        assert exported.state is not None
    below = {f"tree/{name}": value for name, value in expected(tree).items()}
    assert content(tmp_path / "out") == {
        "a": None, "a/b": None, "a/b/x": (b"x", False), "big": (b"b" * MB, False), "tree": None, **below,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task_type", "config", "output", "text"),
    [
        ("buildin/slice_directory", {"path": "missing"}, Output("x"), "'missing'"),
        ("buildin/slice_directory", {"path": "sub"}, Output("x"), "'sub'"),
        ("buildin/slice_directory", {"path": "f/"}, OutputDir("x"), "'f/'"),
        ("buildin/slice_directory", {"path": "/f"}, Output("x"), "'/f'"),
        ("buildin/slice_directory", {"path": "../f"}, Output("x"), "'../f'"),
        ("buildin/slice_directory", {"path": "f"}, OutputDir("x"), "'f'"),
        ("buildin/make_directory", {"paths": ["/x"]}, OutputDir("x"), "'/x'"),
        ("buildin/make_directory", {"paths": ["x/../../y"]}, OutputDir("x"), "'x/../../y'"),
        ("buildin/make_directory", {"paths": ["x"]}, Output("x"), "directory"),
        ("buildin/sleep", 0.0, Output("x"), "directory"),
        ("buildin/concat", None, Output("x"), "directory"),
    ],
)
def test_refusals(
    client: Client, tmp_path: Path, task_type: str, config: Any, output: Output | OutputDir, text: str
) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "f").touch()
    with client.new_session() as session:
        Task(task_type, config, [directory_from(tmp_path / "d").output], [output])
        session.submit()
        with pytest.raises(TaskException, match="failed") as caught:
            session.wait_all(timeout=20)
    assert text in caught.value.message


def test_directories_move_between_workers(tmp_path: Path, leak_check: None) -> None:
    for number in range(8):
        (tmp_path / str(number) / "empty").mkdir(parents=True)
        (tmp_path / str(number) / "f").write_bytes(bytes([number]) * (3 * MB))
        (tmp_path / str(number) / "s").symlink_to("f")
    with LocalCluster([1, 1], timeout=60) as cluster, cluster.client() as client, client.new_session() as session:
        sources = [program(f"cp -a {tmp_path / str(n)} d", outputs={"d": "dir"}) for n in range(8)]
        counts = [
            kept(
                program(
                    "ls -A a b; cmp a/f a/s; wc -c < b/f",
                    inputs={"a": one.output, "b": other.output},
                    outputs={"+out": "blob"},
                )
            )
            for one, other in zip(sources[:4], sources[4:], strict=True)
        ]
        session.submit()
        for task in counts:
            expected_words = f"a: empty f s b: empty f s {3 * MB}".split()
            assert task.output.fetch().get_str().split() == expected_words


def test_a_constant_directory_of_eleven_megabytes(client: Client, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"f" * (11 * MB))
    with client.new_session() as session:
        source = directory_from(tmp_path / "d")
        task = kept(program("cp -r d out", inputs={"d": source.output}, outputs={"out": "dir"}))
        concat = kept(tasks.concat([blob("x")]))
        session.submit()
        assert concat.output.fetch().get_str() == "x"
        task.output.fetch(to=tmp_path / "back")
    assert (tmp_path / "back" / "f").read_bytes() == b"f" * (11 * MB)
