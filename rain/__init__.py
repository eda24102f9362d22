"""Rain: distributed task graphs for Python."""

__version__ = "0.5.0"
