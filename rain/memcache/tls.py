"""TLS: contexts made from the options of a client, and what may share a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from rain.memcache.options import Options
    from rain.memcache.requests import Request

_RECORD = 16 * 1024
"""Bytes of the requests that may share a TLS record."""


def client_context(options: Options) -> ssl.SSLContext | None:
    """The context for all connections of a client.

    Returns:
        None without TLS; a context that the user passed as `ssl=` as it is.

    Raises:
        OSError: a file cannot be read; `ssl.SSLError`, a kind of OSError: it holds no certificate or no key.
    """
    if not options.ssl:
        return None
    import ssl

    if isinstance(options.ssl, ssl.SSLContext):
        return options.ssl
    context = ssl.create_default_context()
    if options.ssl_extra_ca is not None:
        context.load_verify_locations(options.ssl_extra_ca)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # home-made certificates rarely pass it
    context.check_hostname = options.ssl_verify and options.ssl_check_hostname
    if not options.ssl_verify:
        context.verify_mode = ssl.CERT_NONE
    if options.ssl_client_cert is not None:
        # Without a password OpenSSL would ask for one on the terminal, and the program would hang.
        context.load_cert_chain(options.ssl_client_cert, options.ssl_client_key, password="")
    return context


def records(batch: list[Request]) -> Iterator[list[Request]]:
    """Groups of requests that fit into one TLS record each; a request that does not is alone."""
    group: list[Request] = []
    room = _RECORD
    for request in batch:
        # No line is longer than this, in any dialect.
        size = 300 + len(request.key) + sum(len(key) + 110 for key in request.keys)
        if request.value is not None:
            size += len(request.value)
        if size > room and group:
            yield group
            group, room = [], _RECORD
        group.append(request)
        room -= size
    if group:
        yield group
