"""Option values: what is read, and what is refused."""

import argparse

import pytest

from rain.cli import values


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (values.duration, "5 s", 5.0),
        (values.duration, "1.5", 1.5),
        (values.duration_or_none, "none", None),
        (values.duration_or_none, "2 min", 120.0),
        (values.size_or_detect, "detect", None),
        (values.size_or_detect, "2 GiB", 2 << 30),
        (values.cpus_or_detect, "detect", None),
        (values.cpus_or_detect, "-1", -1),
        (values.cpus_or_detect, "4", 4),
        (values.gpus_or_detect, "2", 2),
        (values.gpus_or_detect, "0,2", (0, 2)),
        (values.gpus_or_detect, "3,", (3,)),
        (values.gpus_or_detect, "detect", None),
        (values.named_amount, "licences=2", ("licences", 2.0)),
        (values.list_of_cpus, "[4,4,2]", [4, 4, 2]),
        (values.not_negative, "0", 0),
        (values.address, "7211", "127.0.0.1:7211"),
        (values.address, "0.0.0.0", "0.0.0.0:7210"),
        (values.address, "[::1]:7211", "[::1]:7211"),
        (values.data_address, "10.0.0.1", "10.0.0.1:0"),
        (values.selector, "1/12", values.Selector("1/12", 1, 12, 12)),
        (values.selector, " 1:12 ", values.Selector("1:12", 1, 12, 12)),
        (values.selector, "1/10-20", values.Selector("1/10-20", 1, 10, 20)),
        (values.selector, "3", values.Selector("3", 3, 0, values.LARGEST_ID)),
    ],
)
def test_accepted(reader, text, value):
    """Values as in the help texts."""
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (values.duration, "soon"),
        (values.duration, "-1"),
        (values.size_or_detect, "many"),
        (values.cpus_or_detect, "0"),
        (values.cpus_or_detect, "two"),
        (values.gpus_or_detect, "a,b"),
        (values.gpus_or_detect, "-1"),
        (values.named_amount, "licences"),
        (values.named_amount, "licences=-1"),
        (values.named_amount, "licences=nan"),
        (values.named_amount, "=1"),
        (values.list_of_cpus, "4"),
        (values.list_of_cpus, "[]"),
        (values.list_of_cpus, "[0]"),
        (values.list_of_cpus, "[true]"),
        (values.list_of_cpus, "[4"),
        (values.not_negative, "-1"),
        (values.address, "a b"),
        (values.address, "host:port"),
        (values.selector, ""),
        (values.selector, "1/"),
        (values.selector, "1/x"),
        (values.selector, "1/-5"),
        (values.selector, "1-5"),
        (values.selector, "1/20-10"),
        (values.selector, "1/4294967296"),
        (values.selector, "1/\u0663"),
    ],
)
def test_refused(reader, text):
    """The error quotes what was given."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        reader(text)
    assert repr(text) in str(caught.value) or "," in text
