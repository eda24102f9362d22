"""Tasks whose results may come from the result cache."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rain.cache.code import code_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.client.base import BaseSession
    from rain.client.shape import TaskShape


def with_code(shape: TaskShape, fn: Callable[..., Any], session: BaseSession) -> TaskShape:
    """The shape with the digest of the function as it is when the session uses it first, as it is pickled then, too.

    Args:
        shape: of tasks made with `cache=True`.
        fn: what they call.
        session: of the tasks.

    Raises:
        RainException: something that the function uses has no digest; names it.
    """
    known = session._coded_shapes.get(shape)
    if known is None:
        known = session._coded_shapes[shape] = replace(shape, code=code_digest(fn))
    return known
