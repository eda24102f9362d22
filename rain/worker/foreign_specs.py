"""The maps which executors of the public protocol get: specs and infos with the fields of Rain 0.4 only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from rain.worker.core.actions import Run

_SPEC_FIELDS = ("label", "content_type", "user")
_INFO_FIELDS = ("error", "content_type", "user", "debug")


def task_spec(run: Run) -> dict[str, Any]:
    """The TaskSpec of a run. `id`, `task_type`, `inputs`, `outputs` and `resources` are always there."""
    template = run.template_data
    session, number, _ = run.key
    cpus = (template.get("resources") or {}).get("cpus")
    spec: dict[str, Any] = {
        "id": [session, number],
        "task_type": template["task_type"],
        "inputs": _inputs(run),
        "outputs": [[session, output] for output in run.outputs],
        "resources": {"cpus": 1 if cpus is None else cpus},
    }
    config = _config(run)
    if config is not None:
        spec["config"] = config
    spec.update({name: template[name] for name in ("name", "user") if template.get(name)})
    return spec


def _inputs(run: Run) -> list[dict[str, Any]]:
    labels = run.template_data.get("labels") or []
    labels = [*labels, *([None] * (len(run.inputs) - len(labels)))]
    inputs: list[dict[str, Any]] = []
    for item, label in zip(run.inputs, labels, strict=False):
        entry: dict[str, Any] = {"id": list(item.object)}
        if label:
            entry["label"] = label
        inputs.append(entry)
    return inputs


def _config(run: Run) -> Any:
    if "config" in run.template_data:
        return run.template_data["config"]
    return None if run.args is None else msgpack.unpackb(run.args)


def output_fields(run: Run, index: int) -> dict[str, Any]:
    """What was asked of an output, without its id; absent = default."""
    own = run.output_specs[index] if run.output_specs else None
    if own is not None:
        return unpacked(own)
    specs = run.template_data.get("outputs") or ()
    return unpacked(specs[index]) if index < len(specs) else {}


def unpacked(fields: bytes | dict[str, Any] | None) -> dict[str, Any]:
    """A map that may come packed or not at all."""
    if isinstance(fields, bytes):
        opened: dict[str, Any] = msgpack.unpackb(fields)
        return opened
    return fields or {}


def object_spec(key: tuple[int, int], fields: dict[str, Any]) -> dict[str, Any]:
    """The ObjectSpec of an object. `id` and `data_type` are always there."""
    chosen = {name: fields[name] for name in _SPEC_FIELDS if fields.get(name)}
    return {"id": list(key), "data_type": fields.get("data_type", "blob"), **chosen}


def object_info(fields: dict[str, Any], size: int) -> dict[str, Any]:
    """The ObjectInfo of a value of `size` bytes. `size` is always there."""
    return {"size": size, **{name: fields[name] for name in _INFO_FIELDS if fields.get(name)}}
