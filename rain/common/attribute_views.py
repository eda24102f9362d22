"""The `attributes` facade: one mutable mapping over the spec and the info of a task or a data object.

Views hold no data. A key other than the fixed ones reads `spec.user` overlaid by `info.user` and writes
`info.user` where there is an info (in a task), else `spec.user` (while building).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rain.common.attributes import ObjectInfo, ObjectSpec, TaskInfo, TaskSpec

_TESTING_KEY = "__test"
_TESTING_FIELD = "_testing"


class _AttributesView(MutableMapping[str, Any]):
    """What both views share: fixed keys first, the user's data behind them."""

    def __init__(self, spec_user: dict[str, Any], info_user: dict[str, Any] | None) -> None:
        self._spec_user = spec_user
        self._info_user = info_user

    @abstractmethod
    def _fixed(self) -> dict[str, Any]: ...

    def _user(self) -> dict[str, Any]:
        return {**self._spec_user, **self._info_user} if self._info_user is not None else self._spec_user

    def _user_key(self, key: str) -> str:
        return key

    @abstractmethod
    def _check_writable(self, key: str) -> None: ...

    def __getitem__(self, key: str) -> Any:
        fixed = self._fixed()
        if key in fixed:
            return fixed[key]
        return self._user()[self._user_key(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._check_writable(key)
        target = self._spec_user if self._info_user is None else self._info_user
        target[self._user_key(key)] = value

    def __delitem__(self, key: str) -> None:
        self._check_writable(key)
        name = self._user_key(key)
        if name not in self._user():
            raise KeyError(key)
        self._spec_user.pop(name, None)
        if self._info_user is not None:
            self._info_user.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        fixed = self._fixed()
        yield from fixed
        for key in self._user():
            if key not in fixed and self._user_key(key) == key:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


class TaskAttributes(_AttributesView):
    """The facade of a task.

    Args:
        spec: of the task; `config` and `resources` are readable and writable through the view.
        info: of the task, None before `update()`.
        running: the view is used inside the running task, where `"info"` is not known yet.
    """

    def __init__(self, spec: TaskSpec, info: TaskInfo | None = None, *, running: bool = False) -> None:
        super().__init__(spec.user, info.user if info is not None else None)
        self._spec = spec
        self._info = info
        self._running = running

    def _fixed(self) -> dict[str, Any]:
        fixed: dict[str, Any] = {"config": self._spec.config, "resources": self._spec.resources}
        info = self._info
        if info is None:
            return fixed
        fixed["debug"] = info.debug
        if not self._running:
            fixed["info"] = details = {
                "worker": info.governor,
                "start": info.start_time,
                "duration": round((info.duration or 0.0) * 1000),
            }
            if info.error:
                details["error"] = info.error
        return fixed

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "config":
            self._spec.config = value
        elif key == "resources":
            self._spec.resources = value
        else:
            super().__setitem__(key, value)

    def _check_writable(self, key: str) -> None:
        if key in ("config", "resources", "info", "debug"):
            raise TypeError(f"attribute {key!r} of a task cannot be changed")


class ObjectAttributes(_AttributesView):
    """The facade of a data object or a data instance.

    Args:
        spec: of the object.
        info: of the object, None before `update()` and `fetch()`.
    """

    def __init__(self, spec: ObjectSpec, info: ObjectInfo | None = None) -> None:
        super().__init__(spec.user, info.user if info is not None else None)
        self._spec = spec
        self._info = info

    def _fixed(self) -> dict[str, Any]:
        spec, info = self._spec, self._info
        fixed: dict[str, Any] = {
            "spec": {"content_type": spec.content_type, "label": spec.label, "data_type": spec.data_type.value}
        }
        if info is not None:
            fixed["info"] = {"size": info.size, "content_type": info.content_type}
            fixed["debug"] = info.debug
        if _TESTING_FIELD in spec.user:
            fixed[_TESTING_KEY] = spec.user[_TESTING_FIELD]
        return fixed

    def __setitem__(self, key: str, value: Any) -> None:
        if key == _TESTING_KEY:
            self._spec.user[_TESTING_FIELD] = value
        else:
            super().__setitem__(key, value)

    def _user_key(self, key: str) -> str:
        return _TESTING_KEY if key == _TESTING_FIELD else _TESTING_FIELD if key == _TESTING_KEY else key

    def _check_writable(self, key: str) -> None:
        if key in ("spec", "info", "debug"):
            raise TypeError(f"attribute {key!r} of a data object cannot be changed")
