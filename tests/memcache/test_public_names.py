"""What users import, under the names they know."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

import rain.memcache
from rain.memcache import base, client_errors, default_values
from rain.memcache.client import MemcachedClient

NAMES = {
    "create_client",
    "Client",
    "Item",
    "ClusterManagment",
    "ClusterManagement",
    "ClusterEvents",
    "ConnectionPoolMetrics",
    "MemcachedHostAddress",
    "MemcachedUnixSocketPath",
    "Lease",
    "ClusterNoAvailableNodes",
    "CommandError",
    "StorageCommandError",
    "NotStoredStorageCommandError",
    "NotFoundCommandError",
    "AuthenticationError",
    "ClientError",
    "ServerError",
    "NodeUnavailable",
}
CONSTANTS = {name for name in vars(default_values) if name.startswith("DEFAULT_")}

METHODS_OF_EMCACHE = {
    "add": "(self, key, value, *, flags=0, exptime=0, noreply=False)",
    "append": "(self, key, value, *, noreply=False)",
    "cache_memlimit": "(self, memcached_host_address, value, *, noreply=False)",
    "cas": "(self, key, value, cas, *, flags=0, exptime=0, noreply=False)",
    "close": "(self)",
    "cluster_managment": "(self)",
    "decrement": "(self, key, value, *, noreply=False)",
    "delete": "(self, key, *, noreply=False)",
    "flush_all": "(self, memcached_host_address, delay=0, *, noreply=False)",
    "gat": "(self, exptime, key, return_flags=False)",
    "gat_many": "(self, exptime, keys, return_flags=False)",
    "gats": "(self, exptime, key, return_flags=False)",
    "gats_many": "(self, exptime, keys, return_flags=False)",
    "get": "(self, key, return_flags=False)",
    "get_many": "(self, keys, return_flags=False)",
    "gets": "(self, key, return_flags=False)",
    "gets_many": "(self, keys, return_flags=False)",
    "increment": "(self, key, value, *, noreply=False)",
    "prepend": "(self, key, value, *, noreply=False)",
    "replace": "(self, key, value, *, flags=0, exptime=0, noreply=False)",
    "set": "(self, key, value, *, flags=0, exptime=0, noreply=False)",
    "stats": "(self, memcached_host_address, *args)",
    "touch": "(self, key, exptime, *, noreply=False)",
    "verbosity": "(self, memcached_host_address, level, *, noreply=False)",
    "version": "(self, memcached_host_address)",
}
FURTHER_METHODS = {
    "quit": "(self, memcached_host_address)",
    "set_many": "(self, items, *, flags=0, exptime=0, noreply=False)",
    "delete_many": "(self, keys, *, noreply=False)",
    "touch_many": "(self, keys, exptime, *, noreply=False)",
    "get_lease": "(self, key, *, lease=30, stale=0)",
    "get_or_set": "(self, key, factory, *, ttl=0, flags=0, lease=30, stale=0, wait=None)",
}


def test_names():
    """All of them, and no other."""
    assert set(rain.memcache.__all__) == NAMES | CONSTANTS
    for name in rain.memcache.__all__:
        assert hasattr(rain.memcache, name)
    for name in CONSTANTS:
        assert getattr(rain.memcache, name) == getattr(default_values, name)
    assert rain.memcache.ClusterManagement is rain.memcache.ClusterManagment


def test_exceptions():
    """The tree, base classes as written."""
    tree = {
        name: kind.__bases__
        for name, kind in vars(client_errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert tree == {
        "ClusterNoAvailableNodes": (Exception,),
        "CommandError": (Exception,),
        "StorageCommandError": (client_errors.CommandError,),
        "NotStoredStorageCommandError": (client_errors.StorageCommandError,),
        "NotFoundCommandError": (client_errors.CommandError,),
        "AuthenticationError": (client_errors.CommandError,),
        "ClientError": (client_errors.CommandError,),
        "ServerError": (client_errors.CommandError,),
        "NodeUnavailable": (ConnectionError, asyncio.TimeoutError),
    }


HOST = rain.memcache.MemcachedHostAddress("cache", 11211)


def test_command_errors():
    """The text has the reply; those without arguments make one of what they know."""
    error = client_errors.CommandError("get at cache: ERROR", reply="ERROR", command="get", address=HOST)
    assert (str(error), error.reply, error.command, error.address) == ("get at cache: ERROR", "ERROR", "get", HOST)
    bare = client_errors.NotFoundCommandError(reply="NOT_FOUND", command="touch", address=HOST)
    assert (bare.args, str(bare)) == ((), "touch at cache:11211 was answered NOT_FOUND")
    assert str(client_errors.NotStoredStorageCommandError(reply="EXISTS")) == "command was answered EXISTS"
    empty = client_errors.CommandError()
    assert (empty.args, str(empty), empty.reply, empty.command, empty.address) == ((), "", None, None, None)


def test_node_unavailable():
    error = client_errors.NodeUnavailable("lost", address=HOST, sent=True)
    assert (str(error), error.address, error.sent, error.args) == ("lost", HOST, True, ("lost",))
    with pytest.raises(asyncio.TimeoutError):
        raise client_errors.NodeUnavailable("lost")
    assert client_errors.NodeUnavailable().sent is False


@pytest.mark.parametrize(
    "error",
    [
        client_errors.NotFoundCommandError(reply="NOT_FOUND", command="touch", address=HOST),
        client_errors.ServerError("text", reply="SERVER_ERROR x"),
        client_errors.NodeUnavailable("lost", address=HOST, sent=True),
    ],
)
def test_exceptions_can_be_copied(error: Exception):
    """With all they know."""
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert other.args == error.args
        assert vars(other) == vars(error)


def test_items():
    """Mutable records with equality and repr."""
    item = base.Item(b"value", 1, None)
    assert item == base.Item(value=b"value", flags=1, cas=None) != base.Item(b"value", 1, 2)
    assert repr(item) == "Item(value=b'value', flags=1, cas=None)"
    item.flags = 7
    assert pickle.loads(pickle.dumps(item)) == item == copy.copy(item)


def test_metrics():
    """Exactly these fields, in this order."""
    assert [field.name for field in dataclasses.fields(base.ConnectionPoolMetrics)] == [
        "cur_connections",
        "connections_created",
        "connections_created_with_error",
        "connections_purged",
        "connections_closed",
        "operations_executed",
        "operations_executed_with_error",
        "operations_waited",
        "create_connection_avg",
        "create_connection_p50",
        "create_connection_p99",
        "create_connection_upper",
    ]


def shape(function: Any) -> str:
    """A signature without types."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
    ]
    return str(inspect.Signature(parameters)).replace(" = ", "=")


@pytest.mark.parametrize("kind", [base.Client, MemcachedClient])
def test_signatures(kind: type[base.Client]):
    for name, expected in (METHODS_OF_EMCACHE | FURTHER_METHODS).items():
        assert shape(getattr(kind, name)) == expected
        assert inspect.iscoroutinefunction(getattr(kind, name)) == (name != "cluster_managment")
    assert isinstance(inspect.getattr_static(kind, "closed"), property)


def test_only_what_emcache_has_is_abstract():
    """Subclasses written for it stay valid."""
    assert base.Client.__abstractmethods__ == METHODS_OF_EMCACHE.keys() | {"closed"}
    assert base.ClusterEvents.__abstractmethods__ == {"on_node_healthy", "on_node_unhealthy"}
    assert base.ClusterManagment.__abstractmethods__ == {
        "nodes",
        "healthy_nodes",
        "unhealthy_nodes",
        "connection_pool_metrics",
    }


async def test_what_a_fake_of_emcache_lacks():
    """It says so when it is used."""
    fake_kind = type("Fake", (base.Client,), dict.fromkeys(METHODS_OF_EMCACHE.keys() | {"closed"}, None))
    fake: Any = fake_kind()
    for call in (
        fake.quit(HOST),
        fake.set_many({b"a": b"b"}),
        fake.delete_many([b"a"]),
        fake.touch_many([b"a"], 1),
        fake.get_lease(b"a"),
        fake.get_or_set(b"a", bytes),
    ):
        with pytest.raises(NotImplementedError):
            await call


async def test_hooks_of_discovery_do_nothing():
    class Events(base.ClusterEvents):
        async def on_node_healthy(self, cluster_managment: Any, host: Any) -> None: ...

        async def on_node_unhealthy(self, cluster_managment: Any, host: Any) -> None: ...

    management: Any = object()
    assert await Events().on_node_added(management, HOST) is None
    assert await Events().on_node_removed(management, HOST) is None


def test_texts_of_messages_have_no_password():
    """Not even the options themselves."""
    opening = rain.memcache.create_client("memcached://user:secret@cache")
    assert "secret" not in repr(opening)
    assert "secret" not in repr(opening._options)


def test_typed():
    """The package says so to type checkers."""
    from importlib.resources import files

    assert files("rain").joinpath("py.typed").is_file()
