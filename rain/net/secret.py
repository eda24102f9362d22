"""Where the secret comes from."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from rain.common.errors import AuthenticationError
from rain.net.access import access_directories, newest_access_file, read_access_file, read_private_text
from rain.protocol.handshake import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rain.net.address import Address

__all__ = ["Secret", "find_secret", "generate_secret", "given_secret"]

_SECRET_BYTES = 32


def generate_secret() -> Secret:
    """A fresh secret of 256 random bits."""
    return Secret(secrets.token_hex(_SECRET_BYTES), "generated at start")


def given_secret(
    environ: Mapping[str, str], *, token: str | None = None, token_file: str | Path | None = None
) -> Secret | None:
    """The secret a server was told to use (`--token-file`, RAIN_TOKEN, RAIN_TOKEN_FILE); None = generate one.

    Raises:
        AuthenticationError: a file named cannot be used.
    """
    if token is not None:
        return _checked(token, "the argument token")
    if token_file is not None:
        return _read_token_file(Path(token_file), "token file")
    return _environment_secret(environ)


def find_secret(
    address: Address,
    *,
    token: str | None,
    token_file: str | Path | None,
    access_file: str | Path | None,
    environ: Mapping[str, str],
) -> Secret:
    """The secret for the server at `address`, as clients, workers and the command line look for it.

    In this order: `token`, `token_file`, `access_file`, RAIN_TOKEN, RAIN_TOKEN_FILE, RAIN_ACCESS_FILE, the newest
    matching file of the access directories.

    Returns:
        The secret. Its token is None where the source says that the server has none, or nothing was found; `source`
        says which.

    Raises:
        AuthenticationError: a source was named and cannot be used.
    """
    if token is not None or token_file is not None:
        given = given_secret(environ, token=token, token_file=token_file)
        assert given is not None
        return given
    if access_file is not None:
        return _read_access_secret(Path(access_file), "")
    found = _environment_secret(environ)
    if found is not None:
        return found
    if path := environ.get("RAIN_ACCESS_FILE"):
        return _read_access_secret(Path(path), " (RAIN_ACCESS_FILE)")
    newest = newest_access_file(environ, address)
    if newest is not None:
        return Secret(newest[1].token, f"access file {newest[0]}")
    places = " and ".join(map(str, access_directories(environ)))
    return Secret(
        None,
        "no token or access file was given, RAIN_TOKEN, RAIN_TOKEN_FILE and RAIN_ACCESS_FILE are not set, and "
        f"{places} has no access file for {address}",
    )


def _environment_secret(environ: Mapping[str, str]) -> Secret | None:
    if token := environ.get("RAIN_TOKEN"):
        return _checked(token, "RAIN_TOKEN")
    if path := environ.get("RAIN_TOKEN_FILE"):
        return _read_token_file(Path(path), "RAIN_TOKEN_FILE")
    return None


def _read_token_file(path: Path, what: str) -> Secret:
    return _checked(read_private_text(path, "token file").strip(), f"{what} {path}")


def _read_access_secret(path: Path, remark: str) -> Secret:
    return Secret(read_access_file(path).token, f"access file {path}{remark}")


def _checked(token: str, source: str) -> Secret:
    if not token.strip():
        raise AuthenticationError(f"the secret from {source} is empty")
    return Secret(token, source)
