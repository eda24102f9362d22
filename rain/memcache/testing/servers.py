"""Real memcached servers in processes of their own: plain, on unix sockets, with TLS, with passwords."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rain.memcache.addresses import MemcachedHostAddress, MemcachedUnixSocketPath

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from rain.memcache.testing.certificates import Certificate

START_SECONDS = 10.0
STOP_SECONDS = 10.0
ASK_SECONDS = 10.0
STEP_SECONDS = 0.005
PORTS = range(12000, 32000)
"""Below the ports that Linux gives to outgoing connections: these could take the port while a server is down."""
BIND_ATTEMPTS = 5
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
PACKAGES = {"memcached": "memcached", "saslpasswd2": "sasl2-bin", "openssl": "openssl"}
"""The Debian packages of the programs."""


class ServerFailed(Exception):
    """memcached did not start; the text has what it said."""


def missing_program(*names: str) -> str | None:
    """What to do when one of the programs is not installed; None: all are. No names: memcached."""
    packages = [PACKAGES[name] for name in names or ("memcached",) if shutil.which(name, path=PATH) is None]
    if not packages:
        return None
    return f"missing Debian packages; as root: apt-get install {' '.join(packages)}"


class MemcachedServer:
    """One memcached process on 127.0.0.1 or a unix socket; a context manager. It dies with the thread that started it.

    Args:
        unix: listen on a unix socket instead of a TCP port.
        tls: its certificate; None: no TLS.
        client_authority: file with the authority that must have signed the certificates of clients.
        users: passwords by user; only these are let in.
        sasl: they come by SASL in the binary protocol, not by ASCII authentication.
        options: further ones of the command line.
    """

    def __init__(
        self,
        *,
        unix: bool = False,
        tls: Certificate | None = None,
        client_authority: Path | None = None,
        users: Mapping[str, str] | None = None,
        sasl: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        self._unix = unix
        self._sasl = sasl
        self._options = [*options]
        self._folder = Path(tempfile.mkdtemp(prefix="memcached-"))
        self._port = 0
        self._port_file = self._folder / "port"
        self._process: subprocess.Popen[bytes] | None = None
        if tls is not None:
            self._options += ["-Z", "-o", f"ssl_chain_cert={tls.certificate},ssl_key={tls.key}"]
        if client_authority is not None:
            self._options += ["-o", f"ssl_ca_cert={client_authority},ssl_verify_mode=2"]
        if users is not None:
            self._options += ["-S"] if sasl else ["-Y", str(self._folder / "users")]
            self._write_users(users)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> MemcachedHostAddress | MemcachedUnixSocketPath:
        """Where it listens, after the first start; it does not change."""
        if self._unix:
            return MemcachedUnixSocketPath(str(self._folder / "socket"))
        return MemcachedHostAddress("127.0.0.1", self._port)

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process, which runs."""
        return self._running().pid

    def start(self) -> None:
        """Start, and wait until it listens.

        Raises:
            ServerFailed: it did not.
        """
        if reason := missing_program():
            raise ServerFailed(reason)
        chosen = self._unix or bool(self._port)
        attempts = 1 if chosen else BIND_ATTEMPTS
        while True:
            attempts -= 1
            if not chosen:
                self._port = _free_port()
            self.launch()
            try:
                return self._wait_until_ready()
            except ServerFailed as error:
                self.kill()
                if not attempts or "Address already in use" not in str(error):
                    raise

    def launch(self) -> None:
        """Start the process, again on its port, without waiting until it listens."""
        if self.running:
            raise RuntimeError("memcached runs already")
        place = ["-s", str(self._folder / "socket")] if self._unix else ["-l", "127.0.0.1", "-p", str(self._port)]
        user = ["-u", "root"] if os.geteuid() == 0 else []
        command = ["setpriv", "--pdeathsig", "KILL", "memcached", "-U", "0", *user, *place, *self._options]
        self._port_file.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "PATH": PATH,
            "SASL_CONF_PATH": str(self._folder),
            "MEMCACHED_PORT_FILENAME": str(self._port_file),
        }
        with (self._folder / "errors").open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=environment
            )

    def stop(self) -> None:
        """End it in an orderly way; it may be started again."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; it may be started again."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again, empty, at the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Let it do nothing: the kernel still accepts connections and bytes for it."""
        self._running().send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while any(_state(task) != "T" for task in Path(f"/proc/{self.pid}/task").iterdir()):
            if time.monotonic() > deadline:
                raise ServerFailed(f"memcached does not pause within {STOP_SECONDS} s")
            time.sleep(STEP_SECONDS)

    def resume(self) -> None:
        """Let it go on."""
        self._running().send_signal(signal.SIGCONT)

    def set_users(self, users: Mapping[str, str]) -> None:
        """Change the passwords of the running server; it takes up to a second until it knows them."""
        self._write_users(users)
        if not self._sasl:
            self._running().send_signal(signal.SIGHUP)

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def connect(self) -> socket.socket:
        """A connection of its own, past any client."""
        if self._unix:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            place: str | tuple[str, int] = str(self._folder / "socket")
        else:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            place = ("127.0.0.1", self._port)
        connection.settimeout(ASK_SECONDS)
        try:
            connection.connect(place)
        except BaseException:
            connection.close()
            raise
        return connection

    def ask(self, request: bytes, end: bytes = b"\r\n") -> bytes:
        """The answer to a request in the text protocol, up to its end; for servers without TLS and passwords."""
        with self.connect() as connection:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(end):
                data = connection.recv(1 << 16)
                if not data:
                    raise ServerFailed(f"memcached closed the connection after {answer!r}")
                answer += data
            return answer

    def stats(self) -> dict[str, str]:
        """Its statistics."""
        lines = self.ask(b"stats\r\n", b"END\r\n").decode().splitlines()[:-1]
        return dict(line.removeprefix("STAT ").split(" ", 1) for line in lines)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("memcached was not started")
        return self._process

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            said = (self._folder / "errors").read_text(errors="replace").strip()
            if not self.running:
                raise ServerFailed(f"memcached ended as it started: {said}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"memcached does not listen after {START_SECONDS} s: {said}")
            time.sleep(STEP_SECONDS)

    def _listens(self) -> bool:
        if not self._unix:
            return self._port_file.exists()  # a connection could reach another process that has the port
        try:
            self.connect().close()
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True

    def _write_users(self, users: Mapping[str, str]) -> None:
        file = self._folder / "users"
        if not self._sasl:
            file.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
            return
        (self._folder / "memcached.conf").write_text(f"mech_list: plain\nsasldb_path: {file}\n")
        for user, password in users.items():
            command = ["saslpasswd2", "-p", "-a", "memcached", "-c", "-f", str(file), user]
            environment = {**os.environ, "PATH": PATH}
            subprocess.run(
                command, input=password.encode(), check=True, capture_output=True, timeout=ASK_SECONDS, env=environment
            )


def _state(task: Path) -> str:
    """The state of a thread, as the kernel tells it: `T` is stopped."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed(f"no free port among {PORTS}")
