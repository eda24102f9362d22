"""A bounded number of points over time."""

from __future__ import annotations

from array import array

MOST_POINTS = 400


class Series:
    """Points over time; of neighbours one stays when there are too many. The first and the last are always there.

    Args:
        width: numbers of a point, the time (unix seconds) included.
        limit: most points.
    """

    __slots__ = ("_limit", "_spacing", "_values", "_width")

    def __init__(self, width: int, limit: int = MOST_POINTS) -> None:
        self._width = width
        self._limit = limit
        self._spacing = 0.0
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._values) // self._width

    def add(self, *point: float) -> None:
        """Add a point; its first number is the time, not earlier than that of the last one."""
        values, width = self._values, self._width
        if len(values) >= 2 * width and point[0] - values[-2 * width] <= self._spacing:
            values[-width:] = array("d", point)
            return
        values.extend(point)
        if len(values) > self._limit * width:
            self._spacing = 2 * (values[-width] - values[0]) / self._limit
            newest = values[-width:]
            kept = range(0, len(values) - width, 2 * width)
            self._values = array("d", [number for at in kept for number in values[at : at + width]])
            self._values.extend(newest)

    def points(self) -> list[list[float]]:
        """All points, oldest first."""
        width = self._width
        return [self._values[at : at + width].tolist() for at in range(0, len(self._values), width)]
