"""The materialised value of a data object, on the client and in executors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rain.common import fs
from rain.common.attribute_views import ObjectAttributes
from rain.common.attributes import ObjectInfo, ObjectSpec
from rain.common.content_type import decode_value
from rain.common.data_type import DataType
from rain.common.errors import RainException
from rain.common.pickle5 import read_plain_bytes

if TYPE_CHECKING:
    from rain.common.ids import ID

_MAP_FROM = 64 << 10


class DataInstance:
    """A value with what is known about it. Made by `fetch()`, by the context of a task, and for a task's inputs.

    Args:
        data_type: blob or directory.
        data: the bytes (of a directory: a tar). Exactly one of `data` and `path` is given.
        path: file or directory tree that holds the value.
        data_object: the client's handle, None in executors.
        content_type: dynamic type, when no `info` is given.
        info, spec: of the data object; made when not given.
        object_id: of the data object, None for a value that is not one yet.
    """

    def __init__(
        self,
        data_type: DataType,
        *,
        data: bytes | memoryview | None = None,
        path: str | os.PathLike[str] | None = None,
        data_object: Any = None,
        content_type: str | None = None,
        info: ObjectInfo | None = None,
        spec: ObjectSpec | None = None,
        object_id: ID | None = None,
    ) -> None:
        if (data is None) == (path is None):
            raise ValueError("a DataInstance is made of exactly one of data and path")
        self.data_type = data_type
        self.spec = spec if spec is not None else ObjectSpec(data_type=data_type)
        if info is None:
            info = ObjectInfo(content_type=content_type or "")
            info.size = _size_of(data_type, data, path)
        self.info = info
        self.object_id = object_id
        self._data = data
        self._path = os.fspath(path) if path is not None else None
        self._data_object = data_object
        self._cached: tuple[Any] | None = None
        # Set in executors: a file-backed value may be linked instead of copied.
        self._linkable = False

    @property
    def content_type(self) -> str | None:
        """Dynamic type if the producer gave one, else the static type, None when neither is known."""
        return self.info.content_type or self.spec.content_type or None

    @property
    def attributes(self) -> ObjectAttributes:
        """The attributes facade of the value."""
        return ObjectAttributes(self.spec, self.info)

    @property
    def size(self) -> int:
        """Bytes; of a directory the sum of its file sizes."""
        return self.info.size or _size_of(self.data_type, self._data, self._path)

    def __repr__(self) -> str:
        if self._path is not None:
            return f"<DataInstance path={self._path!r}>"
        return f"<DataInstance size={self.size}>"

    def get_bytes(self) -> bytes:
        """Return the value as bytes; a directory as a tar.

        Raises:
            OSError: the file cannot be read.
        """
        if self._data is not None:
            return bytes(self._data)
        path = self._file_path()
        if os.path.isdir(path):
            return fs.pack_directory(path)
        with open(path, "rb") as source:
            return source.read()

    def get_str(self) -> str:
        """Return the value as UTF-8 text."""
        return self.get_bytes().decode()

    def load(self, cache: bool = False) -> Any:
        """Decode the value by its content type.

        Args:
            cache: return the shared decoded object, which must not be changed, and keep it for later calls.

        Raises:
            RainException: no content type is known, it has no codec, or the value cannot be decoded.
        """
        if cache and self._cached is not None:
            return self._cached[0]
        content_type = self.content_type
        if content_type is None:
            raise RainException(f"Cannot load {self!r}: its content type is not known; use get_bytes()")
        value = None
        if content_type == "pickle5" and self._path is not None:
            value = read_plain_bytes(self._path)
        if value is None:
            value = decode_value(self._buffer(), content_type)
        if cache:
            self._cached = (value,)
        return value

    def _buffer(self) -> bytes | memoryview:
        """The bytes of a blob; a large file is mapped, not read."""
        if self._data is not None:
            return self._data
        path = self._file_path()
        with open(path, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size < _MAP_FROM:
                return source.read()
            from rain.common.mapping import map_descriptor  # most clients never need it

            try:
                return map_descriptor(source.fileno(), size)
            except OSError:  # a process may have only so many mappings
                return source.read()

    def _file_path(self) -> str:
        assert self._path is not None
        return self._path

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a fresh writable copy: a file, or the directory's tree.

        Raises:
            FileExistsError: the value is a directory and `path` exists and is not an empty directory.
            OSError: it cannot be written.
        """
        if self.data_type is DataType.DIRECTORY:
            self._write_tree(os.fspath(path))
        else:
            self._write_file(os.fspath(path))

    def _write_file(self, path: str) -> None:
        if os.path.islink(path) or os.path.isfile(path):
            os.unlink(path)  # replaced, never written through: it may be a link into the store
        if self._data is not None:
            with open(path, "wb") as target:
                target.write(self._data)
        else:
            fs.copy_file(self._file_path(), path)

    def _write_tree(self, path: str) -> None:
        check_free(path)
        if self._data is not None:
            fs.unpack_directory(self._data, path)
            return
        source = self._file_path()
        if os.path.isdir(source):
            fs.copy_tree(source, path)
            return
        with open(source, "rb") as archive:
            fs.unpack_directory(archive, path)

    def link(self, path: str | os.PathLike[str]) -> None:
        """Make the value readable at `path`: in tasks a symlink to the stored file, elsewhere as `write`.

        Raises:
            FileExistsError: `path` exists (symlink), or as for `write`.
        """
        if self._linkable and self._path is not None and _matches(self.data_type, self._path):
            os.symlink(self._path, path)
        else:
            self.write(path)


def check_free(path: str | os.PathLike[str]) -> None:
    """Check that a directory may be written to a path.

    Raises:
        FileExistsError: it exists and is not an empty directory.
    """
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(f"{os.fspath(path)!r} exists and is not an empty directory")


def _matches(data_type: DataType, path: str) -> bool:
    """Tell whether the path itself shows the value (a directory may be stored as tar)."""
    return os.path.isdir(path) == (data_type is DataType.DIRECTORY)


def _size_of(data_type: DataType, data: bytes | memoryview | None, path: str | os.PathLike[str] | None) -> int:
    if data is not None:
        return fs.packed_size(data) if data_type is DataType.DIRECTORY else len(data)
    assert path is not None
    if os.path.isdir(path):
        return fs.tree_size(path)
    if data_type is DataType.DIRECTORY:
        with open(path, "rb") as archive:
            return fs.packed_size(archive)
    return os.path.getsize(path)
