"""`dataclass(slots=True)` for a tenth of the time: for classes that are imported at every start.

The standard library compiles up to ten methods per class, half a millisecond, and Rain has some two hundred classes.
Here only `__init__` is compiled, when the first instance is made; that one is faster than the standard one, too.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, slots, frozen=False, kw_only=False, eq=True):
        """As `dataclasses.dataclass`, for classes with slots and without bases, `ClassVar` and `InitVar`. Of the
        options of `field` it knows the defaults and `repr`."""
        assert slots
        return lambda cls: _made(cls, frozen, kw_only, eq)


class _StandardFields:
    """`__dataclass_fields__`, which `dataclasses.fields`, `replace` and `asdict` look at: made when one asks."""

    def __get__(self, instance: Any, owner: type[Any]) -> dict[str, Field[Any]]:
        cls: Any = next(base for base in owner.__mro__ if base.__dict__.get("__dataclass_fields__") is self)
        described = [(name, cls.__annotations__[name], field) for name, field in cls.__struct_fields__.items()]
        made: Any = dataclasses.make_dataclass(cls.__name__, described)
        found: dict[str, Field[Any]] = made.__dataclass_fields__
        cls.__dataclass_fields__ = found
        return found


def _made(cls: type[Any], frozen: bool, kw_only: bool, eq: bool) -> type[Any]:
    """The class with slots instead of the one without."""
    if cls.__bases__ != (object,):
        raise TypeError(f"{cls.__qualname__} has a base: use dataclasses.dataclass")
    namespace = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    fields = {name: _field(namespace.pop(name, MISSING), kw_only) for name in inspect.get_annotations(cls)}
    for name, method in _methods(fields, frozen, eq).items():
        if namespace.get(name) is None:  # None: `__hash__`, where there is an `__eq__`
            namespace[name] = method
    namespace |= {"__slots__": tuple(fields), "__struct_fields__": fields, "__dataclass_fields__": _StandardFields()}
    made: Any = type(cls.__name__, (), namespace)
    made.__qualname__ = cls.__qualname__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if made.__init__ is init:
            made.__init__ = _compiled_init(made, fields)
        made.__init__(self, *args, **kwargs)

    if "__init__" not in namespace:
        made.__init__ = init
    return cast("type[Any]", made)


def _field(default: Any, kw_only: bool) -> Field[Any]:
    if isinstance(default, list | dict | set):
        raise TypeError(f"all instances would share this default: {default!r}; use default_factory")
    made: Field[Any] = default if isinstance(default, Field) else dataclasses.field(default=default)
    made.kw_only = kw_only
    return made


def _methods(fields: dict[str, Field[Any]], frozen: bool, eq: bool) -> dict[str, Any]:
    """The methods that need not be compiled."""
    methods: dict[str, Any] = {
        "__repr__": _repr,
        "__match_args__": tuple(name for name, field in fields.items() if not field.kw_only),
    }
    if eq:
        values: Callable[[Any], Any] = attrgetter(*fields) if fields else lambda instance: ()

        def equal(self: Any, other: object) -> Any:
            return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

        methods["__eq__"] = equal
        methods["__hash__"] = (lambda self: hash(values(self))) if frozen else None
    if frozen:
        methods |= {
            "__setattr__": _refuse_to_set,
            "__delattr__": _refuse_to_delete,
            "__getstate__": _state,
            "__setstate__": _set_state,
        }
    return methods


def _compiled_init(cls: type[Any], fields: dict[str, Field[Any]]) -> Callable[..., None]:
    variables: dict[str, Any] = {"MISSING": MISSING}
    parameters, body = ["self"], []
    if any(field.kw_only for field in fields.values()):
        parameters.append("*")
    for name, field in fields.items():
        variables[f"set_{name}"] = cls.__dict__[name].__set__  # of the slot: even if the class is frozen
        variables[f"default_{name}"] = field.default
        variables[f"make_{name}"] = field.default_factory
        made = field.default_factory is not MISSING
        parameters.append(f"{name}=default_{name}" if made or field.default is not MISSING else name)
        value = f"make_{name}() if {name} is MISSING else {name}" if made else name
        body.append(f" set_{name}(self, {value})")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(body or [" pass"]), variables)
    init: Callable[..., None] = variables["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name, field in self.__struct_fields__.items() if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse_to_set(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__struct_fields__]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__struct_fields__, state, strict=True):
        object.__setattr__(self, name, value)
