"""What --cache may say."""

from pathlib import Path

import pytest

from rain.cache.choice import DEFAULT_KEY_FILE, DEFAULT_SIZE, CacheChoice, parse_choice

WORK = Path("/w")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("none", None),
        ("dir", CacheChoice(Path("/w/cache"))),
        ("dir:/shared/results", CacheChoice(Path("/shared/results"))),
        ("memcached://a:1", CacheChoice(None, "memcached://a:1", Path(DEFAULT_KEY_FILE))),
        ("memcached://a:1,b:2", CacheChoice(None, "memcached://a:1,b:2", Path(DEFAULT_KEY_FILE))),
        ("memcached://a:1?key_file=/k", CacheChoice(None, "memcached://a:1", Path("/k"))),
    ],
)
def test_choices(text, choice):
    assert parse_choice(text, WORK) == choice


def test_relative_paths_are_of_this_process():
    choice = parse_choice("dir:here", WORK)
    assert choice is not None
    assert choice.directory == Path.cwd() / "here"


def test_size():
    assert parse_choice("dir", WORK, 5) == CacheChoice(Path("/w/cache"), size=5)
    assert CacheChoice().size == DEFAULT_SIZE


@pytest.mark.parametrize("text", ["", "dir:", "redis://a", "memcached://", "memcached:a", "None"])
def test_what_it_is_not(text):
    with pytest.raises(ValueError, match="--cache"):
        parse_choice(text, WORK)


def test_unknown_options_of_the_url():
    with pytest.raises(ValueError, match="unknown option 'keyfile'"):
        parse_choice("memcached://a:1?keyfile=/k", WORK)


@pytest.mark.parametrize("text", ["dir", "memcached://a:1?key_file=/k"])
def test_workers_are_told_all_of_it(text):
    choice = parse_choice(text, WORK, 77)
    assert choice is not None
    assert CacheChoice.from_map(choice.to_map()) == choice
