"""Certificates for servers and clients of tests, made on the spot with the command `openssl`."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "2"
MAKE_SECONDS = 30.0
_CONFIGURATION = "[req]\ndistinguished_name = name\n[name]\n"


@dataclass(frozen=True)
class Certificate:
    """Files with a certificate and its key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """What TLS is tested with.

    Attributes:
        authority: signed the next three.
        server: for localhost and 127.0.0.1, in the subject alternative name.
        nameless: for localhost, in the common name only.
        foreign: for another name, example.org.
        client: of a client.
        stranger: another authority, which signed none of them.
    """

    authority: Certificate
    server: Certificate
    nameless: Certificate
    foreign: Certificate
    client: Certificate
    stranger: Certificate


def make_certificates(folder: Path) -> Certificates:
    """Make them in an existing folder."""
    (folder / "openssl.cnf").write_text(_CONFIGURATION)
    root = ("-addext", "basicConstraints=critical,CA:TRUE")
    authority = _make(folder, "authority", "rain test authority", *root)
    stranger = _make(folder, "stranger", "another authority", *root)
    signed = ("-CA", str(authority.certificate), "-CAkey", str(authority.key))
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    return Certificates(
        authority=authority,
        stranger=stranger,
        server=_make(folder, "server", "localhost", *signed, "-addext", names),
        nameless=_make(folder, "nameless", "localhost", *signed),
        foreign=_make(folder, "foreign", "example.org", *signed, "-addext", "subjectAltName=DNS:example.org"),
        client=_make(folder, "client", "a client", *signed),
    )


def _make(folder: Path, name: str, common_name: str, *options: str) -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made.key))
    about = ("-config", str(folder / "openssl.cnf"), "-subj", f"/CN={common_name}", "-days", DAYS)
    command = ["openssl", "req", "-x509", *key, *about, *options, "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=MAKE_SECONDS)
    return made
