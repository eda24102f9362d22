"""Names which programs for Rain 0.1 to 0.4 import from here."""

from __future__ import annotations

from rain.common.states import DataObjectState, TaskState


class common:
    """Constants of the protocol."""

    TaskState = TaskState
    DataObjectState = DataObjectState
    allTasksId = -2


__all__ = ["common"]
