"""Digests of Python functions: equal for equal code, whatever file it is in and whichever process loaded it.

A function is walked, not pickled: pickles name files and lines, differ from process to process, and do not contain the
code of what they import. Followed are constants, defaults, closures, and the globals that the code names; functions and
classes of the same top-level package, or of `__main__`, by their code, others by their name and the version of their
package.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import Callable

DIGEST_BYTES = 32

_PLAIN = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis))
_WITHOUT_IDENTITY = frozenset({tuple, frozenset, types.CodeType})
_SAME_CLASS_FIELDS = frozenset(
    {"__dict__", "__weakref__", "__module__", "__firstlineno__", "__static_attributes__", "__abstractmethods__"}
)


def code_digest(fn: Callable[..., Any]) -> bytes:
    """Digest of what a function does.

    Args:
        fn: a function, method, class, `functools.partial` or other callable.

    Returns:
        DIGEST_BYTES bytes.

    Raises:
        RainException: something that the code uses can neither be walked nor pickled; names it.
    """
    walk = _Walk(_package_of(fn))
    walk.value(fn, getattr(fn, "__qualname__", repr(type(fn))))
    return walk.hasher.digest()


def _package_of(thing: Any) -> str:
    """The top-level package something is defined in."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    module: str = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0]


class _Walk:
    def __init__(self, package: str) -> None:
        self.hasher = blake2b(digest_size=DIGEST_BYTES)
        self._own = {package, "__main__", "__mp_main__"} - {"builtins"}
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # what `_seen` knows by its address

    def _note(self, tag: str, *pieces: str | bytes) -> None:
        for piece in (tag, *pieces):
            data = piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
            self.hasher.update(len(data).to_bytes(8, "little"))
            self.hasher.update(data)

    def value(self, thing: Any, name: str) -> None:
        """Walk anything; `name` is for error texts."""
        if type(thing) in _PLAIN:
            self._note(type(thing).__name__, repr(thing))
            return
        if type(thing) not in _WITHOUT_IDENTITY:  # whether equal ones are one object differs from process to process
            known = self._seen.get(id(thing))
            if known is not None:
                self._note("again", str(known))
                return
            self._seen[id(thing)] = len(self._seen)
            self._alive.append(thing)
        self._compound(thing, name)

    def _compound(self, thing: Any, name: str) -> None:
        kind = type(thing)
        if kind in (tuple, list):
            self._note(kind.__name__, str(len(thing)))
            for part in thing:
                self.value(part, name)
        elif kind in (set, frozenset):
            self._note(kind.__name__, *sorted(_alone(part, self._own, name) for part in thing))
        elif kind is dict:
            self._note("dict", str(len(thing)))
            for key, part in thing.items():
                self.value(key, name)
                self.value(part, f"{name}[{key!r}]")
        elif kind is types.CodeType:
            self._code(thing, name)
        elif kind is types.ModuleType:
            self._note("module", thing.__name__, _version(thing.__name__))
        else:
            self._callable(thing, name)

    def _callable(self, thing: Any, name: str) -> None:
        if isinstance(thing, types.FunctionType | type) and _package_of(thing) not in self._own:
            self._note("named", thing.__module__, thing.__qualname__, _version(thing.__module__))
        elif isinstance(thing, types.FunctionType):
            self._function(thing, name)
        elif isinstance(thing, type):
            self._class(thing, name)
        elif isinstance(thing, types.BuiltinFunctionType) and isinstance(thing.__self__, types.ModuleType | type(None)):
            self._note("builtin", str(thing.__module__), thing.__qualname__, _version(str(thing.__module__)))
        elif isinstance(thing, types.MethodType):
            self._note("method")
            self.value(thing.__func__, name)
            self.value(thing.__self__, name)
        elif isinstance(thing, functools.partial):
            self._note("partial")
            for part in (thing.func, thing.args, thing.keywords):
                self.value(part, name)
        elif isinstance(thing, staticmethod | classmethod):
            self._note(type(thing).__name__)
            self.value(thing.__func__, name)
        elif isinstance(thing, property):
            self._note("property")
            for accessor in (thing.fget, thing.fset, thing.fdel):
                self.value(accessor, name)
        elif hasattr(thing, "__wrapped__"):
            self._note("wrapper", type(thing).__qualname__)
            self.value(thing.__wrapped__, name)
        else:
            self._instance(thing, name)

    def _function(self, fn: types.FunctionType, name: str) -> None:
        self._note("function")
        self._code(fn.__code__, name)
        self.value(fn.__defaults__, name)
        self.value(fn.__kwdefaults__, name)
        for free, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                self._note("empty", free)
            else:
                self.value(content, free)
        for used in sorted(_names(fn.__code__)):
            if used in fn.__globals__:
                self._note("global", used)
                self.value(fn.__globals__[used], used)

    def _code(self, code: types.CodeType, name: str) -> None:
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        self._note("code", code.co_code, str(counts), str(code.co_names), str(code.co_varnames))
        self._note("cells", str(code.co_freevars), str(code.co_cellvars), code.co_exceptiontable)
        for constant in code.co_consts:
            self.value(constant, name)

    def _class(self, cls: type, name: str) -> None:
        self._note("class", cls.__qualname__)
        for base in cls.__bases__:
            self.value(base, base.__qualname__)
        for field, part in cls.__dict__.items():
            if field not in _SAME_CLASS_FIELDS and not isinstance(
                part, types.GetSetDescriptorType | types.MemberDescriptorType
            ):
                self._note("field", field)
                self.value(part, f"{name}.{field}")

    def _instance(self, thing: Any, name: str) -> None:
        self._note("instance")
        self.value(type(thing), type(thing).__qualname__)
        try:
            if type(thing).__module__.partition(".")[0] in self._own:
                parts: Any = thing.__reduce_ex__(4)  # as pickle takes it apart
            else:
                parts = pickle.dumps(thing, 5)
        except Exception as error:
            raise RainException(
                f"cache=True needs a digest of all that the function uses, and {name!r}, a {type(thing).__name__}, "
                f"cannot be pickled ({error}); pass it as an argument, or give a text as cache="
            ) from error
        if isinstance(parts, tuple):
            maker, arguments, state, *members = (*parts, None, None, None)[:5]
            parts = (maker, arguments, state, [list(part or ()) for part in members])
        self.value(parts, name)


def _alone(part: Any, own: set[str], name: str) -> bytes:
    """The digest of a member of a set, in which nothing has a place."""
    walk = _Walk("__main__")
    walk._own = own
    walk.value(part, name)
    return walk.hasher.digest()


def _names(code: types.CodeType) -> set[str]:
    """Names that code, and what is defined in it, looks up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _version(module: str) -> str:
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", ""))
