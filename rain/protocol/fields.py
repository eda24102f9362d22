"""Types of message fields; the codec knows how each travels."""

from __future__ import annotations

from array import array  # noqa: TC003 - an alias is evaluated where it is used
from typing import Any, TypeAlias

U32: TypeAlias = "array[int]"
"""array("I")"""
U64: TypeAlias = "array[int]"
"""array("Q")"""
Ids: TypeAlias = "array[int] | range"
"""array("I"), or a range of step 1, which travels as its ends."""
F64: TypeAlias = "array[float]"
"""array("d")"""
Blobs: TypeAlias = "list[bytes | None]"
Map: TypeAlias = "dict[str, Any]"
