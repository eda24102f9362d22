"""Programs and directories as users build them, through real processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rain.client import (
    Client,
    Input,
    InputDir,
    Output,
    OutputDir,
    Program,
    TaskException,
    blob,
    directory,
    pickled,
    remote,
    tasks,
)
from rain.common import DataInstance, DataType


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "f").write_text("file")
    (root / "sub" / "run").write_text("#!/bin/sh\necho ran\n")
    (root / "sub" / "run").chmod(0o755)
    (root / "link").symlink_to("sub/run")
    return root


def content(root: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(root)): os.readlink(path)
        if path.is_symlink()
        else path.is_dir() or (path.read_bytes(), os.access(path, os.X_OK))
        for path in root.rglob("*")
    }


def test_inputs_outputs_and_streams(client: Client, tree: Path) -> None:
    with client.new_session() as session:
        run = tasks.Execute(
            ["sh", "-c", 'cat; cat "$0" d/f; echo x >> w; cat w > "$1"; ls d > names', blob("arg"), Output("o")],
            stdout=Output(content_type="text"),
            stdin=blob("in"),
            input_paths=[Input("w", dataobj=blob("w"), write=True), InputDir("d", dataobj=directory(tree))],
            output_paths=["names"],
        )
        run.keep_outputs()
        session.submit()
        stdout, names, out = run.fetch_outputs()
        assert stdout.load() == "inargfile"
        assert names.get_str().split() == ["f", "link", "sub"]
        assert out.get_bytes() == b"wx\n"


def test_shell(client: Client) -> None:
    with client.new_session() as session:
        text = tasks.Execute("echo $A | tr a-z A-Z", shell=True, stdout=True, env={"A": "text"})
        joined = tasks.execute(("echo", "$A", "'one  two'"), shell=True, stdout=True, env={"A": "text"})
        plain = tasks.execute(("echo", "$A"), stdout=True)
        for task in (text, joined, plain):
            task.keep_outputs()
        session.submit()
        values = [task.output.fetch().get_bytes() for task in (text, joined, plain)]
        assert values == [b"TEXT\n", b"text one  two\n", b"$A\n"]


def test_a_program_for_many_inputs(client: Client) -> None:
    grep = Program(("grep", Input("pattern", path="p"), "-f", "p"), stdin="text", stdout="found", name="grep")
    find = Program("grep -f p text", input_paths=[Input("pattern", path="p"), "text"], stdout="found")
    with client.new_session() as session:
        pattern = blob("a")
        found = [find(pattern=pattern, text=blob(text)) for text in ("a\nb\n", "ba\n", "a")]
        for task in found:
            task.keep_outputs()
        session.submit()
        assert [task.output.fetch().get_str() for task in found] == ["a\n", "ba\n", "a\n"]
        assert grep(pattern=pattern, text=pattern).name == "grep"


def test_failures(client: Client) -> None:
    for args, text in (
        ("ls /does/not/exist", "Program exit with exit code 2\nStderr: "),
        (["true", Output("never")], "out_never"),
        ("no-such-program", "No such file"),
    ):
        with client.new_session() as session:
            task = tasks.Execute(args)
            session.submit()
            with pytest.raises(TaskException) as caught:
                task.wait(timeout=20)
            assert text in caught.value.message


def test_directories_come_back(client: Client, tree: Path, tmp_path: Path) -> None:
    with client.new_session() as session:
        constant, empty = directory(tree), directory()
        constant.keep()
        empty.keep()
        copied = tasks.Execute(
            "cp -a in out", input_paths=[InputDir("in", dataobj=constant)], output_paths=[OutputDir("out")]
        )
        copied.keep_outputs()
        session.submit()
        for number, dataobj in enumerate((constant, copied.output)):
            value = dataobj.fetch()
            assert isinstance(value, DataInstance)
            assert (value.data_type, value.content_type) == (DataType.DIRECTORY, None)
            assert value.size == dataobj.size == 4 + len("#!/bin/sh\necho ran\n")
            assert value.get_bytes() == constant.data
            value.write(tmp_path / f"written{number}")
            fetched = dataobj.fetch(to=tmp_path / "new" / f"fetched{number}")
            for path in (tmp_path / f"written{number}", tmp_path / "new" / f"fetched{number}"):
                assert content(path) == content(tree)
            assert fetched.get_bytes() == constant.data
            with pytest.raises(FileExistsError):
                dataobj.fetch(to=tree)
            with pytest.raises(FileExistsError):
                value.write(tree)
        session.update([constant])
        assert constant.size == 4 + len("#!/bin/sh\necho ran\n")
        empty.fetch().write(tmp_path / "empty")
        assert os.listdir(tmp_path / "empty") == []
        assert sorted(os.listdir(tmp_path / "new")) == ["fetched0", "fetched1"]


def test_a_large_directory_is_fetched_to_a_path(client: Client, tmp_path: Path) -> None:
    with client.new_session() as session:
        made = tasks.Execute(
            "mkdir -p d/sub && head -c 3000000 /dev/zero > d/sub/big", shell=True, output_paths=[OutputDir("d")]
        )
        made.keep_outputs()
        session.submit()
        value = made.output.fetch(to=str(tmp_path / "here"))
        assert repr(value) == f"<DataInstance path={str(tmp_path / 'here')!r}>"
        assert (tmp_path / "here" / "sub" / "big").stat().st_size == value.size == 3_000_000
        assert os.listdir(tmp_path) == ["here"]


def test_directories_are_made_and_sliced(client: Client, tree: Path, tmp_path: Path) -> None:
    with client.new_session() as session:
        made = tasks.make_directory([("a/b", blob("b")), ("t", directory(tree))])
        part = tasks.slice_directory(made, "t/sub/")
        text = tasks.SliceDirectory(made, "t/f", Output("f", content_type="text"))
        asleep = tasks.sleep(0, part)
        for task in (made, asleep, text):
            task.keep_outputs()
        session.submit()
        made.output.fetch(to=tmp_path / "made")
        assert content(tmp_path / "made" / "t") == content(tree)
        assert (tmp_path / "made" / "a" / "b").read_text() == "b"
        asleep.output.fetch(to=tmp_path / "part")
        assert content(tmp_path / "part") == content(tree / "sub")
        assert text.output.fetch().load() == "file"


def test_files_and_directories_of_the_machine(client: Client, tree: Path, tmp_path: Path) -> None:
    with client.new_session() as session:
        file, loaded = tasks.open(tree / "f"), tasks.open_dir(tree)
        tasks.export(file, tmp_path / "file")
        tasks.Store(loaded, tmp_path / "stored")
        session.submit()
        session.wait_all(timeout=20)
    assert (tmp_path / "file").read_text() == "file"
    assert content(tmp_path / "stored") == content(tree)


def test_directories_in_python(client: Client, tree: Path, tmp_path: Path) -> None:
    @remote()
    def extended(ctx: Any, source: InputDir(), more: Input(load=True)) -> OutputDir("d"):  # type: ignore[valid-type]
        source.write("copy")
        Path("copy", "more").write_text(more)
        return ctx.stage_directory("copy")

    with client.new_session() as session:
        task = extended(directory(tree), pickled("text"))
        task.keep_outputs()
        session.submit()
        task.output.fetch(to=tmp_path / "result")
        assert (tmp_path / "result" / "more").read_text() == "text"
        assert (tmp_path / "result" / "sub" / "run").stat().st_mode & 0o100
        value = task.result()
        assert value.data_type is DataType.DIRECTORY
        assert session.make_graph().size == 5
        with pytest.raises(TypeError, match="needs a directory"):
            extended(blob("x"), pickled("text"))
