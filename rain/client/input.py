"""`Input` and `InputDir`: how a data object comes into a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.common.content_type import check_content_type
from rain.common.data_type import DataType

if TYPE_CHECKING:
    from typing import Self

    from rain.client.data import DataObject


class InputBase:
    """Description of one input of a task; never changed by the tasks it is given to.

    Args:
        label: label of the input, None for none.
        path: where a program finds it; default the label, or a generated name when there is no label.
        dataobj: the data object or task that is the input; of the data type of this class.
        load: Python functions: whether the argument arrives decoded. None = the default of the function.
        content_type: type the object must have.
        write: programs: map a private writable copy.

    Raises:
        TypeError: the label is neither str nor None, or the object has the other data type.
        ValueError: unknown content type.
    """

    data_type: DataType

    def __init__(
        self,
        label: str | None = None,
        path: str | None = None,
        dataobj: Any = None,
        load: bool | None = None,
        content_type: str | None = None,
        write: bool = False,
    ) -> None:
        from rain.client.data import to_dataobj

        if label is not None and not isinstance(label, str):
            raise TypeError(f"The label of an {type(self).__name__} must be a str or None, not {label!r}")
        check_content_type(content_type)
        self.label = label
        self._path = path
        self.dataobj: DataObject | None = None if dataobj is None else to_dataobj(dataobj)
        if self.dataobj is not None:
            self.check_type(self.dataobj)
        self.load = load
        self.content_type = content_type
        self.write = write

    def with_default_load(self, load: bool | None) -> InputBase:
        """This input, or a copy with `load` filled in where it is None."""
        if self.load is not None or load is None:
            return self
        copy = self._copy()
        copy.load = load
        return copy

    def with_label(self, label: str) -> InputBase:
        """This input, or a copy with `label` where it has none."""
        if self.label is not None:
            return self
        copy = self._copy()
        copy.label = label
        return copy

    def _copy(self) -> Self:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    @property
    def path(self) -> str | None:
        """Where a program finds it; None = a generated name."""
        return self.label if self._path is None else self._path

    def check_type(self, dataobj: DataObject) -> None:
        """Raises:
        TypeError: the object is a directory where a blob is described, or the reverse.
        """
        if dataobj._shape.data_type is not self.data_type:
            label = "" if self.label is None else f" {self.label!r}"
            raise TypeError(f"{type(self).__name__}{label} needs a {_noun(self.data_type)}, not {dataobj!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} label={self.label!r} path={self.path!r}>"


class Input(InputBase):
    """A blob as input."""

    data_type = DataType.BLOB


class InputDir(InputBase):
    """A directory as input."""

    data_type = DataType.DIRECTORY


def _noun(data_type: DataType) -> str:
    return "directory" if data_type is DataType.DIRECTORY else "blob"


__all__ = ["Input", "InputBase", "InputDir"]
