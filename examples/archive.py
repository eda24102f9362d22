"""An archive of a directory: every file is cut out of the tree, compressed and given a checksum, each by its own task.

The two programs `gzip` and `sha256sum` are described once, as a `Program`, and used for every file.

    python examples/archive.py TREE ARCHIVE           compress the files of TREE into the directory ARCHIVE
    python examples/archive.py --server HOST:PORT TREE ARCHIVE
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rain.client import Client, Output, Program, TaskException, directory, remote, tasks

compress = Program("gzip -9 -n -c", stdin="file", stdout=Output("compressed", content_type="mime/gzip"))
checksum = Program("sha256sum", stdin="file", stdout="sum", name="checksum")


@remote(auto_encode="text")
def manifest(ctx: Any, paths: list[str], sums: list[Any]) -> Any:
    """Task: the lines that `sha256sum --check` reads."""
    lines = (f"{line.get_str().split()[0]}  {path}\n" for path, line in zip(paths, sums, strict=True))
    return "".join(lines)


def build(tree: Any, paths: list[str]) -> Any:
    """The graph of an archive: its files are `PATH.gz` and `SHA256SUMS`, which is about the files of the tree."""
    files = [tasks.SliceDirectory(tree, path, name=f"slice/{path}") for path in paths]
    compressed = [compress(file=file, name=f"compress/{path}") for path, file in zip(paths, files, strict=True)]
    sums = [checksum(file=file) for file in files]
    members: dict[str, Any] = {f"{path}.gz": task for path, task in zip(paths, compressed, strict=True)}
    members["SHA256SUMS"] = manifest(paths, [task.output for task in sums])
    return tasks.MakeDirectory(members, name="archive")


def main() -> int:
    """Read the command line, build the archive, fetch it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, metavar="TREE")
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="an empty or new directory")
    parser.add_argument("--server", metavar="HOST:PORT", help="a running cluster; default: an embedded one")
    options = parser.parse_args()

    paths = sorted(path.relative_to(options.tree).as_posix() for path in options.tree.rglob("*") if path.is_file())
    if not paths:
        print(f"there is no file in {options.tree}", file=sys.stderr)
        return 1
    with Client(options.server) as client, client.new_session("archive"):
        tree = directory(options.tree)
        archive = build(tree, paths)
        tree.keep()
        archive.keep_outputs()
        tree.session.submit()
        try:
            value = archive.output.fetch(to=options.archive)
        except TaskException as error:
            print(error.message, file=sys.stderr)
            return 1
        print(f"{len(paths)} files, {tree.fetch().size} bytes compressed to {value.size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
