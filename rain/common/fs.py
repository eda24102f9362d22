"""Directories as values: deterministic tars, safe unpacking, copies, removal.

A packed directory holds files with their executable bit, sub-directories including empty ones, and symlinks that
stay inside the tree; links that lead outside are replaced by copies of their targets. Owners and times are not
kept, so equal trees have equal bytes.
"""

from __future__ import annotations

import io
import os
import stat
from typing import IO, TYPE_CHECKING, Any

from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.common.tarreading import Member, TarReader

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterator

_MAX_DEPTH = 200
_TAR_BLOCK = 512
_TAR_RECORD = 10240
_PLAIN_NAME = 98  # longer names take further blocks


def pack_directory(path: str | os.PathLike[str]) -> bytes:
    """Pack a directory into a tar whose members are relative to `.`.

    Raises:
        NotADirectoryError: `path` is not a directory.
        OSError: something in it cannot be read.
    """
    target = io.BytesIO()
    pack_directory_to(path, target)
    return target.getvalue()


def pack_directory_to(path: str | os.PathLike[str], target: IO[bytes]) -> None:
    """Pack a directory into an open binary file; raises as `pack_directory`."""
    import tarfile

    root = os.path.realpath(path)
    if not os.path.isdir(root):
        raise NotADirectoryError(f"{os.fspath(path)!r} is not a directory")
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add_member(archive, root, ".", None)
        for real, name, link in _walk(root, root, ".", 0):
            _add_member(archive, real, name, link)


def empty_directory() -> bytes:
    """A packed directory without content."""
    import tarfile

    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_directory_entry("."))
    return target.getvalue()


def _walk(root: str, directory: str, name: str, depth: int) -> Iterator[tuple[str, str, str | None]]:
    """Yield (path, member name, link target or None) of everything below, sorted."""
    if depth > _MAX_DEPTH:
        raise RainException(f"Directory {directory!r} is nested too deeply (a symlink to its own parent?)")
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        member = f"{name}/{entry.name}"
        link = None
        if entry.is_symlink():
            if not os.path.exists(entry.path):
                continue  # it leads to nothing: there is no target to copy
            link = _inner_link(root, entry.path)
            if link is None:
                _check_copyable(root, entry.path)
        yield entry.path, member, link
        if link is None and entry.is_dir():
            yield from _walk(root, entry.path, member, depth + 1)


def _inner_link(root: str, path: str) -> str | None:
    """The relative target of a symlink that stays inside `root`, else None."""
    target = os.readlink(path)
    if os.path.isabs(target):
        return None
    reached = os.path.normpath(os.path.join(os.path.dirname(path), target))
    real = os.path.realpath(path)
    if _is_inside(reached, root) and _is_inside(real, root):
        return target
    return None


def _check_copyable(root: str, link: str) -> None:
    """The target of an outward link can be copied into `root`: it does not contain `root`."""
    target = os.path.realpath(link)
    if _is_inside(root, target):
        raise RainException(f"{link!r} is a link to {target!r}, which contains it; it cannot be part of a data object")


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _directory_entry(name: str) -> tarfile.TarInfo:
    import tarfile

    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mode = 0o755
    return entry


def _add_member(archive: tarfile.TarFile, path: str, name: str, link: str | None) -> None:
    import tarfile

    if link is not None:
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.SYMTYPE
        entry.linkname = link
        entry.mode = 0o777
        archive.addfile(entry)
        return
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        archive.addfile(_directory_entry(name))
    elif stat.S_ISREG(status.st_mode):
        entry = tarfile.TarInfo(name)
        entry.size = status.st_size
        entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
        with open(path, "rb") as source:
            archive.addfile(entry, source)
    else:
        raise RainException(f"{path!r} is neither a file nor a directory; it cannot be part of a data object")


def unpack_directory(data: bytes | memoryview | IO[bytes], target: str | os.PathLike[str]) -> None:
    """Unpack a tar into the directory `target`, which is made if it does not exist.

    Raises:
        RainException: damaged, or a member would lie outside `target`; nothing is written there.
        FileExistsError: a member exists.
    """
    for _ in unpack_members(data, target):
        pass


def unpack_members(data: bytes | memoryview | IO[bytes], target: str | os.PathLike[str]) -> Iterator[None]:
    """As `unpack_directory`, member by member: after each one something else may be done."""
    root = os.path.abspath(target)
    os.makedirs(root, exist_ok=True)
    links: list[tuple[str, str]] = []
    archive = TarReader(_opened(data))
    for member in archive.members():
        path = _member_path(root, member.name)
        if member.kind == "directory":
            os.makedirs(path, exist_ok=True)
        elif member.kind == "file":
            _extract_file(archive, member, path)
        else:
            _check_link(root, path, member)
            links.append((member.link, path))
        yield
    # Last, so that no member is ever written through a link.
    _make_links(os.path.realpath(root), root, links)


def _opened(data: bytes | memoryview | IO[bytes]) -> IO[bytes]:
    return io.BytesIO(data) if isinstance(data, bytes | memoryview) else data


def _make_links(real_root: str, root: str, links: list[tuple[str, str]]) -> None:
    """Make the links of an archive; a chain of them that leads outside is found by where it really leads."""
    made: list[str] = []
    try:
        for link, path in links:
            parent = os.path.dirname(path)
            if os.path.realpath(parent) != os.path.join(real_root, os.path.relpath(parent, root)).removesuffix("/."):
                raise RainException(f"Archive member {os.path.relpath(path, root)!r} lies behind a symlink")
            os.makedirs(parent, exist_ok=True)
            os.symlink(link, path)
            made.append(path)
        for path in made:
            if not _is_inside(os.path.realpath(path), real_root):
                raise RainException(f"Archive member {os.path.relpath(path, root)!r} links outside of the directory")
    except (RainException, OSError):
        for path in made:
            os.unlink(path)
        raise


def _member_path(root: str, name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise RainException(f"Archive member {name[:1000]!r} would lie outside of the directory")
    if len(parts) > _MAX_DEPTH:
        raise RainException(f"Archive member {name[:1000]!r} is nested too deeply")
    return os.path.join(root, *parts)


def _check_link(root: str, path: str, member: Member) -> None:
    link = member.link
    reached = os.path.normpath(os.path.join(os.path.dirname(path), link))
    if not link or "\0" in link or os.path.isabs(link) or not _is_inside(reached, root):
        raise RainException(f"Archive member {member.name[:1000]!r} links outside of the directory")


def _extract_file(archive: TarReader, member: Member, path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mode = 0o755 if member.executable else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as target:
        archive.copy_to(target)


def copy_tree(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a tree as if packed and unpacked: the copy is writable, links stay inside.

    Args:
        source: a directory.
        target: made if it does not exist.

    Raises:
        OSError: something cannot be read or written.
    """
    root = os.path.realpath(source)
    destination = os.path.abspath(target)
    os.makedirs(destination, exist_ok=True)
    for real, name, link in _walk(root, root, ".", 0):
        path = _member_path(destination, name)
        if link is not None:
            os.symlink(link, path)
        elif os.path.isdir(real):
            os.makedirs(path, exist_ok=True)
        else:
            copy_file(real, path)


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """What a settled tree holds: `size`, the sum of its file sizes, and about how long its tar is, both in bytes."""

    size: int
    packed: int


def settle_tree(root: str | os.PathLike[str]) -> TreeSummary:
    """Make a tree fit to be a stored value, in place.

    Links that lead outside become copies of their targets, dangling ones go, files with further hard links become
    copies, and everything below `root` becomes read-only. `root` itself stays writable, so that it can be moved.

    Raises:
        RainException: it holds what is neither file, directory nor link, or a link to a directory around it.
        OSError: something cannot be read or written.
    """
    path = os.path.realpath(root)
    size, packed = _settle(path, path, 0)
    return TreeSummary(size, packed + _TAR_RECORD)


def _settle(root: str, directory: str, depth: int) -> tuple[int, int]:
    if depth > _MAX_DEPTH:
        raise RainException(f"Directory {directory!r} is nested too deeply")
    os.chmod(directory, 0o700)
    size, packed = 0, _TAR_BLOCK
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            if not os.path.exists(path):
                os.unlink(path)
                continue
            if _inner_link(root, path) is not None:
                packed += 3 * _TAR_BLOCK
                continue
            _check_copyable(root, path)
            _replace_by_copy(path)
            status = os.lstat(path)
        packed += _TAR_BLOCK if len(path) - len(root) < _PLAIN_NAME else 3 * _TAR_BLOCK
        if stat.S_ISDIR(status.st_mode):
            more, more_packed = _settle(root, path, depth + 1)
            os.chmod(path, 0o500)
            size, packed = size + more, packed + more_packed
        elif stat.S_ISREG(status.st_mode):
            if status.st_nlink > 1:
                _replace_by_copy(path)
            os.chmod(path, 0o500 if status.st_mode & 0o100 else 0o400)
            size += status.st_size
            packed += -(-status.st_size // _TAR_BLOCK) * _TAR_BLOCK
        else:
            raise RainException(f"{path!r} is neither a file nor a directory; it cannot be part of a data object")
    return size, packed


def _replace_by_copy(path: str) -> None:
    target = os.path.realpath(path)
    copy = f"{path}.{os.getpid()}.copy"
    if os.path.isdir(target):
        copy_tree(target, copy)
        os.unlink(path)
        os.rename(copy, path)
    else:
        copy_file(target, copy)
        os.replace(copy, path)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file into a new writable one with the same executable bit."""
    import shutil

    shutil.copyfile(source, target)
    os.chmod(target, 0o755 if os.stat(source).st_mode & 0o100 else 0o644)


def tree_size(path: str | os.PathLike[str]) -> int:
    """The sum of the sizes of the regular files below, in bytes."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
    return total


def packed_size(data: bytes | memoryview | IO[bytes]) -> int:
    """The sum of the sizes of the files in a packed directory, in bytes; RainException if it is damaged."""
    return sum(member.size for member in TarReader(_opened(data)).members())


def make_read_only(path: str | os.PathLike[str]) -> None:
    """Take the write permission away from a file, or from a tree with its directories; links are left alone."""
    for entry in _tree(os.fspath(path)):
        mode = os.lstat(entry).st_mode
        if not stat.S_ISLNK(mode):
            os.chmod(entry, stat.S_IMODE(mode) & ~0o222)


def _tree(path: str) -> Iterator[str]:
    if os.path.isdir(path) and not os.path.islink(path):
        for directory, directories, names in os.walk(path, topdown=False):
            for name in (*directories, *names):
                yield os.path.join(directory, name)
    yield path


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a file or a tree, read-only directories included; nothing there is fine.

    Raises:
        OSError: something cannot be removed.
    """
    path = os.fspath(path)
    if os.path.islink(path) or not os.path.isdir(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        return
    import shutil

    shutil.rmtree(path, onerror=_make_writable_and_retry)


def _make_writable_and_retry(function: Callable[..., Any], path: str, info: Any) -> None:
    error = info[1]
    if isinstance(error, FileNotFoundError):
        return
    if not isinstance(error, PermissionError):
        raise error
    os.chmod(os.path.dirname(path), 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, 0o700)
        if function is not os.rmdir:
            import shutil

            shutil.rmtree(path, onerror=_make_writable_and_retry)
            return
    function(path)
