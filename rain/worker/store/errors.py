"""The one error of the store."""

from __future__ import annotations

from rain.common.errors import RainException


class StoreError(RainException):
    """A value cannot be stored or read.

    Attributes:
        path: the file or directory concerned.
        size: bytes of the value, 0 if unknown.
        errno: error number of the system, None where the system did not complain.
    """

    def __init__(self, text: str, *, path: str, size: int = 0, errno: int | None = None) -> None:
        super().__init__(text)
        self.path = path
        self.size = size
        self.errno = errno

    @classmethod
    def of_os(cls, doing: str, error: OSError, *, path: str, size: int = 0) -> StoreError:
        """The error for what the system refused; `doing` is like "cannot store a value"."""
        named = "" if error.filename is None else f", {error.filename}"
        amount = f" of {size:,} bytes" if size else ""
        return cls(
            f"{doing}{amount} at {path}: [Errno {error.errno}] {error.strerror or error}{named}",
            path=path,
            size=size,
            errno=error.errno,
        )
