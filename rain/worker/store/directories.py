"""`Store`: all values a worker holds, directories among them."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from rain.common import fs
from rain.common.errors import RainException
from rain.common.structs import dataclass
from rain.worker.store.errors import StoreError
from rain.worker.store.files import copy_file, map_range, read_range
from rain.worker.store.places import SHARED_MEMORY
from rain.worker.store.store import INLINE_LIMIT, SMALL_VALUES_BUDGET, FileStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.worker.core.events import ObjectKey

log = logging.getLogger(__name__)

TREE_MODE = 0o500
"""Mode of the root of a stored tree."""

_READ_AT_MOST = 8 << 20


@dataclass(frozen=True, slots=True)
class Staged:
    """A value made ready to be stored at once: bytes (of a small directory its tar), a file, or a settled tree.

    Attributes:
        size: bytes; of a directory the sum of its file sizes.
        data: the value where it is small.
        path: else its place, inside of the store's directories where possible.
        directory: it is one.
    """

    size: int
    data: bytes | None = None
    path: str | None = None
    directory: bool = False


class _Tree:
    """A stored tree; several objects may share it."""

    __slots__ = ("lock", "path", "size", "tar", "tar_size", "users")

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size
        self.users = 1
        self.lock = threading.Lock()
        self.tar: str | None = None  # packed for transfers, while it is asked for
        self.tar_size = 0


class Store(FileStore):
    """Values by object key: small ones as bytes in memory, large ones as read-only files and trees.

    A small directory is kept as its tar, a larger one as a tree on disk, which is packed when it is read for a
    transfer; that tar is kept until `drop_tar`. Every method may be called from any thread.

    Args:
        data_directory, memory_budget, shared_memory, small_budget: see `FileStore`.
    """

    def __init__(
        self,
        data_directory: str,
        *,
        memory_budget: int | None = None,
        shared_memory: str = SHARED_MEMORY,
        small_budget: int = SMALL_VALUES_BUDGET,
    ) -> None:
        super().__init__(
            data_directory, memory_budget=memory_budget, shared_memory=shared_memory, small_budget=small_budget
        )
        self._trees: dict[ObjectKey, _Tree] = {}

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._small or key in self._files or key in self._trees

    def __len__(self) -> int:
        return super().__len__() + len(self._trees)

    def usage(self) -> tuple[int, int]:
        """Bytes of values in memory and on disk; takes a while where there are very many."""
        files = {file for file in list(self._files.values()) if not file.shared}
        trees = set(self._trees.copy().values())
        on_disk = sum(file.size for file in files) + sum(tree.size for tree in trees)
        return self._small_bytes + self._memory_used, on_disk

    def give_back(self) -> None:
        """Memory of values that are gone, which no new value needed for a while, goes back to the system."""
        if self._segments is not None:
            self._segments.trim_idle()

    # --- making values ready --------------------------------------------------------------------

    def new_tree(self) -> str:
        """A path for a new directory, to be made by the caller and given to `stage_tree`."""
        return self._disk.fresh()

    def stage_tree(self, path: str) -> Staged:
        """Make the directory at `path` a value; it is taken away from there. Slow: for threads.

        Raises:
            StoreError: it cannot be a value, or there is no room for it; it is gone then.
        """
        try:
            summary = fs.settle_tree(path)
            if summary.packed < INLINE_LIMIT:
                data = fs.pack_directory(path)
                fs.remove_tree(path)
                return Staged(summary.size, data=data, directory=True)
            return Staged(summary.size, path=self._adopt_tree(path), directory=True)
        except OSError as error:
            fs.remove_tree(path)
            raise StoreError.of_os("cannot store a directory", error, path=path) from error
        except RainException as error:
            fs.remove_tree(path)
            raise StoreError(f"cannot store a directory: {error}", path=path) from error

    def stage_tar(self, archive: str | bytes) -> Staged:
        """Make a packed directory a value; a file `archive` is left where it is. Slow: for threads.

        Raises:
            StoreError: it is damaged, or there is no room for it.
        """
        target = self.new_tree()
        try:
            if isinstance(archive, bytes):
                fs.unpack_directory(archive, target)
            else:
                with open(archive, "rb") as source:
                    fs.unpack_directory(source, target)
        except OSError as error:
            fs.remove_tree(target)
            raise StoreError.of_os("cannot unpack a directory", error, path=target) from error
        except RainException as error:
            fs.remove_tree(target)
            raise StoreError(f"cannot unpack a directory: {error}", path=target) from error
        return self.stage_tree(target)

    def stage_copy(self, path: str) -> Staged:
        """Copy a file or tree, which stays as it is. Slow where it is large: for threads.

        Raises:
            StoreError: it cannot be read or is neither, or there is no room for it.
        """
        try:
            if os.path.isdir(path):
                target = self.new_tree()
                try:
                    fs.copy_tree(path, target)
                except (OSError, RainException):
                    fs.remove_tree(target)
                    raise
                return self.stage_tree(target)
            if not os.path.isfile(path):
                raise StoreError(f"cannot store {path}: it is neither a file nor a directory", path=path)
            size = os.stat(path).st_size
            if size < INLINE_LIMIT:
                data = Path(path).read_bytes()
                return Staged(len(data), data=data)
            target = self.new_file(size)
            copy_file(path, target)
            return Staged(os.stat(target).st_size, path=target)
        except OSError as error:
            raise StoreError.of_os("cannot copy a value into the store", error, path=path) from error
        except StoreError:
            raise
        except RainException as error:
            raise StoreError(f"cannot copy a directory into the store: {error}", path=path) from error

    def put_staged(self, key: ObjectKey, staged: Staged) -> None:
        """Store a value made ready; one that exists already wins.

        Raises:
            StoreError: there is no room for it.
        """
        if staged.data is not None:
            self.put(key, staged.data)
        elif staged.path is not None and staged.directory:
            self._put_tree(key, _Tree(staged.path, staged.size))
        elif staged.path is not None:
            self.put_file(key, staged.path)

    def discard_staged(self, staged: Staged) -> None:
        """A value made ready is not needed."""
        if staged.path is None:
            return
        if staged.directory:
            self._later(self._remove_tree, staged.path)
        else:
            self.discard_file(staged.path)

    def put_tree(self, key: ObjectKey, path: str, *, size: int | None = None) -> int:
        """Move a directory in.

        Args:
            key: of the object.
            path: of the directory.
            size: the sum of its file sizes, given if the tree was settled (`rain.common.fs.settle_tree`) by its maker;
                then this is quick.

        Returns:
            The sum of its file sizes.

        Raises:
            StoreError: it cannot be a value, or there is no room for it; it is gone then.
        """
        if size is None:
            staged = self.stage_tree(path)
        else:
            try:
                staged = Staged(size, path=self._adopt_tree(path), directory=True)
            except OSError as error:
                fs.remove_tree(path)
                raise StoreError.of_os("cannot store a directory", error, path=path) from error
        self.put_staged(key, staged)
        return staged.size

    # --- what differs for trees -----------------------------------------------------------------

    def get(self, key: ObjectKey) -> bytes | Path | None:
        """The value as bytes if it is in memory, else the path of its file or tree, None if it is not here."""
        value = super().get(key)
        if value is None:
            tree = self._trees.get(key)
            return None if tree is None else Path(tree.path)
        return value

    def size(self, key: ObjectKey) -> int:
        """Bytes of the value; of a tree the sum of its file sizes; of a small directory those of its tar.

        Raises:
            KeyError: it is not here.
        """
        tree = self._trees.get(key)
        return super().size(key) if tree is None else tree.size

    def share(self, source: ObjectKey, target: ObjectKey) -> int:
        """Give another object the same value, without a copy; returns its size.

        Raises:
            KeyError: there is no value of `source`.
        """
        with self._lock:
            tree = self._trees.get(source)
            if tree is not None:
                if target not in self:
                    tree.users += 1
                    self._trees[target] = tree
                return tree.size
        return super().share(source, target)

    def read(self, key: ObjectKey, offset: int, length: int) -> bytes | memoryview:
        """A range of a value, cut at its end; of a tree a range of its tar.

        Raises:
            KeyError: the value is not here.
            StoreError: it is damaged or unreadable.
        """
        tree = self._trees.get(key)
        return super().read(key, offset, length) if tree is None else self._read_tree(tree, offset, length)

    def is_tree(self, key: ObjectKey) -> bool:
        """Tell whether the value is a tree."""
        return key in self._trees

    def read_size(self, key: ObjectKey) -> int:
        """Bytes that `read` gives in all; a tree is packed for that.

        Raises:
            KeyError: it is not here.
            StoreError: it is damaged or unreadable.
        """
        tree = self._trees.get(key)
        if tree is None:
            return super().size(key)
        with tree.lock:
            self._pack(tree)
            return tree.tar_size

    def drop_tar(self, key: ObjectKey) -> None:
        """The tar of a tree is not asked for any more."""
        tree = self._trees.get(key)
        if tree is not None:
            self._drop_tar(tree)

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove values; unknown keys do not matter."""
        if not self._trees:
            super().delete(keys)
            return
        keys = list(keys)
        super().delete(keys)
        released: list[_Tree] = []
        with self._lock:
            for key in keys:
                tree = self._trees.pop(key, None)
                if tree is not None:
                    tree.users -= 1
                    if not tree.users:
                        released.append(tree)
        for tree in released:  # which may take long, and a tar may just be written
            self._later(self._release, tree)

    def close(self) -> None:
        """Remove all values and the directory in shared memory. The store is not usable afterwards."""
        self.delete(list(self._trees))
        super().close()

    # --- inside ---------------------------------------------------------------------------------

    def _adopt_tree(self, path: str) -> str:
        """Move a settled tree to the disk."""
        target = self._disk.fresh()
        try:
            os.chmod(path, 0o700)
            os.rename(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            fs.copy_tree(path, target)
            fs.settle_tree(target)
            fs.remove_tree(path)
        os.chmod(target, TREE_MODE)
        return target

    def _put_tree(self, key: ObjectKey, tree: _Tree) -> None:
        with self._lock:
            if key not in self:
                self._trees[key] = tree
                return
        self._later(self._remove_tree, tree.path)

    def _release(self, tree: _Tree) -> None:
        self._drop_tar(tree)
        self._remove_tree(tree.path)

    @staticmethod
    def _remove_tree(path: str) -> None:
        try:
            fs.remove_tree(path)
        except OSError as error:
            log.warning("A directory without use is left: %s", error)

    def _read_tree(self, tree: _Tree, offset: int, length: int) -> bytes | memoryview:
        with tree.lock:
            path = self._pack(tree)
            length = min(length, tree.tar_size - offset)
            if length <= 0:
                return b""
            try:
                reader = map_range if length > _READ_AT_MOST else read_range
                return reader(path, tree.tar_size, offset, length)
            except OSError as error:
                raise StoreError.of_os("cannot read a directory", error, path=path, size=tree.tar_size) from error

    def _pack(self, tree: _Tree) -> str:
        """The tar of a tree, made if it is not there. To be called with its lock held."""
        if tree.tar is not None:
            return tree.tar
        path = self.new_file(tree.size)
        try:
            with open(path, "xb") as target:
                fs.pack_directory_to(tree.path, target)
        except OSError as error:
            self.discard_file(path)
            raise StoreError.of_os("cannot pack a directory", error, path=tree.path, size=tree.size) from error
        except RainException as error:
            self.discard_file(path)
            raise StoreError(f"cannot pack a directory: {error}", path=tree.path, size=tree.size) from error
        tree.tar, tree.tar_size = path, os.path.getsize(path)
        return path

    def _drop_tar(self, tree: _Tree) -> None:
        with tree.lock:
            if tree.tar is not None:
                self.discard_file(tree.tar)
                tree.tar = None
