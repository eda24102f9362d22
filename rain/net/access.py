"""Access files: where a server writes how to reach it, so that its user's processes find it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import tempfile
import time
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.common.errors import AuthenticationError
from rain.common.structs import dataclass
from rain.net.address import DEFAULT_HOST, Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger("rain.net")

_VERSION = 1
_MAX_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class AccessFile:
    """How to reach one server. The fields are the keys of the JSON file.

    Attributes:
        server_id: unique per start of a server.
        hostname: where it runs.
        addresses: IP addresses or names under which it can be reached, best first.
        port, http_port: its ports; http_port is None without a dashboard.
        token: the secret; None with --insecure.
        tls_fingerprint: SHA-256 of its certificate, None without TLS.
        pid: of the server.
        created: unix seconds.
    """

    server_id: str
    hostname: str
    addresses: list[str]
    port: int
    http_port: int | None
    token: str | None = field(repr=False)
    tls_fingerprint: str | None
    pid: int
    created: float = field(default_factory=time.time)
    version: int = _VERSION

    @property
    def address(self) -> Address:
        """The address to connect to from here: loopback on the server's own machine if it listens there."""
        if is_own_hostname(self.hostname) and (not self.addresses or DEFAULT_HOST in self.addresses):
            return Address(DEFAULT_HOST, self.port)
        return Address(self.addresses[0] if self.addresses else self.hostname, self.port)

    def serves(self, address: Address) -> bool:
        """Whether `address` is this server's: the port and the host match."""
        if address.port != self.port:
            return False
        if address.is_loopback:
            return is_own_hostname(self.hostname)
        return address.host.lower() in {self.hostname.lower(), *(host.lower() for host in self.addresses)}


def is_own_hostname(hostname: str) -> bool:
    """Whether this is the name of this machine."""
    return hostname.lower() == socket.gethostname().lower()


def read_private_text(path: Path, what: str) -> str:
    """Read a file that nobody else may read.

    Args:
        path: of the file.
        what: what it is, for error texts, e.g. `"token file"`.

    Raises:
        AuthenticationError: it cannot be read, is not a plain file, or others may read or write it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise AuthenticationError(f"the {what} {path} is not a plain file")
            if status.st_mode & 0o077:
                raise AuthenticationError(f"the {what} {path} is readable by others; run: chmod 600 {path}")
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise AuthenticationError(f"cannot read the {what} {path}: {error.strerror}") from error
    if len(data) > _MAX_SIZE:
        raise AuthenticationError(f"the {what} {path} is too large")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise AuthenticationError(f"the {what} {path} is not text") from error


def read_access_file(path: str | Path) -> AccessFile:
    """Read an access file.

    Raises:
        AuthenticationError: it cannot be read, others may read it, or it is not an access file.
    """
    path = Path(path)
    text = read_private_text(path, "access file")
    try:
        content = json.loads(text)
        _check_content(content)
        return AccessFile(**{entry.name: content[entry.name] for entry in fields(AccessFile)})
    except (ValueError, KeyError, RecursionError) as error:
        raise AuthenticationError(f"{path} is not an access file: {error}") from error


def _check_content(content: Any) -> None:
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if content["version"] != _VERSION:
        raise ValueError(f"it has version {content['version']}, this Rain reads version {_VERSION}")
    if type(content["port"]) is not int or not isinstance(content["hostname"], str):
        raise ValueError("port or hostname has a wrong type")
    addresses = content["addresses"]
    if not isinstance(addresses, list) or not all(isinstance(host, str) for host in addresses):
        raise ValueError("addresses is not a list of strings")
    if not isinstance(content["token"], str | None) or not isinstance(content["created"], int | float):
        raise ValueError("token or created has a wrong type")


def access_directories(environ: Mapping[str, str]) -> list[Path]:
    """Where access files are, best place first: RAIN_ACCESS_DIR alone if it is set."""
    if chosen := environ.get("RAIN_ACCESS_DIR"):
        return [Path(chosen)]
    directories = []
    if home := environ.get("HOME"):
        directories.append(Path(home) / ".rain" / "access")
    directories.append(_shared_fallback())
    return directories


def _shared_fallback() -> Path:
    return Path(f"/tmp/rain-{os.getuid()}/access")


def write_access_file(access: AccessFile, environ: Mapping[str, str], path: str | Path | None = None) -> Path:
    """Write an access file atomically, mode 0600, replacing that of an earlier server on the port.

    Args:
        access: its content.
        environ: tells the access directory.
        path: another place for the file.

    Returns:
        Where it is.

    Raises:
        AuthenticationError: there is no place for it.
    """
    if path is not None:
        try:
            return _write_private(Path(path), access)
        except OSError as error:
            raise AuthenticationError(f"cannot write the access file {path}: {error.strerror}") from error
    problems = []
    for directory in access_directories(environ):
        try:
            _prepare_directory(directory)
            return _write_private(directory / f"{access.hostname}-{access.port}.json", access)
        except (OSError, AuthenticationError) as error:
            problems.append(f"{directory}: {error}")
    raise AuthenticationError(f"no place to store the access file ({'; '.join(problems)}); set RAIN_ACCESS_DIR")


def _prepare_directory(directory: Path) -> None:
    """Make the directory with mode 0700, or check that it is ours."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    _check_owner(directory)
    directory.chmod(0o700)


def _check_owner(directory: Path) -> None:
    """The directory is ours; of the one below the shared /tmp its parent too, which anybody may have made."""
    checked = [directory.parent.lstat()] if directory == _shared_fallback() else []
    checked.append(directory.stat())
    for status in checked:
        if not stat.S_ISDIR(status.st_mode):
            raise AuthenticationError(f"{directory} is not a directory")
        if status.st_uid != os.geteuid():
            raise AuthenticationError(f"the access directory {directory} belongs to another user")


def _write_private(path: Path, access: AccessFile) -> Path:
    # mkstemp makes files of mode 0600
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(access), file, indent=1)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    return path


def remove_access_file(path: str | Path, server_id: str) -> bool:
    """Remove an access file if it is still that of this server; return whether it was."""
    path = Path(path)
    try:
        if read_access_file(path).server_id != server_id:
            return False
        path.unlink()
    except (AuthenticationError, FileNotFoundError):
        return False
    return True


def newest_access_file(environ: Mapping[str, str], address: Address | None = None) -> tuple[Path, AccessFile] | None:
    """The newest access file of this user, of those that serve `address` if it is given; None if there is none.

    Raises:
        AuthenticationError: RAIN_ACCESS_DIR belongs to another user.
    """
    found = [
        (access.created, path, access)
        for path, access in _access_files(environ)
        if address is None or access.serves(address)
    ]
    if not found:
        return None
    _, path, access = max(found, key=lambda entry: entry[:2])
    return path, access


def _access_files(environ: Mapping[str, str]) -> Iterator[tuple[Path, AccessFile]]:
    for directory in access_directories(environ):
        try:
            _check_owner(directory)
            paths = sorted(directory.glob("*.json"))
        except OSError:  # it does not exist, or cannot be read
            continue
        except AuthenticationError as error:
            if "RAIN_ACCESS_DIR" in environ:
                raise
            _log.warning("ignored: %s", error)
            continue
        for path in paths:
            try:
                yield path, read_access_file(path)
            except AuthenticationError as error:
                _log.warning("ignored: %s", error)
