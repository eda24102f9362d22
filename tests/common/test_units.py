import pytest

from rain.common.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5 s", 5.0),
        ("2 min", 120.0),
        ("1h30m", 5400.0),
        ("7d", 604800.0),
        ("250ms", 0.25),
        ("30", 30.0),
        (" 1.5 h ", 5400.0),
        (3, 3.0),
        (0.5, 0.5),
        (0, 0.0),
    ],
)
def test_durations(value, seconds):
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", " ", "s", "5 parsecs", "1h 30", "-1", "5 5", -1, float("nan"), float("inf")])
def test_not_durations(value):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)


@pytest.mark.parametrize("value", [True, None, [], b"5"])
def test_duration_of_a_wrong_type(value):
    with pytest.raises(TypeError):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("500 MB", 500_000_000),
        ("2 GiB", 2 << 30),
        ("4096", 4096),
        ("1.5KiB", 1536),
        ("10k", 10_000),
        ("3 b", 3),
        (17, 17),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "GB", "2 GHz", "-5", "1 MB 2 kB", -1])
def test_not_sizes(value):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(value)


@pytest.mark.parametrize("value", [True, 1.5, None])
def test_size_of_a_wrong_type(value):
    with pytest.raises(TypeError):
        parse_size(value)


def test_texts():
    assert format_duration(5) == "5.0 s"
    assert format_duration(0.25) == "0.25 s"
    assert format_size(512) == "512 B"
    assert format_size(2 << 30) == "2.0 GiB"
    assert format_size(3 << 60) == "3072.0 PiB"
