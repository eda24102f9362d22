"""`Sandbox`: the directory in which a program runs, with the inputs it is given and the outputs it leaves."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from rain.common import fs
from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.worker.builtin.job import COPY_IN_LOOP, BuiltinError
from rain.worker.builtin.paths import copy_out, described, stored_value
from rain.worker.core.events import ObjectKey
from rain.worker.store import Staged, StoreError
from rain.worker.task_logs import STREAMS, is_as_made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.worker.store import Store

_MAY_LINK = os.geteuid() != 0  # the store's files are read-only, but not for root: it gets copies
_QUICK_ENTRIES = 64
_BACKDATE_NS = 10**9
_HELD = 200
_STREAMS = frozenset(path for _, path in STREAMS.values())


@dataclass(frozen=True, slots=True)
class Mapping:
    """An input in the sandbox.

    Attributes:
        path: relative to the sandbox, in its shortest form.
        object: the value.
        directory: it is one.
        write: the program gets a writable copy.
    """

    path: str
    object: ObjectKey
    directory: bool
    write: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output in the sandbox: its path, as in `Mapping`, and whether a directory is expected."""

    path: str
    directory: bool


class _Watched:
    """A file, directory or link which must not be changed in place.

    Its time of change is set back, so that any later one differs however coarse the clock is. While it is held, its
    inode number cannot become that of another file.
    """

    __slots__ = ("_descriptor", "_inode", "_mtime", "_size", "path")

    def __init__(self, path: str, *, held: bool) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) if held else -1
        status = os.lstat(path)
        self._inode, self._size, self._mtime = status.st_ino, status.st_size, status.st_mtime_ns - _BACKDATE_NS
        os.utime(path, ns=(status.st_atime_ns, self._mtime), follow_symlinks=False)

    def is_changed(self) -> bool:
        """Whether it is not as it was; removing or replacing it does not count."""
        try:
            status = os.fstat(self._descriptor) if self._descriptor >= 0 else os.lstat(self.path)
        except OSError:
            return False
        return status.st_ino == self._inode and (status.st_size, status.st_mtime_ns) != (self._size, self._mtime)

    def release(self) -> None:
        """It is not watched any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Sandbox:
    """The directory of a program.

    Args:
        directory: its path; to be made before it is filled.
        store: the values.
        inputs: what is mapped.
    """

    def __init__(self, directory: str, store: Store, inputs: list[Mapping]) -> None:
        self.directory = directory
        self._store = store
        self._inputs = inputs
        self._private: list[_Watched] = []  # what read-only copies consist of

    # --- before the program ---------------------------------------------------------------------

    def fill(self) -> None:
        """Map the inputs.

        Raises:
            BuiltinError: an input cannot be mapped.
            InputLost: a value is not here, or damaged.
        """
        read_only: list[str] = []
        for item in sorted(self._inputs, key=lambda item: item.path.count(os.sep)):
            target = os.path.join(self.directory, item.path)
            try:
                if os.sep in item.path:
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                if not item.write and self._link(item, target):
                    continue
                copy_out(self._store, item.object, item.directory, target)
            except OSError as error:
                raise BuiltinError(f"cannot map an input to {item.path!r}: {error.strerror}", retriable=True) from error
            except RainException as error:
                raise BuiltinError(f"cannot map an input to {item.path!r}: {error}", retriable=True) from error
            if not item.write and not self._holds_others(item):
                read_only.append(target)
        for target in read_only:
            fs.make_read_only(target)
            for path in _walk(target):
                self._private.append(_Watched(path, held=len(self._private) < _HELD))

    def is_slow_to_fill(self) -> bool:
        """Whether filling takes long enough for a thread."""
        copied = 0
        for item in self._inputs:
            linked = not item.write and _MAY_LINK and isinstance(self._store.get(item.object), os.PathLike)
            if not linked:
                if item.directory:
                    return True
                with contextlib.suppress(KeyError):
                    copied += self._store.size(item.object)
        return copied > COPY_IN_LOOP

    def _link(self, item: Mapping, target: str) -> bool:
        """Link to the stored file or tree; False where that is not possible."""
        if not _MAY_LINK or self._holds_others(item):
            return False
        value = stored_value(self._store, item.object)
        if isinstance(value, bytes) or (item.directory and not os.path.isdir(value)):
            return False
        os.symlink(value, target)
        return True

    def _holds_others(self, item: Mapping) -> bool:
        """Something else is mapped into this directory, so it must be a copy of its own."""
        return item.directory and any(other.path.startswith(item.path + os.sep) for other in self._inputs)

    # --- after the program ----------------------------------------------------------------------

    def check_inputs(self) -> None:
        """Check that no linked input was changed in place.

        Raises:
            BuiltinError: one was; the text names its path.
        """
        for item in self._private:
            if item.is_changed():
                name = os.path.relpath(item.path, self.directory)
                raise BuiltinError(
                    f"the program changed its input {name!r}, which is linked and must not be changed; "
                    "map it with write=True"
                )

    def is_slow_to_empty(self, outputs: list[Wanted]) -> bool:
        """Whether taking the outputs takes long enough for a thread."""
        for output in outputs:
            if output.directory:
                return True
            path = os.path.join(self.directory, output.path)
            if not self._is_own(output, outputs):
                with contextlib.suppress(OSError):
                    if os.stat(path).st_size > COPY_IN_LOOP:
                        return True
        return False

    def take(self, outputs: list[Wanted]) -> list[Staged]:
        """Make the outputs ready for the store: moved, or copied where something else needs them in their place.

        Raises:
            BuiltinError: one is missing or of the wrong kind; the text names its path.
            StoreError: there is no room for one.
        """
        for output in outputs:
            self._check(output)
        moved = {number for number, output in enumerate(outputs) if self._is_own(output, outputs)}
        staged: dict[int, Staged] = {}
        try:
            for number in (*(n for n in range(len(outputs)) if n not in moved), *self._settled(outputs, moved)):
                path = os.path.join(self.directory, outputs[number].path)
                if number not in moved:
                    staged[number] = self._store.stage_copy(path)
                elif outputs[number].directory:
                    staged[number] = self._store.stage_tree(path)
                else:
                    staged[number] = Staged(os.stat(path).st_size, path=path)
        except (BuiltinError, StoreError):
            for value in staged.values():
                self._store.discard_staged(value)
            raise
        return [staged[number] for number in range(len(outputs))]

    def _settled(self, outputs: list[Wanted], moved: set[int]) -> Iterator[int]:
        """What is moved; links from one tree into another output are resolved before anything is."""
        if len(outputs) > 1:
            for number in moved:
                if outputs[number].directory:
                    path = outputs[number].path
                    try:
                        fs.settle_tree(os.path.join(self.directory, path))
                    except (OSError, RainException) as error:
                        raise described(error) from error
        yield from sorted(moved)

    def _check(self, output: Wanted) -> None:
        path = os.path.join(self.directory, output.path)
        if not os.path.exists(path):
            raise BuiltinError(f"the program did not make its output {output.path!r}", retriable=True)
        if os.path.isdir(path) != output.directory:
            found, expected = ("blob", "directory") if output.directory else ("directory", "blob")
            raise BuiltinError(f"the output {output.path!r} is a {found}, expected is a {expected}", retriable=True)
        if not output.directory and not os.path.isfile(path):
            raise BuiltinError(f"the output {output.path!r} is neither a file nor a directory", retriable=True)

    def _is_own(self, output: Wanted, outputs: list[Wanted]) -> bool:
        """Nothing else needs it where it is: no input, no other output, no link leads to it."""
        path = output.path
        if any(_holds(item.path, path) for item in self._inputs):
            return False
        if any(other is not output and _holds(other.path, path) for other in outputs):
            return False
        full = os.path.join(self.directory, path)
        if os.path.islink(full):
            return False
        if os.sep not in path:
            return True
        parent = os.path.dirname(path)
        return os.path.realpath(os.path.join(self.directory, parent)) == os.path.join(
            os.path.realpath(self.directory), parent
        )

    # --- the end --------------------------------------------------------------------------------

    def clear(self) -> bool:
        """Remove what is in it if that is a matter of a few files; else everything stays, and False is returned.

        Empty files for the streams of a program stay, as the next one needs them.
        """
        for item in self._private:
            item.release()
        try:
            with os.scandir(self.directory) as entries:
                found = list(entries)
            if len(found) > _QUICK_ENTRIES or any(entry.is_dir(follow_symlinks=False) for entry in found):
                return False
            for entry in found:
                if entry.name not in _STREAMS or not is_as_made(entry.stat(follow_symlinks=False)):
                    os.unlink(entry.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Remove it with everything in it, after `clear` did not.

        Raises:
            OSError: something cannot be removed.
        """
        fs.remove_tree(self.directory)


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer + os.sep) or outer == "."


def _walk(path: str) -> Iterator[str]:
    yield path
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for directory, directories, names in os.walk(path):
            for name in (*directories, *names):
                yield os.path.join(directory, name)
