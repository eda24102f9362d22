"""Codecs of content types that need more than a line; optional libraries are imported when first used."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

from rain.common.errors import RainException
from rain.common.packing import dump_value

_KIND = b"rain.kind"
_SINGLE_VALUE = b"value"


def import_extra(module: str, extra: str) -> Any:
    """Import an optional dependency.

    Raises:
        RainException: it is not installed; the text names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RainException(
            f"The optional dependency {module!r} is not installed; install it by: pip install 'rain[{extra}]'"
        ) from error


def encode_pickle(value: Any) -> bytes:
    """Types `pickle` and `cloudpickle`."""
    return dump_value(value)


def decode_pickle(data: bytes | bytearray | memoryview) -> Any:
    """Types `pickle` and `cloudpickle`."""
    return pickle.loads(data)


def encode_cbor(value: Any) -> bytes:
    """Type `cbor`."""
    return bytes(import_extra("cbor2", "cbor").dumps(value))


def decode_cbor(data: bytes | bytearray | memoryview) -> Any:
    """Type `cbor`."""
    return import_extra("cbor2", "cbor").loads(bytes(data))


def is_arrow_table(value: Any) -> bool:
    """Tell whether the value is an Arrow table or record batch, without importing Arrow."""
    kind = type(value)
    return kind.__name__ in ("Table", "RecordBatch") and kind.__module__.startswith("pyarrow")


def encode_arrow(value: Any) -> bytes:
    """Type `arrow`: tables as they are, a data frame with pandas metadata, anything else as a table of one row.

    Raises:
        RainException: Arrow cannot represent the value.
    """
    pa = import_extra("pyarrow", "arrow")
    if isinstance(value, pa.RecordBatch):
        table = pa.Table.from_batches([value])
    elif isinstance(value, pa.Table):
        table = value
    elif type(value).__name__ == "DataFrame" and type(value).__module__.startswith("pandas"):
        table = pa.Table.from_pandas(value)
    else:
        try:
            column = pa.array([value])
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise RainException(
                f"Arrow cannot represent a value of type {type(value).__name__!r}: {error}"
            ) from error
        table = pa.table({"value": column}).replace_schema_metadata({_KIND: _SINGLE_VALUE})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def decode_arrow(data: bytes | bytearray | memoryview) -> Any:
    """Type `arrow`: a table, a data frame if it was one, or the single value."""
    pa = import_extra("pyarrow", "arrow")
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        table = reader.read_all()
    table.validate(full=True)  # looking at a damaged table ends the process
    metadata = table.schema.metadata or {}
    if metadata.get(_KIND) == _SINGLE_VALUE:
        return table.column("value")[0].as_py()
    if b"pandas" in metadata:
        import_extra("pandas", "arrow")
        return table.to_pandas()
    return table
