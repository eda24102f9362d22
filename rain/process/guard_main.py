"""The guard process: kills process groups and removes paths when its owner is gone.

Executed as a file by an isolated interpreter, so that it starts in milliseconds. It reads lines from its standard
input until the end, which comes when the owner ends in whatever way:

    path DIRECTORY, unpath DIRECTORY, parent DIRECTORY (backslashes and newlines escaped), done

Trees are removed by `path`; a `parent` is removed after them if it is empty.

The process groups are in a file whose descriptor is the first argument: the byte at the number of a group is 1.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # the module `typing` takes longer to import than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def read_orders(stream: Iterable[bytes], paths: dict[str, None], parents: dict[str, None]) -> bool:
    """Follow the orders until the end of the stream or `done`; return whether it was `done`."""
    for line in stream:
        order, _, argument = line.rstrip(b"\n").partition(b" ")
        if order == b"done":
            return True
        if order == b"path":
            paths[unescape(argument)] = None
        elif order == b"unpath":
            paths.pop(unescape(argument), None)
        elif order == b"parent":
            parents[unescape(argument)] = None
    return False


def unescape(argument: bytes) -> str:
    """Inverse of what the owner did to a path."""
    return os.fsdecode(argument.replace(b"\\n", b"\n").replace(b"\\b", b"\\"))


def read_groups(table: int) -> set[int]:
    """The process groups in the table."""
    groups: set[int] = set()
    start = 0
    while piece := os.pread(table, 1 << 20, start):
        place = piece.find(1)
        while place >= 0:
            groups.add(start + place)
            place = piece.find(1, place + 1)
        start += len(piece)
    return groups


def kill(groups: set[int]) -> None:
    """SIGKILL process groups; those that are gone do not matter."""
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def remove(paths: dict[str, None]) -> None:
    """Remove trees, again while dying processes still write into them."""
    import shutil
    import time

    for _ in range(50):
        for path in paths:
            try:
                os.unlink(path)
            except OSError:
                shutil.rmtree(path, onerror=allow_and_retry)
        if not any(os.path.lexists(path) for path in paths):
            return
        time.sleep(0.1)


def allow_and_retry(function: Callable[..., object], path: str, info: object) -> None:
    """Remove what lies in read-only directories, too, and live with others who remove the same tree."""
    try:
        os.chmod(os.path.dirname(path), 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
        if function in (os.unlink, os.rmdir):  # the others only looked: os.open, os.scandir, ...
            function(path)
    except OSError:
        return  # the next round tries again


def remove_empty(parents: dict[str, None]) -> None:
    """Remove directories in which nothing is."""
    for parent in parents:
        try:
            os.rmdir(parent)
        except OSError:
            continue  # others use it


def main() -> None:
    """Wait for the end of the owner, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    paths: dict[str, None] = {}
    parents: dict[str, None] = {}
    if not read_orders(sys.stdin.buffer, paths, parents):
        kill(read_groups(int(sys.argv[1])))
        remove(paths)
        remove_empty(parents)


if __name__ == "__main__":
    main()
