"""Servers for tests: a scripted fake one, and real ones in processes of their own; and checks that nothing is left."""

from rain.memcache.testing.answers import MISSING, success
from rain.memcache.testing.certificates import Certificate, Certificates, make_certificates
from rain.memcache.testing.fake import CLOSE, SILENCE, FakeConnection, FakeServer, Play
from rain.memcache.testing.leaks import LeakCheck, Leaked, loop_leaks, settled
from rain.memcache.testing.servers import MemcachedServer, ServerFailed, missing_program

__all__ = [
    "CLOSE",
    "MISSING",
    "SILENCE",
    "Certificate",
    "Certificates",
    "FakeConnection",
    "FakeServer",
    "LeakCheck",
    "Leaked",
    "MemcachedServer",
    "Play",
    "ServerFailed",
    "loop_leaks",
    "make_certificates",
    "missing_program",
    "settled",
    "success",
]
