"""Plain data that all sides share."""

from rain.common.data_instance import DataInstance
from rain.common.data_type import DataType
from rain.common.errors import (
    AuthenticationError,
    InvalidRequestError,
    RainConnectionError,
    RainException,
    RainTimeoutError,
    RainWarning,
    SessionException,
    TaskCancelled,
    TaskException,
)
from rain.common.ids import ID
from rain.common.labeled_list import LabeledList

__all__ = [
    "ID",
    "AuthenticationError",
    "DataInstance",
    "DataType",
    "InvalidRequestError",
    "LabeledList",
    "RainConnectionError",
    "RainException",
    "RainTimeoutError",
    "RainWarning",
    "SessionException",
    "TaskCancelled",
    "TaskException",
]
