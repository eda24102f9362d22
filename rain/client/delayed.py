"""Plain Python functions as tasks: `@delayed`."""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
import threading
import types
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from rain.client.active import get_active_session
from rain.client.arguments import ArgumentPacker, pack_plain_args, pack_references
from rain.client.caching import with_code
from rain.client.data import CONSTANT, DataObject
from rain.client.handles import CallTask, DelayedTask, new_call
from rain.client.options import DEFAULT_CPUS, read_options
from rain.client.output import OutputSpec
from rain.client.shape import TaskShape, object_shape
from rain.client.site import here
from rain.common.errors import RainException
from rain.common.packing import PLAIN_TYPES, cloud_dump, cloudpickle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rain.client.base import BaseSession
    from rain.client.task import Task

TASK_TYPE = "py/"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = (_PACKAGE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))

_registering = threading.RLock()


class Delayed:
    """A Python function whose calls are tasks; made by `delayed`.

    Args:
        fn: the function.
        outputs: number of outputs.
        keep: whether outputs are kept as long as something refers to them.
        task_options: see `rain.client.options.read_options`; `session` included.

    Attributes:
        fn: the function.
        outputs: OutputSpec.
        keep: see above.
        default_name: name of its tasks.

    Raises:
        RainException: `fn` is not callable.
        ValueError, TypeError: a wrong option.
    """

    def __init__(self, fn: Callable[..., Any], *, outputs: Any = 1, keep: bool = True, **task_options: Any) -> None:
        if not callable(fn):
            raise RainException(f"delayed() must be applied to a function, not to {fn!r}")
        self.fn = fn
        self.outputs = OutputSpec(outputs)
        self.keep = keep
        self._signature, self._required, self._positional = _signature(fn)
        self.__doc__ = getattr(fn, "__doc__", None)
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self.__wrapped__ = fn
        self._key: Any = fn if _is_hashable(fn) else object()
        self._session: BaseSession | None = None
        self._options: dict[str, Any] = {"name": self.__name__, "cpus": DEFAULT_CPUS}
        self._change(task_options)

    def _change(self, task_options: dict[str, Any]) -> None:
        changes = dict(task_options)
        if "session" in changes:
            self._session = changes.pop("session")
        self._options = {**self._options, **changes}
        options = read_options(**self._options)
        self.default_name = options.name or self.__name__
        self._needs_code = options.cache is True
        config: dict[str, Any] = {"plain": True}
        encodings = [output.encode for output in self.outputs.outputs]
        if any(encodings):
            config["encode_outputs"] = encodings
        shapes = tuple(output.shape for output in self.outputs.outputs)
        self._shape = TaskShape(TASK_TYPE, options, None, shapes, has_config=True, config=config)

    def options(self, **task_options: Any) -> Delayed:
        """A copy with these task options changed; `name` and `session` included.

        Raises:
            ValueError, TypeError: a wrong option.
        """
        copy = Delayed.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._change(task_options)
        return copy

    def __call__(self, *args: Any, **kwargs: Any) -> Task:
        """Make a task; all arguments belong to the function.

        Raises:
            TypeError: the arguments do not fit the signature.
            RainException: no active session; an argument cannot be pickled.
            SessionException: the session is closed.
        """
        if (kwargs or not self._required <= len(args) <= self._positional) and self._signature is not None:
            self._signature.bind(*args, **kwargs)
        session = self._session or get_active_session()
        packed = None
        inputs: tuple[DataObject | CallTask, ...] | None = session._functions.get(self._key)
        if inputs is not None and not kwargs:
            if not args or type(args[0]) in PLAIN_TYPES:
                packed = pack_plain_args(args)
            else:
                references = pack_references(args)
                if references is not None:
                    packed = references[0]
                    inputs += references[1]
        if packed is None or inputs is None:
            session._check_open()
            packer = ArgumentPacker(session)
            packed, others = packer.pack(args, kwargs)
            alone = inputs or self._alone(session)
            if packer.constants:
                packer.register()
            inputs = alone + others if others else alone
        shape = with_code(self._shape, self.fn, session) if self._needs_code else self._shape
        return new_call(DelayedTask if self.keep else CallTask, shape, packed, inputs, session, here())

    def _alone(self, session: BaseSession) -> tuple[DataObject]:
        """The inputs of calls without data objects; one tuple for all of them."""
        return session._functions.setdefault(self._key, (self._function(session),))

    def _function(self, session: BaseSession) -> DataObject:
        """The function as a kept constant of the session."""
        known = session._static_data.get(self._key)
        if known is None:
            known = DataObject.__new__(DataObject)
            known._fill(object_shape(self.__name__, "cloudpickle"), CONSTANT, function_blob(self.fn))
            known._keep = True
            session._register(known)
            session._static_data[self._key] = known
        return known

    def __repr__(self) -> str:
        return f"<Delayed {self.default_name}>"


@overload
def delayed(fn: Callable[..., Any], *, outputs: Any = 1, keep: bool = True, **task_options: Any) -> Delayed: ...
@overload
def delayed(*, outputs: Any = 1, keep: bool = True, **task_options: Any) -> Callable[[Callable[..., Any]], Delayed]: ...
def delayed(fn: Any = None, *, outputs: Any = 1, keep: bool = True, **task_options: Any) -> Any:
    """Make calls of a plain function tasks: `@delayed`, `@delayed(cpus=2)`, `delayed(fn)`.

    Parameters: see `Delayed`.

    Raises:
        RainException: it is applied to something that is not callable.
        ValueError, TypeError: a wrong option.
    """
    if fn is not None:
        return Delayed(fn, outputs=outputs, keep=keep, **task_options)
    read_options(**{name: value for name, value in task_options.items() if name != "session"})
    return lambda function: Delayed(function, outputs=outputs, keep=keep, **task_options)


def function_blob(fn: Any) -> bytes:
    """The function by cloudpickle: what belongs to an installed package by name, everything else by value.

    Raises:
        RainException: it cannot be pickled.
    """
    try:
        with _by_value(inspect.unwrap(fn) if isinstance(fn, types.FunctionType) else fn):
            return cloud_dump(fn)
    except Exception as error:  # reducers may raise anything
        raise RainException(f"The function {fn!r} cannot be pickled: {error!r}") from error


@contextmanager
def _by_value(fn: Any) -> Iterator[None]:
    """Pickle what is defined in the function's module by value: workers need not have the user's own modules."""
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    if module is None or module.__name__ == "__main__" or _is_installed(module):
        yield
        return
    with _registering:
        known = module.__name__ in cloudpickle().list_registry_pickle_by_value()
        if not known:
            cloudpickle().register_pickle_by_value(module)
        try:
            yield
        finally:
            if not known:
                cloudpickle().unregister_pickle_by_value(module)


def _is_installed(module: types.ModuleType) -> bool:
    path = getattr(module, "__file__", None)
    return path is None or path.startswith(_INSTALLED)


def _is_hashable(fn: Any) -> bool:
    try:
        hash(fn)
    except TypeError:
        return False
    return True


def _signature(fn: Callable[..., Any]) -> tuple[inspect.Signature | None, int, int]:
    """The signature if it is known, and between how many arguments by position need no further check."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some built-ins have none
        return None, 0, 0
    parameters = list(signature.parameters.values())
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters):
        return signature, 1, 0
    return signature, sum(one.default is one.empty for one in positional), len(positional)


__all__ = ["Delayed", "delayed", "function_blob"]
