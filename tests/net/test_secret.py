"""Where the secret is looked for, in order (spec 11.10)."""

from __future__ import annotations

import pytest

from rain.common.errors import AuthenticationError
from rain.net.access import write_access_file
from rain.net.address import Address
from rain.net.secret import find_secret, generate_secret, given_secret
from tests.net.test_access import access

ADDRESS = Address("127.0.0.1", 7210)


def private(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def everything(tmp_path):
    """All sources at once: options and environment."""
    environ = {
        "RAIN_TOKEN": "from-env",
        "RAIN_TOKEN_FILE": private(tmp_path / "env-token", "from-env-file\n"),
        "RAIN_ACCESS_DIR": str(tmp_path / "access"),
    }
    write_access_file(access(token="from-dir"), environ)
    named = write_access_file(access(token="from-env-access"), environ, tmp_path / "named.json")
    environ["RAIN_ACCESS_FILE"] = str(named)
    options = {
        "token": "from-token",
        "token_file": private(tmp_path / "token", " from-file \n"),
        "access_file": str(write_access_file(access(token="from-access"), environ, tmp_path / "option.json")),
    }
    return options, environ


def test_order(everything):
    options, environ = everything
    expected = [
        ("token", "from-token", "argument token"),
        ("token_file", "from-file", "token file"),
        ("access_file", "from-access", "option.json"),
        ("RAIN_TOKEN", "from-env", "RAIN_TOKEN"),
        ("RAIN_TOKEN_FILE", "from-env-file", "RAIN_TOKEN_FILE"),
        ("RAIN_ACCESS_FILE", "from-env-access", "RAIN_ACCESS_FILE"),
        ("RAIN_ACCESS_DIR", "from-dir", "7210.json"),
    ]
    for name, token, source in expected:
        secret = find_secret(ADDRESS, **options, environ=environ)
        assert secret.token == token
        assert source in secret.source
        if name in options:
            options[name] = None
        else:
            del environ[name]


def test_nothing_found(tmp_path):
    environ = {"RAIN_ACCESS_DIR": str(tmp_path)}
    secret = find_secret(ADDRESS, token=None, token_file=None, access_file=None, environ=environ)
    assert secret.token is None
    for word in ("RAIN_TOKEN", "RAIN_TOKEN_FILE", "RAIN_ACCESS_FILE", str(tmp_path), "127.0.0.1:7210"):
        assert word in secret.source


def test_insecure_server_has_an_access_file_without_token(tmp_path):
    environ = {"RAIN_ACCESS_DIR": str(tmp_path)}
    write_access_file(access(token=None), environ)
    secret = find_secret(ADDRESS, token=None, token_file=None, access_file=None, environ=environ)
    assert secret.token is None
    assert "access file" in secret.source


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_token_file_readable_by_others(tmp_path, mode):
    path = tmp_path / "token"
    private(path, "x")
    path.chmod(mode)
    with pytest.raises(AuthenticationError, match=f"token file {path} is readable by others"):
        find_secret(ADDRESS, token=None, token_file=path, access_file=None, environ={})
    with pytest.raises(AuthenticationError, match="readable by others"):
        given_secret({"RAIN_TOKEN_FILE": str(path)})


def test_unusable_token_files(tmp_path):
    for name, text in (("empty", "\n"), ("binary", None), ("missing", None)):
        path = tmp_path / name
        if name == "binary":
            path.write_bytes(b"\xff\xfe")
            path.chmod(0o600)
        elif text is not None:
            private(path, text)
        with pytest.raises(AuthenticationError, match=name):
            given_secret({}, token_file=path)
    with pytest.raises(AuthenticationError, match="empty"):
        given_secret({}, token="")


def test_given_secret_of_a_server(tmp_path):
    assert given_secret({}) is None
    secret = given_secret({"RAIN_TOKEN": "t"})
    assert secret is not None
    assert secret.token == "t"


def test_generated_secrets():
    one, other = generate_secret(), generate_secret()
    assert one.token is not None
    assert len(bytes.fromhex(one.token)) == 32
    assert one != other
