"""Dataclasses made by `rain.common.structs` behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from rain.common.structs import dataclass


@dataclass(frozen=True, slots=True)
class Ours:
    """As Standard."""

    number: int
    text: str = "t"
    items: list[int] = dataclasses.field(default_factory=list)
    secret: str = dataclasses.field(default="s", repr=False)

    def double(self) -> int:
        """A method."""
        return 2 * self.number


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """As Ours."""

    number: int
    text: str = "t"
    items: list[int] = dataclasses.field(default_factory=list)
    secret: str = dataclasses.field(default="s", repr=False)


@dataclass(slots=True)
class Mutable:
    value: int = 0

    def __post_init__(self) -> None:
        self.value += 1


@dataclass(slots=True, eq=False)
class Alone:
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    first: int = 1
    second: int


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing."""


@pytest.mark.parametrize(
    ("args", "more"), [((1,), {}), ((1, "x"), {}), ((), {"number": 1, "items": [2]}), ((1, "x", [3], "y"), {})]
)
def test_arguments_and_text_are_the_same(args: tuple[object, ...], more: dict[str, object]):
    ours, standard = Ours(*args, **more), Standard(*args, **more)
    assert repr(ours) == repr(standard).replace("Standard", "Ours")
    assert dataclasses.asdict(ours) == dataclasses.asdict(standard)


@pytest.mark.parametrize(("args", "more"), [((), {}), ((1, 2, 3, 4, 5), {}), ((1,), {"number": 2}), ((1,), {"no": 2})])
def test_wrong_arguments(args: tuple[object, ...], more: dict[str, object]):
    with pytest.raises(TypeError) as error:
        Standard(*args, **more)
    with pytest.raises(TypeError) as ours:
        Ours(*args, **more)
    assert str(ours.value) == str(error.value).replace("Standard", "Ours")


def test_every_instance_has_its_own_default():
    Ours(1).items.append(2)
    assert Ours(1).items == []


def test_equality():
    assert Ours(1) == Ours(1)
    assert Ours(1) != Ours(2)
    assert Ours(1) != Ours(1, items=[1])
    assert Ours(1) != Standard(1)
    assert Empty() == Empty()
    assert Alone(1) != Alone(1)


def test_hash():
    assert hash(Named(second=2)) == hash(Named(second=2))
    assert len({Named(second=2), Named(second=2), Named(second=3)}) == 2
    assert len({Alone(1), Alone(1)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Mutable())


def test_frozen():
    ours = Ours(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'number'"):
        ours.number = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'number'"):
        del ours.number
    assert ours.double() == 2


def test_mutable():
    value = Mutable(3)
    assert value == Mutable(3)
    value.value = 7
    assert value != Mutable(3)
    with pytest.raises(AttributeError):
        value.other = 1  # type: ignore[attr-defined]


def test_after_init():
    assert Mutable().value == 1


def test_names_only():
    assert (Named(second=2).first, Named(first=3, second=2).first) == (1, 3)
    with pytest.raises(TypeError):
        Named(1, 2)  # type: ignore[misc]


@pytest.mark.parametrize("value", [Ours(1, "x", [2], "y"), Mutable(4), Empty()])
def test_copies(value: object):
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value


def test_functions_of_the_standard_library():
    assert dataclasses.is_dataclass(Ours)
    assert [field.name for field in dataclasses.fields(Ours)] == ["number", "text", "items", "secret"]
    assert [field.type for field in dataclasses.fields(Ours)] == [field.type for field in dataclasses.fields(Standard)]
    assert dataclasses.replace(Ours(1), text="x") == Ours(1, "x")
    assert dataclasses.replace(Named(second=1), second=2) == Named(second=2)


def test_patterns():
    match Ours(1, "x"):
        case Ours(number, text):
            assert (number, text) == (1, "x")
        case _:
            pytest.fail("no match")


def test_own_methods_stay():
    @dataclass(frozen=True, slots=True)
    class Own:
        value: int

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "own"

    assert Own(1) == Own(2)
    assert repr(Own(1)) == "own"
    assert hash(Own(1)) == hash(Own(1))


def test_what_is_not_supported():
    with pytest.raises(TypeError, match="base"):

        @dataclass(frozen=True, slots=True)
        class Derived(Empty):
            pass

    with pytest.raises(TypeError, match="default_factory"):

        @dataclass(frozen=True, slots=True)
        class Shared:
            items: list[int] = []  # noqa: RUF012
