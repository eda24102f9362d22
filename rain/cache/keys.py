"""What results are found by."""

from __future__ import annotations

from hashlib import blake2b

from rain.common.structs import dataclass

KEY_BYTES = 32

_VERSION = b"rain result 1"
_SIZE_BYTES = 8


@dataclass(frozen=True, slots=True)
class InputDigest:
    """One input of a task.

    Attributes:
        data_type: `blob` or `dir`.
        content_type: of the value, empty if it has none.
        digest: of the value.
    """

    data_type: str
    content_type: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class KeyParts:
    """What the result of a task depends on.

    Attributes:
        task_type: e.g. `py/` or `buildin/run`.
        computation: the text given as `cache=`, or else the digest of the function's code and the packed config.
        inputs: in order.
        labels: of the inputs, in order, as a program finds its files by them.
        outputs: what the outputs are, packed.
        env: of the task, sorted.
        python: minor version, e.g. `3.11`.
    """

    task_type: str
    computation: tuple[bytes, ...]
    inputs: tuple[InputDigest, ...]
    labels: tuple[str, ...]
    outputs: tuple[bytes, ...]
    env: tuple[tuple[str, str | None], ...]
    python: str


def result_key(parts: KeyParts) -> bytes:
    """The key of a result.

    Returns:
        KEY_BYTES bytes, different for different parts.
    """
    hasher = blake2b(digest_size=KEY_BYTES)
    for group in (
        (_VERSION, parts.task_type.encode(), parts.python.encode()),
        parts.computation,
        [piece for given in parts.inputs for piece in _input_pieces(given)],
        [label.encode() for label in parts.labels],
        parts.outputs,
        [piece for name, value in parts.env for piece in (name.encode(), _optional(value))],
    ):
        _add(hasher, len(group).to_bytes(_SIZE_BYTES, "little"))
        for piece in group:
            _add(hasher, piece)
    return hasher.digest()


def _input_pieces(given: InputDigest) -> tuple[bytes, bytes, bytes]:
    return given.data_type.encode(), given.content_type.encode(), given.digest


def _optional(value: str | None) -> bytes:
    return b"" if value is None else b"=" + value.encode()


def _add(hasher: blake2b, piece: bytes) -> None:
    """Lengths go in too, so that no two sequences of pieces look alike."""
    hasher.update(len(piece).to_bytes(_SIZE_BYTES, "little"))
    hasher.update(piece)
