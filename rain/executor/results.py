"""Return values: the rules by which they become outputs, and their encoded form.

An encoded output is `(value, packed info or None, size)`. The value is bytes below the inline limit, else the path
of a file, or the id (int) of the input which it equals.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from rain.common.codecs import is_arrow_table
from rain.common.content_type import encode_value, is_type_instance
from rain.common.data_instance import DataInstance
from rain.common.data_type import DataType
from rain.common.errors import RainException
from rain.common.fs import pack_directory, settle_tree
from rain.common.packing import pack
from rain.common.pickle5 import encode_pickle5, encode_pickle5_parts

if TYPE_CHECKING:
    from rain.executor.templates import OutputPlan, Template
    from rain.executor.workspace import Workspace

Encoded: TypeAlias = tuple[bytes | str | int, bytes | None, int]

SCALARS = frozenset({int, float, bool, type(None)})
"""Exact types of values which are encoded as pickle5 without a look at anything else."""
SHORT = 255
"""Longest pickle for which there is a header in `PICKLE5_HEADERS`."""
_INLINE_TOTAL = 16 << 20


def _bare_info(content_type: str) -> bytes:
    return pack({"content_type": content_type})


PICKLE5_INFO = _bare_info("pickle5")
_TEXT_INFO = _bare_info("text")
PICKLE5_HEADERS = [encode_pickle5(None)[:16] + length.to_bytes(8, "little") for length in range(SHORT + 1)]
"""What comes before a pickle of so many bytes."""


class ResultEncoder:
    """Encodes return values.

    Args:
        workspace: where large values are written.

    Attributes:
        inline_limit: values of at least so many bytes become files.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.inline_limit = 64 << 10

    # --- plain functions ---

    def plain(self, template: Template, value: Any, inputs: list[int]) -> list[Encoded]:
        """Encode what a plain function returned.

        Raises:
            RainException: wrong number of values, or one that cannot be encoded.
        """
        plans = template.outputs
        if len(plans) == 1:
            return [self._natural(plans[0], value, inputs)]
        if not plans:
            return []
        return self._bounded([self._natural(plan, item, inputs) for plan, item in _pairs(plans, value)])

    def _natural(self, plan: OutputPlan, value: Any, inputs: list[int]) -> Encoded:
        kind = type(value)
        if kind in SCALARS and plan.natural:
            blob = pickle.dumps(value, 5)
            if len(blob) <= SHORT:
                data = PICKLE5_HEADERS[len(blob)] + blob
                return data, PICKLE5_INFO, len(data)
        if isinstance(value, DataInstance):
            return self._instance(plan, value, inputs)
        _must_be_blob(plan, value)
        if plan.encode:
            return self._encoded(plan, value)
        if kind is bytes:
            return self._stored(value, None)
        if kind is bytearray or kind is memoryview:
            return self._stored(bytes(value), None)
        if kind is str:
            try:
                return self._stored(value.encode(), _TEXT_INFO)
            except UnicodeEncodeError:  # lone surrogates: not text in UTF-8
                return self._pickle5(value)
        if is_arrow_table(value):
            return self._stored(encode_value(value, "arrow"), _bare_info("arrow"))
        return self._pickle5(value)

    def _pickle5(self, value: Any) -> Encoded:
        try:
            parts = encode_pickle5_parts(value)
        except Exception as error:  # methods of the value may raise anything
            raise RainException(f"Cannot pickle the result of type {type(value).__name__!r}: {error}") from error
        size = sum(memoryview(part).nbytes for part in parts)
        if size < self.inline_limit:
            return b"".join(parts), PICKLE5_INFO, size
        return self._workspace.write_value(parts), PICKLE5_INFO, size

    # --- remote functions ---

    def returned(self, template: Template, value: Any, inputs: list[int]) -> list[Encoded]:
        """Encode what a remote function returned.

        Raises:
            RainException: the value breaks a rule, or cannot be encoded.
        """
        plans = template.outputs
        if len(plans) == 1:
            return [self._explicit(plans[0], value, inputs)]
        if not plans:
            if value is None or (isinstance(value, Sequence) and not len(value)):
                return []
            raise RainException(f"The function has no outputs, but returned a {type(value).__name__!r}")
        return self._bounded([self._explicit(plan, item, inputs) for plan, item in _pairs(plans, value)])

    def _explicit(self, plan: OutputPlan, value: Any, inputs: list[int]) -> Encoded:
        if isinstance(value, DataInstance):
            return self._instance(plan, value, inputs)
        _must_be_blob(plan, value)
        if plan.encode:
            return self._encoded(plan, value)
        if isinstance(value, str):
            static = plan.content_type
            if static is None:
                return self._stored(value.encode(), _TEXT_INFO)
            return self._stored(encode_value(value, static) if static.startswith("text") else value.encode(), None)
        if isinstance(value, bytes):
            return self._stored(value, None)
        raise RainException(
            f"Output {plan} got a value of type {type(value).__name__!r}; return bytes, str or a data instance, "
            "or declare how to encode it: Output(encode=...)"
        )

    # --- both ---

    def _encoded(self, plan: OutputPlan, value: Any) -> Encoded:
        encode = plan.encode
        assert encode is not None
        if encode == "pickle5":
            return self._pickle5(value)
        info = None if plan.content_type == encode else _bare_info(encode)
        return self._stored(encode_value(value, encode), info)

    def _stored(self, data: bytes, info: bytes | None) -> Encoded:
        return self._placed(data), info, len(data)

    def _instance(self, plan: OutputPlan, instance: DataInstance, inputs: list[int]) -> Encoded:
        if plan.directory != (instance.data_type is DataType.DIRECTORY):
            expected, found = ("directory", "blob") if plan.directory else ("blob", "directory")
            raise RainException(f"Output {plan} is a {expected}, but the function returned a {found}")
        content_type = instance.content_type
        if content_type and not is_type_instance(content_type, plan.content_type):
            raise RainException(
                f"Output {plan} has content type {plan.content_type!r}, "
                f"but the function returned a value of type {content_type!r}"
            )
        info = _instance_info(instance)
        origin = instance.object_id
        if origin is not None and origin.id in inputs:
            return origin.id, info, instance.size
        value, size = self._instance_value(instance)
        return value, info, size

    def _instance_value(self, instance: DataInstance) -> tuple[bytes | str, int]:
        if instance.data_type is DataType.DIRECTORY:
            return self._directory_value(instance)
        path, size = instance._path, instance.size
        if path is not None and size >= self.inline_limit:
            moved = self._workspace.take_staged(path)
            if moved is not None:
                return moved, size
        return self._placed(instance.get_bytes()), size

    def _directory_value(self, instance: DataInstance) -> tuple[bytes | str, int]:
        """A small directory as its tar, a larger one as a settled tree which the worker moves away."""
        data, path, workspace = instance._data, instance._path, self._workspace
        if data is not None and len(data) < self.inline_limit:
            return bytes(data), instance.size
        if path is None or not workspace.is_staged(path):
            path = workspace.new_staged()
            instance.write(path)
        tree = workspace.place_of_tree(path)
        summary = settle_tree(tree)
        if summary.packed < self.inline_limit:
            return pack_directory(tree), summary.size
        return workspace.take_tree(path), summary.size

    def _placed(self, data: bytes) -> bytes | str:
        return data if len(data) < self.inline_limit else self._workspace.write_value([data])

    def _bounded(self, outputs: list[Encoded]) -> list[Encoded]:
        """Many outputs: those beyond a total become files, so that a frame keeps its limit."""
        total = 0
        for index, (value, info, size) in enumerate(outputs):
            if isinstance(value, bytes):
                total += len(value)
                if total > _INLINE_TOTAL:
                    outputs[index] = (self._workspace.write_value([value]), info, size)
        return outputs


def _instance_info(instance: DataInstance) -> bytes | None:
    info = instance.info
    fields: dict[str, Any] = {}
    if instance.content_type:
        fields["content_type"] = instance.content_type
    user = {**instance.spec.user, **info.user} if instance.object_id is not None else info.user
    user = {key: value for key, value in user.items() if not str(key).startswith("_")}
    if user:
        fields["user"] = user
    if info.debug:
        fields["debug"] = info.debug
    return pack(fields) if fields else None


def _pairs(plans: list[OutputPlan], value: Any) -> list[tuple[OutputPlan, Any]]:
    """Assign the returned values to the outputs.

    Raises:
        RainException: a label is missing or unknown, or the number is wrong.
    """
    if isinstance(value, Mapping):
        labels = [plan.label for plan in plans]
        if set(value) != set(labels):
            raise RainException(
                f"The function returned a mapping with keys {sorted(map(str, value))}, "
                f"its outputs are {sorted(map(str, labels))}"
            )
        return [(plan, value[plan.label]) for plan in plans]
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise RainException(
            f"The function has {len(plans)} outputs: it must return a sequence or a mapping, "
            f"not a {type(value).__name__!r}"
        )
    if len(value) != len(plans):
        raise RainException(f"The function has {len(plans)} outputs, but returned {len(value)} values")
    return list(zip(plans, value, strict=True))


def _must_be_blob(plan: OutputPlan, value: Any) -> None:
    if plan.directory:
        raise RainException(
            f"Output {plan} is a directory: return what ctx.stage_directory() gave, not a {type(value).__name__!r}"
        )
