"""Remote Python functions: `@remote`."""

from __future__ import annotations

import inspect
import sys
import time
from typing import TYPE_CHECKING, Any, cast, overload

from rain.client.active import get_active_session
from rain.client.arguments import pack_plain_args, pack_references
from rain.client.caching import with_code
from rain.client.data import CONSTANT, DataObject, to_dataobj
from rain.client.embedding import InputCollector, collecting, reference_pickle
from rain.client.handles import CallTask, new_call
from rain.client.input import Input, InputBase
from rain.client.options import DEFAULT_CPUS, read_options
from rain.client.output import OutputBase, OutputSpec
from rain.client.shape import ObjectShape, TaskOptions, TaskShape
from rain.client.site import here
from rain.client.task import Task
from rain.common.errors import RainException, RainWarning
from rain.common.labeled_list import LabeledList
from rain.common.packing import PLAIN_TYPES, PickledValue, cloud_dump, dump_value, is_plain, pack_args

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rain.client.base import BaseSession

TASK_TYPE = "py/"
MAX_PICKLE = 256 << 10
"""Bytes of a pickled argument or function above which the call is refused by a warning."""
MAX_PICKLE_TIME = 1.0
"""Seconds of pickling, likewise."""

MAX_SHAPES = 1000
"""Task shapes remembered per function."""

_MOST_REFERENCES = 64
"""Data objects of a call whose packed arguments are remembered."""
_RESERVED = ("output", "outputs", "name", "session")


class Remote:
    """A Python function that runs in tasks; made by `remote`.

    Args:
        fn: the function; its first parameter is the context.
        inputs: parameter name -> Input.
        outputs: number of outputs, Output, sequence of labels and Outputs, or LabeledList; None = the return
            annotation, else one.
        auto_load: default of `Input.load`.
        auto_encode: default of `Output.encode`.
        name: default task name; None = the function's name.
        cpus: and all other task options, see `rain.client.options.read_options`.

    Attributes:
        fn: the function.
        inputs: parameter name -> Input, of all parameters but the context.
        outputs: OutputSpec.
        cpus: cpus of its tasks.
        default_name: default task name.

    Raises:
        RainException: `fn` is not callable, or has no parameter for the context.
        ValueError: outputs or an input are declared twice; a wrong option.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        inputs: Mapping[str, InputBase] | tuple[()] = (),
        outputs: Any = None,
        auto_load: bool | None = None,
        auto_encode: str | None = None,
        name: str | None = None,
        cpus: int | None = DEFAULT_CPUS,
        **task_options: Any,
    ) -> None:
        if not callable(fn):
            raise RainException(f"remote() must be applied to a function, not to {fn!r}")
        self.fn = fn
        self._signature = _signature(fn)
        self._parameters = list(self._signature.parameters.values())
        if not self._parameters:
            raise RainException(f"{fn!r} has no parameter; the first parameter of a remote function is the context")
        self.inputs, self._declared = _inputs(self._signature, dict(inputs), auto_load)
        self.outputs = _outputs(self._signature, outputs).with_encode(auto_encode)
        self.cpus = cpus
        self.default_name = name if name is not None else getattr(fn, "__name__", type(fn).__name__)
        self._session: BaseSession | None = task_options.pop("session", None)
        self._options: dict[str, Any] = {"cpus": cpus, **task_options}
        self._task_options = read_options(name=self.default_name, **self._options)
        self._needs_code = self._task_options.cache is True
        self._own_names = frozenset(self._signature.parameters).intersection(_RESERVED)
        self._required, self._most = _counts(self._parameters)
        self._names = self._argument_names(0)
        self._usual_outputs = self.outputs.instantiate()
        self._shapes: dict[tuple[str | None, tuple[str, ...]], TaskShape] = {}
        self._plain_shape = self._usual_shape(None, ())
        #: packed arguments and shape by the number of data objects
        self._reference_calls: dict[int, tuple[bytes, TaskShape]] = {}
        self.__doc__ = getattr(fn, "__doc__", None)
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self.__wrapped__ = fn

    def options(self, **task_options: Any) -> Remote:
        """A copy with these task options changed; `name` and `session` included.

        Raises:
            ValueError, TypeError: a wrong option.
        """
        copy = Remote.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        if "session" in task_options:
            copy._session = task_options.pop("session")
        if "name" in task_options:
            copy.default_name = task_options.pop("name")
        copy._options = {**self._options, **task_options}
        copy.cpus = copy._options["cpus"]
        copy._task_options = read_options(name=copy.default_name, **copy._options)
        copy._needs_code = copy._task_options.cache is True
        copy._shapes = {}
        copy._reference_calls = {}
        copy._plain_shape = copy._usual_shape(None, ())
        return copy

    def __call__(self, *args: Any, **kwargs: Any) -> Task:
        """Make a task: `f(*args, output=None, outputs=None, name=None, session=None, **kwargs)`.

        Raises:
            TypeError: the arguments do not fit the signature.
            RainWarning: an argument or the function is too large, or slow to pickle.
            RainException: no active session.
            SessionException: the session is closed.
        """
        output = outputs = name = None
        session = self._session
        if kwargs:
            own = self._own_names
            output = None if "output" in own else kwargs.pop("output", None)
            outputs = None if "outputs" in own else kwargs.pop("outputs", None)
            name = None if "name" in own else kwargs.pop("name", None)
            session = session if "session" in own else kwargs.pop("session", None) or session
        if kwargs or not self._required <= len(args) <= self._most:
            bound = self._signature.bind(None, *args, **kwargs)
            args, kwargs = bound.args[1:], bound.kwargs
        if session is None:
            session = get_active_session()
        session._check_open()
        function = session._static_data.get(self.fn)
        if function is not None and not kwargs and output is outputs is name is None and not self._needs_code:
            if not args or type(args[0]) in PLAIN_TYPES:
                plain = pack_plain_args(args, MAX_PICKLE // 4)
                if plain is not None:
                    alone = session._functions.get(function) or session._functions.setdefault(function, (function,))
                    return new_call(CallTask, self._plain_shape, plain, alone, session, here())
            else:
                found = self._pack_references(args)
                if found is not None:
                    packed, shape, objects = found
                    return new_call(CallTask, shape, packed, (function, *objects), session, here())
        blob = None if function is not None else self._function_blob()
        packed, collector = self._pack(args, kwargs)
        if collector is None:
            labels: tuple[str, ...] = ()
            inputs: tuple[DataObject, ...] = ()
        else:
            labels, inputs = tuple(collector.labels), tuple(collector.inputs)
        if output is not None or outputs is not None:
            shape = self._shape(self._named(name), self.outputs.instantiate(output, outputs), labels)
        elif name is not None or labels:
            shape = self._usual_shape(name, labels)
        else:
            shape = self._plain_shape
        if self._needs_code:
            shape = with_code(shape, self.fn, session)
        if function is None:
            function = _add_function(session, self.fn, cast(bytes, blob), self.default_name)
        return new_call(CallTask, shape, packed, (function, *inputs), session, here())

    def _usual_shape(self, name: str | None, labels: tuple[str, ...]) -> TaskShape:
        """A shape with the declared outputs; many calls share it."""
        shape = self._shapes.get((name, labels))
        if shape is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes = {}
            shape = self._shapes[name, labels] = self._shape(self._named(name), self._usual_outputs, labels)
        return shape

    def _named(self, name: str | None) -> TaskOptions:
        return self._task_options if name is None else read_options(name=name, **self._options)

    def _shape(self, options: TaskOptions, outputs: list[OutputBase], labels: tuple[str, ...]) -> TaskShape:
        return TaskShape(
            TASK_TYPE,
            options,
            (None, *labels) if labels else None,
            tuple(one.shape for one in outputs),
            has_config=True,
            config={"encode_outputs": [one.encode for one in outputs]},
        )

    def _argument_names(self, count: int) -> list[str]:
        """Names of at least `count` positional arguments, if there are so many: those of `*args` are `args[i]`."""
        names: list[str] = []
        for parameter in self._parameters[1:]:
            if parameter.kind is parameter.VAR_POSITIONAL:
                names += [f"{parameter.name}[{i}]" for i in range(count - len(names))]
                break
            names.append(parameter.name)
        return names

    def _pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, InputCollector | None]:
        """The packed arguments, and the data objects inside them if there are any."""
        plain = None if kwargs else pack_plain_args(args, MAX_PICKLE // 4)
        if plain is not None:
            return plain, None
        collector = InputCollector()
        names = self._names if len(args) <= len(self._names) else self._argument_names(len(args))
        with collecting(collector):
            packed_args = [self._pack_one(name, value, collector) for name, value in zip(names, args, strict=False)]
            packed_kwargs = {name: self._pack_one(name, value, collector) for name, value in kwargs.items()}
        packed = pack_args(packed_args, packed_kwargs)
        return packed, collector if collector.inputs else None

    def _pack_references(
        self, args: tuple[Any, ...]
    ) -> tuple[bytes, TaskShape, tuple[DataObject | CallTask, ...]] | None:
        """The packed arguments of a call that gets different data objects and nothing else, its shape, and these; None
        if it gets others, or data objects that must be looked at. Of equally many they are the same."""
        references = None if self._declared or len(args) > _MOST_REFERENCES else pack_references(args)
        if references is None:
            return None
        known = self._reference_calls.get(len(args))
        if known is None:
            packed, collector = self._pack(args, {})
            assert collector is not None
            known = self._reference_calls[len(args)] = packed, self._usual_shape(None, tuple(collector.labels))
        return *known, references[1]

    def _pack_one(self, name: str, value: Any, collector: InputCollector) -> Any:
        kind = type(value)
        if kind in PLAIN_TYPES and is_plain(value):
            if (kind is str or kind is bytes) and len(value) > MAX_PICKLE // 4:
                _check_size(name, len(value) if kind is bytes else len(value.encode()))
            return value
        spec = self.inputs.get(name.partition("[")[0]) or self._keywords_input()
        collector.begin(name, spec.load if spec else None, spec.content_type if spec else None)
        first = len(collector.inputs)
        packed = self._pack_value(name, value, collector)
        if spec is not None and spec in self._declared:
            for dataobj in collector.inputs[first:]:
                spec.check_type(dataobj)
        return packed

    def _pack_value(self, name: str, value: Any, collector: InputCollector) -> PickledValue:
        if isinstance(value, (Task, DataObject)):
            return PickledValue(reference_pickle(*collector.add(to_dataobj(value))))
        started = time.perf_counter()
        blob = _dump(value)
        _check_size(name, len(blob), time.perf_counter() - started)
        return PickledValue(blob)

    def _keywords_input(self) -> InputBase | None:
        last = self._parameters[-1]
        return self.inputs.get(last.name) if last.kind is last.VAR_KEYWORD else None

    def _function_blob(self) -> bytes:
        started = time.perf_counter()
        blob = cloud_dump(self.fn)
        _check_size(self.default_name, len(blob), time.perf_counter() - started)
        return blob

    def __repr__(self) -> str:
        return f"<Remote {self.default_name}>"


@overload
def remote(fn: Callable[..., Any], /) -> Remote: ...
@overload
def remote(
    *,
    outputs: Any = None,
    inputs: Mapping[str, InputBase] | tuple[()] = (),
    auto_load: bool | None = None,
    auto_encode: str | None = None,
    name: str | None = None,
    cpus: int | None = DEFAULT_CPUS,
    **task_options: Any,
) -> Callable[[Callable[..., Any]], Remote]: ...
def remote(*args: Any, **options: Any) -> Any:
    """Decorator that makes a function run in tasks: `@remote` or `@remote(outputs=2, ...)`.

    Parameters: see `Remote`.

    Raises:
        RainException: it is applied to something that is not callable.
    """
    if len(args) > 1:
        raise TypeError("remote() takes one function, or keyword arguments only")
    if args:
        return Remote(args[0], **options)
    return lambda fn: Remote(fn, **options)


def _add_function(session: BaseSession, fn: Any, blob: bytes, label: str) -> DataObject:
    """The function as kept constant of the session."""
    made: DataObject = DataObject.__new__(DataObject)
    made._fill(ObjectShape(label, "cloudpickle"), CONSTANT, blob)
    made._keep = True
    session._register(made)
    session._static_data[fn] = made
    return made


def _dump(value: Any) -> bytes:
    """Pickle an argument; data objects inside go to the collector."""
    try:
        return dump_value(value)
    except RainException:
        raise
    except Exception as error:  # a value's own methods may raise anything
        raise RainException(f"An argument of type {type(value).__name__} cannot be pickled: {error!r}") from error


def _check_size(name: str, size: int, seconds: float = 0.0) -> None:
    if size > MAX_PICKLE:
        raise RainWarning(
            f"Pickled object {name} length {size} exceeds {MAX_PICKLE} bytes; make a data object of it by blob() or "
            "pickled() and pass that"
        )
    if seconds > MAX_PICKLE_TIME:
        raise RainWarning(
            f"Pickled object {name} length {size} took {seconds:.1f} s to pickle; make a data object of it by blob() "
            "or pickled() and pass that"
        )


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn, eval_str=True)
    except Exception:  # annotations may name things that exist only for type checkers, and raise anything
        return inspect.signature(fn)


def _counts(parameters: list[inspect.Parameter]) -> tuple[int, int]:
    """Between how many arguments by position need no further check, if there are no others; the first parameter is the
    context. No number is between them where a keyword is required."""
    if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters):
        return 1, 0
    kinds = [one.kind for one in parameters]
    positional = [one for one in parameters[1:] if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    most = sys.maxsize if inspect.Parameter.VAR_POSITIONAL in kinds else len(positional)
    return sum(one.default is one.empty for one in positional), most


def _inputs(
    signature: inspect.Signature, given: dict[str, InputBase], auto_load: bool | None
) -> tuple[dict[str, InputBase], frozenset[InputBase]]:
    """The inputs of all parameters, and those of them that were declared."""
    parameters = list(signature.parameters.values())[1:]
    unknown = set(given).difference(parameter.name for parameter in parameters)
    if unknown:
        raise ValueError(f"inputs= names {', '.join(sorted(unknown))}, which the function does not have")
    found: dict[str, InputBase] = {}
    known: set[InputBase] = set()
    for parameter in parameters:
        annotation = parameter.annotation
        declared: InputBase | None = annotation if isinstance(annotation, InputBase) else None
        if isinstance(annotation, type) and issubclass(annotation, InputBase):
            declared = annotation()
        if parameter.name in given:
            if declared is not None:
                raise ValueError(f"The input {parameter.name!r} is declared twice: by inputs= and by its annotation")
            declared = given[parameter.name]
        one = found[parameter.name] = (declared or Input()).with_default_load(auto_load)
        if declared is not None:
            known.add(one)
    return found, frozenset(known)


def _outputs(signature: inspect.Signature, given: Any) -> OutputSpec:
    annotation = signature.return_annotation
    if isinstance(annotation, type) and issubclass(annotation, OutputBase):
        annotation = annotation()
    declares = (isinstance(annotation, (int, OutputBase, LabeledList)) and not isinstance(annotation, bool)) or (
        isinstance(annotation, (tuple, list)) and all(isinstance(one, (str, OutputBase)) for one in annotation)
    )
    if not declares:
        return OutputSpec(given)
    if given is not None:
        raise ValueError("The outputs are declared twice: by outputs= and by the return annotation")
    return OutputSpec(annotation)
