"""From a URL to a client: the address, the password, and how long anybody waits (DESIGN §3 and §8).

One server, the master that sentinels name, or a cluster. Which of several servers is the right one is the
client's work; here it is told how to ask, and its failures are put into words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from ..address import CLUSTER, Hosts, public_name, read_hosts, without_password
from ..errors import StoreError
from .cluster import as_redis_errors, primaries
from .failures import asks, needs_none, of_the_state, said
from .sentinels import Sentinels
from .wire import Client, Wire

PUBLISHED_PASSWORD = "changeme-02luka"
WAIT = {"socket_connect_timeout": 0.25, "socket_timeout": 1.0}
NAMED: dict[str, Any] = (
    {"driver_info": redis.DriverInfo(lib_version=redis.__version__)} if hasattr(redis, "DriverInfo") else {}
)
"""The library's version, which a connection tells the server: by itself it would look for it in the package's files."""
__all__ = ["PUBLISHED_PASSWORD", "connect", "public_name"]


def connect(url: str, password: str | None, warn: Callable[[str], None]) -> Client:
    """A client for a URL, with its password found out (DESIGN §3). Raises StoreAway, StoreError.

    `password` is used when the URL has none. A server that has no password is accepted although one is
    configured; one that asks, with none configured, is offered the published one, with a warning.
    """
    name = public_name(url)
    found = _try(url, password)
    if not isinstance(found, RedisError):
        return found
    if needs_none(found):
        second = _try(without_password(url), None)
        warning = f"{name} has no password although one is configured; it was used without"
    elif asks(found):
        second = _try(url, PUBLISHED_PASSWORD)
        warning = f"{name} accepts the published default password; set another one (requirepass)"
    else:
        raise said(found, name)
    if isinstance(second, RedisError):
        raise said(found if isinstance(second, AuthenticationError) else second, name)
    warn(warning)
    return second


def _try(url: str, password: str | None) -> Client | RedisError:
    """A client that was answered, or why none was."""
    client: Client | None = None
    try:
        with as_redis_errors():
            client = _client(url, password)
            for server in primaries(client) if isinstance(client, redis.RedisCluster) else [client]:
                _must_answer(server)
            if isinstance(client, redis.RedisCluster):
                _answers_for_slots(client)
    except RedisError as error:
        if client is not None:
            client.close()
        return error
    return client


def _must_answer(server: redis.Redis) -> None:
    """One that can write nothing to its disk refuses PING too; it can be read, and says so to each write."""
    try:
        server.ping()
    except RedisError as error:
        if not of_the_state(error):
            raise


def _answers_for_slots(client: Client) -> None:
    """A node of a cluster that is down says PONG as ever; only a key tells."""
    answer = Wire(client).exchange([("EXISTS", "memory:hub")])[0]
    if isinstance(answer, RedisError):
        raise answer


def _client(url: str, password: str | None) -> Client:
    # HELLO, which protocol 3 begins with, takes any password where none is needed: nobody would notice.
    options: dict[str, Any] = {**WAIT, "password": password, "protocol": 2, "decode_responses": False}
    try:
        hosts = read_hosts(url)
        if hosts is None:  # a password in the URL is stronger
            return redis.Redis.from_url(url, **options, **NAMED, retry=Retry(NoBackoff(), 0))
    except ValueError:  # its own words may quote a password with an unescaped slash in it
        hint = "redis://:password@host:6379/0, rediss://..., unix:///path; write a / in a password as %2F"
        raise StoreError(f"{public_name(url)} is not an address of Redis", hint=hint) from None
    options["password"] = hosts.password or password
    if hosts.user:
        options["username"] = hosts.user
    return _cluster(hosts, options) if hosts.scheme == CLUSTER else _master(hosts, options)


def _cluster(hosts: Hosts, options: dict[str, Any]) -> redis.RedisCluster:
    node: Any = ClusterNode
    nodes = [node(host, port) for host, port in hosts.hosts]
    return redis.RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 0), **options)


def _master(hosts: Hosts, options: dict[str, Any]) -> redis.Redis:
    sentinels: Any = Sentinels(hosts)
    client: redis.Redis = sentinels.master_for(hosts.service, db=hosts.db, retry=Retry(NoBackoff(), 0), **options)
    return client
