"""A small C project compiled on the cluster: one task per source file, one that links, one that runs the program.

The project goes to the workers as one directory object, so they need no common file system; they need a C compiler.

    python examples/compile.py                       the project in examples/compile, embedded cluster
    python examples/compile.py --server HOST:PORT    on a running cluster
    python examples/compile.py --out DIR             keep the program: DIR/stats
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rain.client import Client, Input, InputDir, Output, OutputDir, TaskException, blob, directory, tasks

PROJECT = Path(__file__).resolve().parent / "compile"
DATA = "\n".join(str(number * number) for number in range(1, 101))


def compile_sources(project: Any, sources: list[str], compiler: str) -> list[Any]:
    """One task per source file; its output is the object file."""
    return [
        tasks.Execute(
            [compiler, "-O2", "-Wall", "-Iproject/include", "-c", f"project/{source}", "-o", Output(Path(source).stem)],
            input_paths=[InputDir("project", dataobj=project)],
            name=f"compile/{source}",
        )
        for source in sources
    ]


def link(objects: list[Any], compiler: str) -> Any:
    """The program, in a directory: files in directories keep their executable bit, blobs have none."""
    inputs = [Input(f"{task.output.label}.o", dataobj=task) for task in objects]
    return tasks.Execute(
        ["mkdir bin &&", compiler, *inputs, "-lm -o bin/stats"],
        output_paths=[OutputDir("bin")],
        shell=True,
        name="link",
    )


def main() -> int:
    """Read the command line, build, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="?", type=Path, default=PROJECT, help="directory with include/ and src/")
    parser.add_argument("--server", metavar="HOST:PORT", help="a running cluster; default: an embedded one")
    parser.add_argument("--compiler", default="cc", help="C compiler of the workers; default: cc")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the program there")
    options = parser.parse_args()

    sources = sorted(path.relative_to(options.project).as_posix() for path in options.project.glob("src/*.c"))
    with Client(options.server) as client, client.new_session("compile"):
        objects = compile_sources(directory(options.project), sources, options.compiler)
        program = link(objects, options.compiler)
        run = tasks.Execute(
            ["bin/stats"], stdin=blob(DATA), stdout=True, input_paths=[InputDir("bin", dataobj=program)], name="run"
        )
        program.keep_outputs()
        try:
            print(run.result().decode(), end="")
        except TaskException as error:
            print(error.message, file=sys.stderr)
            return 1
        if options.out is not None:
            program.output.fetch(to=options.out)
    print(f"{len(sources)} sources compiled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
