"""What users import: the client, sessions, data objects, tasks and remote functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.client import data, rpc, session, tasks
from rain.client.array import TaskArray
from rain.client.client import Client
from rain.client.data import DataObject, blob, directory, pickled
from rain.client.delayed import Delayed, delayed
from rain.client.futures import as_completed, gather
from rain.client.input import Input, InputBase, InputDir
from rain.client.local_cluster import LocalCluster
from rain.client.output import Output, OutputBase, OutputDir
from rain.client.program import Program
from rain.client.pycode import Remote, remote
from rain.client.session import Session
from rain.client.task import Task
from rain.common import content_type
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

if TYPE_CHECKING:
    from rain.client import aio


def __getattr__(name: str) -> Any:
    """The asyncio client is imported when it is asked for, since asyncio takes its time."""
    if name != "aio":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module("rain.client.aio")


__all__ = [
    "AuthenticationError",
    "Client",
    "DataObject",
    "Delayed",
    "Input",
    "InputBase",
    "InputDir",
    "InvalidRequestError",
    "LocalCluster",
    "Output",
    "OutputBase",
    "OutputDir",
    "Program",
    "RainConnectionError",
    "RainException",
    "RainTimeoutError",
    "RainWarning",
    "Remote",
    "Session",
    "SessionException",
    "Task",
    "TaskArray",
    "TaskCancelled",
    "TaskException",
    "aio",
    "as_completed",
    "blob",
    "content_type",
    "data",
    "delayed",
    "directory",
    "gather",
    "pickled",
    "remote",
    "rpc",
    "session",
    "tasks",
]
