"""Every importable name of the chapters about vocabularies and packages."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

_ERRORS = (
    "RainException RainConnectionError AuthenticationError RainTimeoutError InvalidRequestError SessionException "
    "TaskException TaskCancelled RainWarning"
)

NAMES = {
    "rain": "__version__",
    "rain.client": (
        "Client Session Input InputDir InputBase Output OutputDir OutputBase blob pickled directory DataObject Task "
        "Program remote Remote delayed Delayed TaskArray LocalCluster as_completed gather tasks rpc session data aio "
        + _ERRORS
    ),
    "rain.client.aio": "create_client AsyncClient AsyncSession as_completed gather",
    "rain.client.tasks": (
        "Concat Sleep Load LoadDir Store Execute MakeDirectory SliceDirectory "
        "concat sleep open open_dir export execute make_directory slice_directory"
    ),
    "rain.client.session": "Session SessionBinder get_active_session global_session_push global_session_pop",
    "rain.client.rpc": "common",
    "rain.client.data": "DataObject blob pickled directory to_dataobj to_data",
    "rain.client.output": "Output OutputDir OutputBase OutputSpec to_output",
    "rain.client.input": "Input InputDir InputBase",
    "rain.client.task": "Task",
    "rain.client.program": "Program",
    "rain.client.pycode": "Remote remote",
    "rain.client.graph": "Graph Node",
    "rain.client.client": "Client",
    "rain.common": "LabeledList DataInstance ID DataType " + _ERRORS,
    "rain.common.content_type": ("check_content_type merge_content_types is_type_instance encode_value decode_value"),
    "rain.common.attributes": ("TaskSpec TaskInfo ObjectSpec ObjectInfo SessionSpec TaskSpecInput AttributeBase"),
    "rain.common.ids": "ID",
    "rain.common.errors": _ERRORS,
    "rain.common.data_type": "DataType",
    "rain.common.data_instance": "DataInstance",
    "rain.common.labeled_list": "LabeledList",
    "rain.common.fs": "",
    "rain.common.utils": "",
    "rain.common.comm": "",
    "rain.executor": "",
    "rain.executor.__main__": "main",
    "rain.executor.executor": "unpickle_input_object Executor main",
    "rain.executor.context": "Context get_context",
    "rain.subworker": "",
    "rain.subworker.__main__": "main",
    "rain.subworker.executor": "unpickle_input_object Executor main",
    "rain.subworker.context": "Context get_context",
}


@pytest.mark.parametrize("module", NAMES)
def test_names(module):
    imported = importlib.import_module(module)
    for name in NAMES[module].split():
        assert getattr(imported, name) is not None, f"{module}.{name}"


def test_all_lists_only_what_exists():
    for module in NAMES:
        imported = importlib.import_module(module)
        for name in getattr(imported, "__all__", ()):
            assert hasattr(imported, name), f"{module}.{name}"


def test_same_things_under_two_names():
    from rain.client import RainException, data, rpc, tasks
    from rain.client.task import Task
    from rain.common import DataInstance, errors
    from rain.common.data_instance import DataInstance as Same
    from rain.common.states import DataObjectState, TaskState

    assert data.to_data is data.to_dataobj
    assert RainException is errors.RainException
    assert DataInstance is Same
    assert rpc.common.TaskState is TaskState
    assert rpc.common.DataObjectState is DataObjectState
    assert rpc.common.allTasksId == -2
    assert issubclass(tasks.Execute, Task)


def test_alias_package_is_the_executor():
    import rain.executor.context
    import rain.executor.executor
    import rain.subworker.context
    import rain.subworker.executor

    assert rain.subworker.executor is rain.executor.executor
    assert rain.subworker.context is rain.executor.context


@pytest.mark.parametrize(
    ("statement", "expression"),
    [
        ("import rain", "isinstance(rain.__version__, str)"),
        ("import rain", "not {'rain.client', 'msgpack', 'cloudpickle', 'asyncio'} & set(sys.modules)"),
        ("import rain.client", "callable(rain.common.content_type.decode_value)"),
        ("from rain.client import tasks, rpc, session", "callable(tasks.open)"),
        ("import rain.subworker.executor", "callable(rain.subworker.executor.main)"),
    ],
)
def test_in_a_fresh_interpreter(statement, expression):
    code = f"import sys\n{statement}\nassert {expression}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


TASK_TYPES = {
    "Concat": "buildin/concat",
    "Sleep": "buildin/sleep",
    "Load": "buildin/open",
    "LoadDir": "buildin/open_dir",
    "Store": "buildin/export",
    "Execute": "buildin/run",
    "MakeDirectory": "buildin/make_directory",
    "SliceDirectory": "buildin/slice_directory",
}


def test_classes_of_task_types():
    from rain.client import tasks
    from rain.client.task import TaskMeta

    for name, task_type in TASK_TYPES.items():
        made = getattr(tasks, name)
        assert task_type == made.TASK_TYPE
        assert TaskMeta.classes[task_type] is made
