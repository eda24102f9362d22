"""The two kinds of data objects."""

from enum import Enum


class DataType(Enum):
    """Kind of a data object; the values are part of the API."""

    BLOB = "blob"
    DIRECTORY = "dir"

    def _to_json(self) -> str:
        return str(self.value)

    @classmethod
    def _from_json(cls, value: str) -> "DataType":
        return cls(value)
