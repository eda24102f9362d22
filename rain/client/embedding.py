"""Data objects inside the arguments of a call: while an argument is pickled, each one becomes an input of the task."""

from __future__ import annotations

import pickle
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainException

if TYPE_CHECKING:
    from rain.client.data import DataObject


class InputCollector:
    """Collects the data objects met while the arguments of one call are pickled.

    Attributes:
        inputs: in the order met.
        labels: `NAME{k}`, where NAME is the argument and k counts inside it.
    """

    __slots__ = ("_content_type", "_load", "_met", "_name", "inputs", "labels")

    def __init__(self) -> None:
        self.inputs: list[DataObject] = []
        self.labels: list[str] = []
        self._met: dict[int, tuple[Any, ...]] = {}
        self._name = ""
        self._load: bool | None = None
        self._content_type: str | None = None

    def begin(self, name: str, load: bool | None, content_type: str | None) -> None:
        """The next argument is pickled: its name, and how it wants its data objects."""
        self._name = name
        self._load = load
        self._content_type = content_type
        self._met = {}

    def add(self, dataobj: DataObject) -> tuple[Any, ...]:
        """Note a data object; returns the arguments of its unpickling call."""
        reference = self._met.get(id(dataobj))
        if reference is None:
            # The function blob is input 0.
            label = f"{self._name}{{{len(self._met)}}}"
            reference = (label, len(self.inputs) + 1, self._load, self._content_type)
            self.labels.append(label)
            self.inputs.append(dataobj)
            self._met[id(dataobj)] = reference
        return reference


class _Current(threading.local):
    collector: InputCollector | None = None


_current = _Current()


class collecting:
    """`with collecting(collector):` data objects pickled by this thread go to the collector."""

    __slots__ = ("_collector", "_outer")

    def __init__(self, collector: InputCollector) -> None:
        self._collector = collector

    def __enter__(self) -> None:
        self._outer = _current.collector
        _current.collector = self._collector

    def __exit__(self, *exc_info: object) -> None:
        _current.collector = self._outer


_CALL = b"\x80\x05\x8c\x16rain.executor.executor\x8c\x15unpickle_input_object\x93"
"""Pickle: protocol 5, then the global `rain.executor.executor.unpickle_input_object`."""


@lru_cache(maxsize=1024)
def reference_pickle(name: str, index: int, load: bool | None, content_type: str | None) -> bytes:
    """What pickling a data object gives that is itself an argument, for the parameters of its unpickling call."""
    arguments = pickle.dumps((name, index, load, content_type), 3)
    return _CALL + arguments[2:-1] + b"R."


def embed(thing: Any, dataobj: DataObject | None = None) -> tuple[Any, ...]:
    """What `__reduce__` of a data object or task returns.

    Raises:
        RainException: it is not being pickled as an argument of a remote call.
    """
    collector = _current.collector
    if collector is None:
        raise RainException(
            f"{thing!r} cannot be pickled; data objects and tasks can only be arguments of remote calls and inputs of "
            "tasks"
        )
    from rain.executor.executor import unpickle_input_object

    return unpickle_input_object, collector.add(thing.output if dataobj is None else dataobj)
