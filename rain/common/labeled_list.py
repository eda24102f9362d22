"""A list whose items may have unique labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from typing import Any, Generic, SupportsIndex, TypeVar, overload

T = TypeVar("T")


class LabeledList(MutableSequence[T], Generic[T]):
    """Mutable sequence with optional unique labels.

    Items are found by position or by label; `in` tests labels.

    Attributes:
        data: the values.
        labels: their labels, None for an unlabelled one.

    Example:
        >>> items = LabeledList(pairs=[("a", 1), (None, 2)])
        >>> items["a"], items[1], "a" in items
        (1, 2, True)
    """

    def __init__(
        self,
        items: Iterable[T] | None = None,
        labels: Iterable[str | None] | None = None,
        pairs: Iterable[tuple[str | None, T]] | None = None,
    ) -> None:
        if pairs is not None:
            if items is not None or labels is not None:
                raise ValueError("LabeledList takes either pairs or items and labels, not both")
            entries = list(pairs)
            self.data: list[T] = [value for _, value in entries]
            self.labels: list[str | None] = [label for label, _ in entries]
        else:
            if labels is None and isinstance(items, LabeledList):
                labels = items.labels
            self.data = list(items) if items is not None else []
            self.labels = list(labels) if labels is not None else [None] * len(self.data)
        if len(self.labels) != len(self.data):
            raise ValueError(f"{len(self.labels)} labels for {len(self.data)} items")
        self._check_labels()

    def _check_labels(self) -> None:
        seen: set[str] = set()
        for label in self.labels:
            _check_label_type(label)
            if label is None:
                continue
            if label in seen:
                raise KeyError(f"Duplicate label {label!r}")
            seen.add(label)

    def _check(self) -> None:
        """Assert that data and labels belong together and labels are unique."""
        assert len(self.data) == len(self.labels)
        named = [label for label in self.labels if label is not None]
        assert len(named) == len(set(named))

    def _position(self, key: SupportsIndex | str) -> int:
        if isinstance(key, str):
            try:
                return self.labels.index(key)
            except ValueError:
                raise KeyError(key) from None
        return key.__index__()

    def _check_free(self, label: str | None, position: int | None = None) -> None:
        """Raise unless `label` may be given to the item at `position` (None: to a new one)."""
        _check_label_type(label)
        if label is None or label not in self.labels:
            return
        holder = self.labels.index(label)
        if position is not None and holder == range(len(self.data))[position]:
            return
        raise KeyError(f"Duplicate label {label!r}")

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> list[T]: ...
    def __getitem__(self, key: SupportsIndex | str | slice) -> T | list[T]:
        if isinstance(key, slice):
            return self.data[key]
        return self.data[self._position(key)]

    def __setitem__(self, key: SupportsIndex | str | slice, value: Any) -> None:
        if isinstance(key, slice):
            data = list(self.data)
            labels = list(self.labels)
            values = list(value)
            data[key] = values
            labels[key] = [None] * len(values)
            self.data, self.labels = data, labels
            return
        position = self._position(key)
        self.data[position] = value
        self.labels[position] = None

    def __delitem__(self, key: SupportsIndex | str | slice) -> None:
        where = key if isinstance(key, slice) else self._position(key)
        del self.data[where]
        del self.labels[where]

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[T]:
        return iter(self.data)

    def __reversed__(self) -> Iterator[T]:
        return reversed(self.data)

    def __contains__(self, label: object) -> bool:
        return label is not None and label in self.labels

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabeledList) or other.__class__ is not self.__class__:
            return NotImplemented
        return self.data == other.data and self.labels == other.labels

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(
            repr(value) if label is None else f"{label!r}: {value!r}" for label, value in self.items()
        )
        return f"{self.__class__.__name__}[{inside}]"

    def __copy__(self) -> LabeledList[T]:
        return self.__class__(self.data, labels=self.labels)

    def copy(self) -> LabeledList[T]:
        """Return a copy with the same labels."""
        return self.__copy__()

    def items(self) -> Iterator[tuple[str | None, T]]:
        """Iterate over `(label, value)` pairs."""
        return zip(self.labels, self.data, strict=True)

    def append(self, value: T, label: str | None = None) -> None:
        """Add an item at the end.

        Raises:
            KeyError: the label is in use.
            TypeError: the label is neither str nor None.
        """
        self._check_free(label)
        self.data.append(value)
        self.labels.append(label)

    def insert(self, index: SupportsIndex, value: T, label: str | None = None) -> None:
        """Insert an item before position `index`; raises as `append`."""
        self._check_free(label)
        self.data.insert(index, value)
        self.labels.insert(index, label)

    def set(self, index: SupportsIndex | str, value: T, label: str | None = None) -> None:
        """Replace the item at `index` and its label; raises as `append`."""
        position = self._position(index)
        self._check_free(label, position)
        self.data[position] = value
        self.labels[position] = label

    def get_label(self, index: SupportsIndex | str) -> str | None:
        """Return the label of the item at `index`, None if it has none."""
        return self.labels[self._position(index)]

    def set_label(self, index: SupportsIndex | str, label: str | None) -> None:
        """Give the item at `index` a label; None removes it. Raises as `append`."""
        position = self._position(index)
        self._check_free(label, position)
        self.labels[position] = label

    def pop(self, index: SupportsIndex | str = -1) -> T:
        """Remove the item at `index` and return its value."""
        position = self._position(index)
        value = self.data.pop(position)
        self.labels.pop(position)
        return value

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of the first item equal to `value`; ValueError if there is none."""
        return self.data.index(value, start, len(self.data) if stop is None else stop)

    def count(self, value: Any) -> int:
        """Return how many items equal `value`."""
        return self.data.count(value)

    def remove(self, value: T) -> None:
        """Remove the first item equal to `value`; ValueError if there is none."""
        del self[self.data.index(value)]

    def reverse(self) -> None:
        """Reverse the order of the items, each keeping its label."""
        self.data.reverse()
        self.labels.reverse()

    def clear(self) -> None:
        """Remove all items."""
        self.data.clear()
        self.labels.clear()


def _check_label_type(label: object) -> None:
    if label is not None and not isinstance(label, str):
        raise TypeError(f"a label is a str or None, not {label!r}")
