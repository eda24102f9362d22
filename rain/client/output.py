"""`Output` and `OutputDir`: what a task makes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rain.client.shape import ObjectShape, object_shape
from rain.common.content_type import check_content_type, merge_content_types
from rain.common.data_type import DataType
from rain.common.errors import RainException
from rain.common.labeled_list import LabeledList

if TYPE_CHECKING:
    from typing import Self

    from rain.client.base import BaseSession
    from rain.client.data import DataObject


class OutputBase:
    """Description of one output of a task; never changed by the tasks it is given to.

    Args:
        label: label of the output.
        size_hint: expected size in MB.
        content_type: static content type of the output.
        mode: reserved, None.
        encode: Python functions: how the returned value is encoded; it is the content type as well.
        path: what a program writes; default the label.

    Raises:
        AssertionError: `mode` is given.
        ValueError: unknown content type, or `encode` and another `content_type`.
        TypeError: the label is neither str nor None.
    """

    data_type: DataType

    def __init__(
        self,
        label: str | None = None,
        *,
        size_hint: float | None = None,
        content_type: str | None = None,
        mode: None = None,
        encode: str | None = None,
        path: str | None = None,
    ) -> None:
        name = type(self).__name__
        if mode is not None:
            raise AssertionError(f"{name}: mode is reserved and must be None")
        if label is not None and not isinstance(label, str):
            raise TypeError(f"The label of an {name} must be a str or None, not {label!r}")
        check_content_type(content_type)
        check_content_type(encode)
        if encode is not None and content_type is not None and encode != content_type:
            raise ValueError(f"{name} {label!r}: encode={encode!r} differs from content_type={content_type!r}")
        self.label = label
        self.size_hint = size_hint
        self.content_type = encode if encode is not None else content_type
        self.mode = mode
        self.encode = encode
        self._path = path

    @property
    def path(self) -> str | None:
        """What a program writes."""
        return self.label if self._path is None else self._path

    def merge_with_prototype(self, proto: OutputBase) -> Self:
        """A new output: fields that are None here come from `proto`, content types are merged.

        Raises:
            RainException: the content types do not fit together.
            TypeError: one is a blob, the other a directory.
        """
        if proto.data_type is not self.data_type:
            raise TypeError(f"{self!r} cannot take the place of {proto!r}: blob and directory")
        merged = self._copy()
        if merged.label is None:
            merged.label = proto.label
        if merged.size_hint is None:
            merged.size_hint = proto.size_hint
        if merged._path is None:
            merged._path = proto._path
        if merged.encode is None:
            merged.encode = proto.encode
        merged.content_type = merge_content_types(self.content_type, proto.content_type)
        return merged

    def with_encode(self, encode: str | None) -> OutputBase:
        """This output, or a copy with `encode` filled in where it is None; blobs only."""
        if self.encode is not None or encode is None or self.data_type is not DataType.BLOB:
            return self
        copy = self._copy()
        copy.encode = encode
        copy.content_type = merge_content_types(self.content_type, encode)
        return copy

    def with_label(self, label: str) -> OutputBase:
        """This output, or a copy with `label` where it has none."""
        if self.label is not None:
            return self
        copy = self._copy()
        copy.label = label
        return copy

    def with_path(self, path: str) -> OutputBase:
        """This output, or a copy with `path` where none was given explicitly."""
        if self._path is not None:
            return self
        copy = self._copy()
        copy._path = path
        return copy

    def _copy(self) -> Self:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.pop("shape", None)
        return copy

    @cached_property
    def shape(self) -> ObjectShape:
        """The spec of the data objects made from this output."""
        return object_shape(self.label or "", self.content_type or "", self.data_type, self.size_hint)

    def create_data_object(self, session: BaseSession | None = None) -> DataObject:
        """Make and register a data object as described here, in `session` or the active one."""
        from rain.client.data import declare

        return declare(self.shape, session)

    def expect_dir(self) -> None:
        """Raises:
        TypeError: this output is no directory.
        """
        if self.data_type is not DataType.DIRECTORY:
            raise TypeError(f"A directory is expected, {self!r} is a blob")

    def expect_blob(self) -> None:
        """Raises:
        TypeError: this output is no blob.
        """
        if self.data_type is not DataType.BLOB:
            raise TypeError(f"A blob is expected, {self!r} is a directory")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} label={self.label!r} path={self.path!r}>"


class Output(OutputBase):
    """A blob as output."""

    data_type = DataType.BLOB


class OutputDir(OutputBase):
    """A directory as output."""

    data_type = DataType.DIRECTORY


def to_output(value: Any) -> OutputBase:
    """An output as it is; a str is the label of a blob.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, OutputBase):
        return value
    if isinstance(value, str):
        return Output(value)
    raise TypeError(f"An output must be an Output, an OutputDir or a label, not {value!r}")


class OutputSpec:
    """Declared outputs of a function.

    Args:
        outputs: None (one blob), a number of blobs, an Output or OutputDir, a sequence of these and labels, or a
            LabeledList of these.

    Attributes:
        outputs: LabeledList of Output and OutputDir.
    """

    def __init__(self, outputs: Any = None) -> None:
        self.outputs: LabeledList[OutputBase] = LabeledList()
        for position, (label, output) in enumerate(_declared(outputs)):
            labelled = output if label is None else output.with_label(label)
            labelled = labelled.with_label(f"out{position}")
            self.outputs.append(labelled, labelled.label)

    def __len__(self) -> int:
        return len(self.outputs)

    def with_encode(self, encode: str | None) -> OutputSpec:
        """The same outputs with `encode` as default."""
        changed = OutputSpec(0)
        for output in self.outputs:
            filled = output.with_encode(encode)
            changed.outputs.append(filled, filled.label)
        return changed

    def instantiate(self, output: Any = None, outputs: Any = None) -> list[OutputBase]:
        """The outputs of one call. `outputs`: per declared one None, a label or an Output; `output=X` equals
        `outputs=[X]`.

        Raises:
            RainException: another number of outputs than declared.
            TypeError: both are given, or an element is of a wrong type.
            KeyError: a label appears twice.
        """
        if output is not None:
            if outputs is not None:
                raise TypeError("output= and outputs= cannot be given together")
            outputs = [output]
        if outputs is None:
            return list(self.outputs)
        if isinstance(outputs, (str, OutputBase)) or not isinstance(outputs, (Sequence, LabeledList)):
            raise TypeError(f"outputs= must be a list with an element per output, not {outputs!r}")
        if len(outputs) != len(self.outputs):
            raise RainException(f"{len(outputs)} outputs given, {len(self.outputs)} are declared")
        merged: LabeledList[OutputBase] = LabeledList()
        for given, declared in zip(outputs, self.outputs, strict=True):
            one = declared if given is None else _fitting(given, declared).merge_with_prototype(declared)
            merged.append(one, one.label)
        return list(merged)


def _fitting(given: Any, declared: OutputBase) -> OutputBase:
    return type(declared)(given) if isinstance(given, str) else to_output(given)


def _declared(outputs: Any) -> list[tuple[str | None, OutputBase]]:
    if outputs is None:
        outputs = 1
    if isinstance(outputs, int):
        if outputs < 0:
            raise ValueError(f"The number of outputs cannot be negative: {outputs}")
        return [(None, Output()) for _ in range(outputs)]
    if isinstance(outputs, OutputBase):
        return [(None, outputs)]
    if isinstance(outputs, LabeledList):
        return [(label, to_output(value)) for label, value in outputs.items()]
    if isinstance(outputs, Sequence) and not isinstance(outputs, (str, bytes)):
        return [(None, to_output(value)) for value in outputs]
    raise TypeError(f"outputs must be a number, an Output, or a sequence of labels and Outputs, not {outputs!r}")


__all__ = ["Output", "OutputBase", "OutputDir", "OutputSpec", "to_output"]
