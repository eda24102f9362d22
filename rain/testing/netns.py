"""Several hosts on one machine: network namespaces around a router, whose paths can be cut, slowed down and healed.

Each host is a namespace with one interface; a namespace of its own routes between them. A cut path drops packets in the
router without a word, as a broken cable far away does: the sender hears nothing. Needs root and Debian's iproute2.

Example:
    with Network(("server", "worker")) as network:
        process = network["worker"].popen([sys.executable, "-m", "rain", "worker", network["server"].address])
        network.cut("worker", "server")  # packets of the worker do not arrive, those to it do
        network.heal("worker", "server")
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import threading
from functools import cache
from itertools import count, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rain.testing.delaywire import DelayWire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

TABLE = Path("/run/netns")
"""Where iproute2 keeps names of namespaces."""

_PREFIX = "rainnet"
_NAME = re.compile(rf"{_PREFIX}-(\d+)-\d+-[\w-]+")
_CLONE_NEWNET = 0x40000000
_COMMAND_TIMEOUT = 30.0
_ROUTER = "router"
_CUT_PREFERENCE = "100"  # before the tables of routes
_BURST, _QUEUE_TIME = "32kbit", "300ms"  # of limited links

_numbers = count(1)


class NetworkError(Exception):
    """A command of iproute2 failed; the text says which and why."""


class Host:
    """One machine of a Network.

    Attributes:
        name: as given to the Network.
        address: its IPv4 address.
        namespace: name of its network namespace.
        wire: name of the namespace of its long wire, if it has one.
    """

    def __init__(self, name: str, number: int, namespace: str) -> None:
        self.name = name
        self.number = number
        self.namespace = namespace
        self.wire = f"{namespace}-wire"
        self.address = f"10.77.{number}.2"
        self.gateway = f"10.77.{number}.1"

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process on this host; parameters as of subprocess.Popen."""
        return subprocess.Popen(["ip", "netns", "exec", self.namespace, *command], **options)

    def entered(self) -> AbstractContextManager[None]:
        """What this thread, and threads and processes it starts, do in this block is done on this host."""
        return _entered(self.namespace)

    def processes(self) -> list[int]:
        """Ids of all processes on this host."""
        return [int(pid) for pid in _run("ip", "netns", "pids", self.namespace).split()]


class Network:
    """Hosts that reach each other through a router.

    Args:
        names: of the hosts, distinct, at most 200.
        delays: seconds which packets need to hosts with a long wire, and as long from them.

    Raises:
        NetworkError: it cannot be made.
    """

    def __init__(self, names: Sequence[str], delays: Mapping[str, float] | None = None) -> None:
        base = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
        self._router = f"{base}-{_ROUTER}"
        self._hosts = {name: Host(name, number, f"{base}-{name}") for number, name in enumerate(names, 1)}
        self._delays = dict(delays or {})
        self._wires: list[DelayWire] = []
        self._cuts: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(self, source: str, target: str) -> None:
        """Drop what is sent from one host to another; the way back stays open. Nothing happens if it is cut."""
        self._set_cuts([(source, target)], cut=True)

    def heal(self, source: str, target: str) -> None:
        """End a cut."""
        self._set_cuts([(source, target)], cut=False)

    def part(self, one: str, other: str) -> None:
        """Cut both ways between two hosts."""
        self._set_cuts([(one, other), (other, one)], cut=True)

    def join(self, one: str, other: str) -> None:
        """End the cuts between two hosts."""
        self._set_cuts([(one, other), (other, one)], cut=False)

    def isolate(self, name: str) -> None:
        """Cut all ways from and to a host."""
        self._set_cuts([pair for pair in permutations(self._hosts, 2) if name in pair], cut=True)

    def heal_all(self) -> None:
        """End all cuts."""
        self._set_cuts(list(self._cuts), cut=False)

    def unplug(self, name: str) -> None:
        """Take a host's cable out: its own interface tells it so, other than with a cut."""
        _run("ip", "-n", self._router, "link", "set", f"to-{self._hosts[name].number}", "down")

    def plug(self, name: str) -> None:
        """Put it in again."""
        _run("ip", "-n", self._router, "link", "set", f"to-{self._hosts[name].number}", "up")

    def limit(self, name: str, rate: str) -> None:
        """Limit what a host sends and receives, each to `rate` as tc understands it, e.g. `2mbit`."""
        host = self._hosts[name]
        for namespace, device in ((self._router, f"to-{host.number}"), (host.namespace, "eth0")):
            shape = ("rate", rate, "burst", _BURST, "latency", _QUEUE_TIME)
            _run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf", *shape)

    def unlimit(self, name: str) -> None:
        """End the limit."""
        host = self._hosts[name]
        for namespace, device in ((self._router, f"to-{host.number}"), (host.namespace, "eth0")):
            _run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")

    def processes(self) -> list[int]:
        """Ids of the processes on all hosts."""
        return [pid for host in self._hosts.values() for pid in host.processes()]

    def close(self) -> None:
        """Remove namespaces and interfaces; idempotent. Processes on the hosts must have ended before."""
        for wire in self._wires:
            wire.close()
        self._wires.clear()
        hosts = self._hosts.values()
        for namespace in (*(host.namespace for host in hosts), *(host.wire for host in hosts), self._router):
            if (TABLE / namespace).exists():
                _run("ip", "netns", "del", namespace)

    def _build(self) -> None:
        _run("ip", "netns", "add", self._router)
        lines = ["link set lo up"]
        for host in self._hosts.values():
            _run("ip", "netns", "add", host.namespace)
            peer = f"eth0 netns {host.namespace}"
            if host.name in self._delays:
                peer = f"inner netns {host.wire}"
                _run("ip", "netns", "add", host.wire)
                _batch(host.wire, [f"link add outer type veth peer name eth0 netns {host.namespace}"])
            lines += [
                f"link add to-{host.number} type veth peer name {peer}",
                f"addr add {host.gateway}/24 dev to-{host.number}",
                f"link set to-{host.number} up",
            ]
        _batch(self._router, lines)
        for name, delay in self._delays.items():
            self._lay_wire(self[name], delay)
        for host in self._hosts.values():
            address = (f"addr add {host.address}/24 dev eth0", "link set eth0 up", "link set lo up")
            _batch(host.namespace, [*address, f"route add default via {host.gateway}"])
        # a filter of reverse paths would take a cut of one way for a cut of both
        settings = ("ip_forward 1", "conf/all/rp_filter 0", "conf/default/rp_filter 0", "conf/all/send_redirects 0")
        writes = (f"echo {value} > /proc/sys/net/ipv4/{name}" for name, value in (line.split() for line in settings))
        _run("ip", "netns", "exec", self._router, "sh", "-ec", "; ".join(writes))

    def _lay_wire(self, host: Host, delay: float) -> None:
        _batch(host.wire, ["link set inner up", "link set outer up"])
        with _entered(host.wire):
            self._wires.append(DelayWire("inner", "outer", delay))

    def _set_cuts(self, pairs: Iterable[tuple[str, str]], *, cut: bool) -> None:
        with self._lock:
            changed = [pair for pair in pairs if (pair in self._cuts) != cut]
            verb = "add" if cut else "del"
            lines = [
                f"rule {verb} pref {_CUT_PREFERENCE} from {self[source].address} to {self[target].address} blackhole"
                for source, target in changed
            ]
            if lines:
                _batch(self._router, lines)
            self._cuts.symmetric_difference_update(changed)


@cache
def obstacle() -> str | None:
    """Why networks cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not found: install iproute2"
    try:
        with Network(("probe",)) as network:
            network.limit("probe", "1mbit")
            network.isolate("probe")
    except NetworkError as error:
        return str(error)
    return None


def leftovers() -> list[str]:
    """Namespaces of networks of this process, and of processes that are gone."""
    found = []
    if TABLE.exists():
        for name in sorted(os.listdir(TABLE)):
            match = _NAME.fullmatch(name)
            if match and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1]))):
                found.append(name)
    return found


def remove_leftovers() -> None:
    """Remove the namespaces which killed processes have left."""
    for name in leftovers():
        if not name.startswith(f"{_PREFIX}-{os.getpid()}-"):
            _run("ip", "netns", "del", name)


@contextlib.contextmanager
def _entered(namespace: str) -> Iterator[None]:
    with open("/proc/thread-self/ns/net", "rb") as before, open(TABLE / namespace, "rb") as here:
        _set_namespace(here.fileno())
        try:
            yield
        finally:
            _set_namespace(before.fileno())


def _set_namespace(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _batch(namespace: str, lines: Sequence[str]) -> None:
    _run("ip", "-n", namespace, "-batch", "-", text="\n".join(lines) + "\n")


def _run(*command: str, text: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
