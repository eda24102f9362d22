"""`rain start`: from options to command lines."""

from __future__ import annotations

import os
import sys

import pytest

from rain.cli.main import build_parser
from rain.cli.start import _dashboard_url, _server_command, _worker_command, plan_of
from rain.net.access import AccessFile
from rain.net.address import Address

ADDRESS = Address("127.0.0.1", 7210)


def plan(*arguments: str):
    """The plan of a command line."""
    return plan_of(build_parser().parse_args(["start", *arguments]))


def test_simple():
    """One worker with all cpus, or all but one."""
    assert plan("--simple").cpus == [None]
    assert plan("--simple", "-S").cpus == [-1]
    assert "--cpus=-1" in _worker_command(plan("--simple", "-S"), 0, ADDRESS)


@pytest.mark.parametrize("option", ["--local-workers", "--local-governors"])
def test_local_workers(option):
    """A worker per number."""
    two = plan(f"{option}=[4,2]")
    assert two.cpus == [4, 2]
    assert "--cpus=2" in _worker_command(two, 1, ADDRESS)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--simple", "--local-workers=[1]"), ("--local-workers=4",), ("--simple", "--local-governors=[1]")]
)
def test_one_kind_of_workers_is_needed(arguments, capsys):
    """Wrong usage is exit code 1 with usage on stderr."""
    with pytest.raises(SystemExit) as caught:
        plan(*arguments)
    assert caught.value.code == 1
    assert "usage: rain start" in capsys.readouterr().err


def test_command_lines(tmp_path):
    """Directories, the prefix, the configuration and the secret reach the children."""
    full = plan(
        "--simple",
        "--listen=0.0.0.0:7333",
        f"--logdir={tmp_path}/log",
        f"--workdir={tmp_path}/work",
        "--worker-config=workers.toml",
        "--runprefix=nice -n 5",
        "--token-file=token",
        "--access-file=access.json",
        "--insecure",
        "--cache=memcached://node:11211",
        "--cache-size=2 MiB",
    )
    program = ["nice", "-n", "5", sys.executable, "-m", "rain"]
    secret = ["--token-file", "token", "--access-file", "access.json"]
    server = ["server", "--listen", "0.0.0.0:7333"]
    assert _server_command(full) == [
        *program,
        *server,
        "--cache",
        "memcached://node:11211",
        "--cache-size",
        "2097152",
        "--logdir",
        f"{tmp_path}/log/server",
        "--workdir",
        f"{tmp_path}/work/server",
        *secret,
        "--insecure",
    ]
    directories = ["--logdir", f"{tmp_path}/log/worker-0", "--workdir", f"{tmp_path}/work/worker-0"]
    assert _worker_command(full, 0, ADDRESS) == [
        *program,
        "worker",
        "127.0.0.1:7210",
        *directories,
        *secret,
        "--config",
        "workers.toml",
    ]


def test_the_cache_is_the_servers_unless_told(capsys):
    """Without options the server gets its own defaults; a wrong size is wrong usage."""
    parser = build_parser()
    command = _server_command(plan("--simple"))
    told = parser.parse_args(command[command.index("server") :])
    alone = parser.parse_args(["server"])
    assert (told.cache, told.cache_size) == (alone.cache, alone.cache_size) == ("dir", 1 << 30)
    with pytest.raises(SystemExit):
        plan("--simple", "--cache-size=much")
    assert "usage: rain start" in capsys.readouterr().err


def test_http_options():
    """They reach the server, and only it."""
    options = ["--http-listen=0.0.0.0:7333", "--http-auth", "--http-allow-origin=https://Hub.example"]
    full = plan("--simple", *options)
    wanted = ["--http-listen", "0.0.0.0:7333", "--http-auth", "--http-allow-origin", "https://hub.example"]
    assert _server_command(full)[-5:] == wanted
    assert not any("http" in argument for argument in _worker_command(full, 0, ADDRESS))
    assert plan("--simple", "--http-listen=none").http_listen == "none"
    assert plan("--simple", "--http-listen=192.0.2.1").http_listen == "192.0.2.1:7222"


@pytest.mark.parametrize("wrong", ["--http-listen=a:b", "--http-allow-origin=hub", "--http-listen="])
def test_wrong_http_options(wrong, capsys):
    with pytest.raises(SystemExit):
        plan("--simple", wrong)
    assert "usage: rain start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "addresses", "token", "url"),
    [
        ((), ["10.0.0.1"], "a b", "http://127.0.0.1:1/?token=a%20b"),
        ((), ["127.0.0.1"], None, "http://127.0.0.1:1/"),
        (("--http-listen=0.0.0.0:1",), ["10.0.0.1", "127.0.0.1"], "s", "http://10.0.0.1:1/?token=s"),
        (("--http-listen=[::]:1",), ["2001:db8::1"], "s", "http://[2001:db8::1]:1/?token=s"),
        (("--http-listen=node:1",), ["10.0.0.1"], "s", "http://node:1/?token=s"),
    ],
)
def test_url_of_the_dashboard(options, addresses, token, url):
    access = AccessFile("id", "node", addresses, 7210, 1, token, None, 1)
    assert _dashboard_url(plan("--simple", *options), access, 1) == url


def test_default_log_directory():
    """Named after machine and process."""
    assert str(plan("--simple").logdir) == f"/tmp/rain-logs/rain-{os.uname().nodename}-{os.getpid()}"
