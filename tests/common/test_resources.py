import pytest

from rain.common.resources import Resources, check_resources


def test_a_request():
    request = Resources.of_request({"gpus": 1, "memory": "2 GiB", "licence": 0.5})
    assert request == Resources(1, 1, 2 << 30, {"licence": 5000})
    assert request.to_map() == {"cpus": 1, "gpus": 1, "memory": 2 << 30, "licence": 0.5}
    assert Resources.of_request({}).to_map() == {"cpus": 1}
    assert Resources.of_request({"cpus": 0}).to_map() == {"cpus": 0}
    assert Resources.of_request({"x": 3}).to_map() == {"cpus": 1, "x": 3}


def test_an_offer():
    offer = Resources.of_worker({"cpus": 4, "gpus": [0, 3], "memory": 1 << 30, "licence": 2})
    assert offer == Resources(4, 2, 1 << 30, {"licence": 20000})


def test_arithmetic():
    offer = Resources(4, 1, 100, {"a": 5})
    part = Resources(1, 1, 40, {"a": 5})
    assert part.fits_into(offer)
    rest = offer.minus(part)
    assert rest == Resources(3, 0, 60, {})
    assert not part.fits_into(rest)
    assert rest.plus(part) == offer


def test_what_is_lacking_is_told():
    request = Resources(8, 1, 2 << 30, {"licence": 20000})
    assert request.lacking(Resources(4)) == ["cpus=8", "gpus=1", "memory=2.0 GiB", "licence=2"]
    assert request.lacking(request) == []
    assert str(request) == "cpus=8, gpus=1, memory=2.0 GiB, licence=2"


@pytest.mark.parametrize(
    "resources",
    [
        {"cpus": -1}, {"cpus": 1.5}, {"cpus": True}, {"gpus": "1"}, {"memory": "much"}, {"memory": -5}, {"memory": 1.5},
        {"a-b": 1}, {"": 1}, {"x": -1}, {"x": "1"}, {"x": True}, {"x": float("nan")}, {1: 1}, {"cpus": 1 << 70},
    ],
)  # fmt: skip
def test_what_is_refused(resources):
    with pytest.raises(ValueError, match="resource"):
        check_resources(resources)
