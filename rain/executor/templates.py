"""What many calls have in common, decoded once."""

from __future__ import annotations

from typing import Any

from rain.common.attributes import TaskSpec, TaskSpecInput
from rain.common.data_type import DataType
from rain.common.ids import ID
from rain.common.packing import pack, unpack


class OutputPlan:
    """One declared output.

    Attributes:
        label: None without one.
        content_type: static type, None without one.
        directory: it is a directory, not a blob.
        natural: a blob whose encoding follows from the value.
        encode: type by which values are encoded, None = by the kind of the value.
    """

    __slots__ = ("content_type", "directory", "encode", "label", "natural")

    def __init__(self, spec: dict[str, Any], encode: str | None) -> None:
        self.label: str | None = spec.get("label")
        self.content_type: str | None = spec.get("content_type") or None
        self.directory = spec.get("data_type") == DataType.DIRECTORY.value
        self.encode = encode
        self.natural = not encode and not self.directory

    def __str__(self) -> str:
        return repr(self.label) if self.label is not None else "without label"


class Template:
    """A template as the executor needs it.

    Args:
        data: the template map.

    Attributes:
        plain: a plain function: no context parameter, inputs arrive as values.
        outputs: declared outputs.
        output_spec: packed spec of the first output, None = all default.
    """

    __slots__ = ("_data", "output_spec", "outputs", "plain")

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        config = data.get("config")
        config = config if isinstance(config, dict) else {}
        self.plain = bool(config.get("plain"))
        specs = data.get("outputs") or []
        self.output_spec = pack(specs[0]) if specs and specs[0] else None
        encodings = list(config.get("encode_outputs") or [])
        encodings += [None] * (len(specs) - len(encodings))
        self.outputs = [OutputPlan(spec, encode or None) for spec, encode in zip(specs, encodings, strict=False)]

    def specified(self, specs: list[bytes | None]) -> Template:
        """The template for a task whose outputs have packed specs of their own; None = as here."""
        shared = self._data.get("outputs") or []
        shared = [*shared, *([{}] * (len(specs) - len(shared)))]
        outputs = [theirs if own is None else unpack(own) for own, theirs in zip(specs, shared, strict=False)]
        return Template({**self._data, "outputs": outputs})

    def task_spec(self, session: int, task: int, inputs: list[int], outputs: list[int]) -> TaskSpec:
        """The spec of one task of this template."""
        data = self._data
        labels = data.get("labels") or []
        labels = [*labels, *([""] * (len(inputs) - len(labels)))]
        spec = TaskSpec(
            id=ID(session, task),
            task_type=data.get("task_type", "py/"),
            inputs=[
                TaskSpecInput(id=ID(session, number), label=label or "")
                for number, label in zip(inputs, labels, strict=False)
            ],
            outputs=[ID(session, number) for number in outputs],
        )
        for name in ("config", "resources", "name", "user", "retries", "timeout", "priority", "cache", "env"):
            if name in data:
                value = data[name]
                setattr(spec, name, dict(value) if isinstance(value, dict) else value)
        return spec
