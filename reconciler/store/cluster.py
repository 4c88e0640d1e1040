"""Many commands to a cluster, each to the node that holds its key, following the slots while they move.

The client's own pipeline raises for the whole of it where one node is gone, and sleeps. Here each node gets its
share in one round trip; what a moving slot answers (MOVED, ASK, TRYAGAIN: nothing was done) is sent again, for
one second. Nothing else is: whether a lost connection had delivered a write is not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)

from .failures import WrongAddress

Command = tuple[str | bytes, ...]
Exchange = Callable[[redis.Redis, Sequence[Command]], list[Any]]
"""Sends commands to one server, and returns their answers, errors included."""

MOVING = 1.0
"""Seconds in which a slot that moves must have arrived."""
_KEYLESS = ("PING", "PUBLISH", "SCRIPT", "TIME")
_SCRIPTS = ("EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO")


def exchange_with_cluster(cluster: redis.RedisCluster, commands: Sequence[Command], exchange: Exchange) -> list[Any]:
    """The answer to each command, as `exchange` with a single server. Raises RedisError."""
    answers: list[Any] = [None] * len(commands)
    missing = list(range(len(commands)))
    until = time.monotonic() + MOVING
    while True:
        for node, indices in _shares(cluster, commands, missing):
            found = exchange(_client_of(cluster, node), [commands[index] for index in indices])
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
        for index in missing:
            answers[index] = _follow(cluster, commands[index], answers[index], exchange)
        missing = [index for index in missing if isinstance(answers[index], AskError | TryAgainError)]
        if not missing:
            return answers
        if time.monotonic() > until:
            raise TryAgainError(f"a slot did not arrive within {MOVING:g} s")
        if any(isinstance(answers[index], TryAgainError) for index in missing):
            time.sleep(0.01)


def _follow(cluster: redis.RedisCluster, command: Command, answer: Any, exchange: Exchange) -> Any:
    """Go where a node points to: for good (the next try goes there), or this once."""
    if isinstance(answer, MovedError):
        cluster.nodes_manager.move_slot(answer)
    elif isinstance(answer, AskError):
        node = _node_at(cluster, answer)
        return exchange(_client_of(cluster, node), [("ASKING",), command])[1]
    return answer


def _node_at(cluster: Any, answer: AskError) -> Any:
    """The node that an answer names; one that came while nobody looked is asked for."""
    node = cluster.get_node(host=answer.host, port=answer.port)
    if node is None:
        refresh(cluster)
        node = cluster.get_node(host=answer.host, port=answer.port)
    if node is None:
        raise ConnectionError(f"the cluster does not know {answer.host}:{answer.port} yet")
    return node


def _shares(
    cluster: redis.RedisCluster, commands: Sequence[Command], indices: Sequence[int]
) -> Iterator[tuple[Any, list[int]]]:
    shares: dict[str, tuple[Any, list[int]]] = {}
    with as_redis_errors():
        for index in indices:
            key = _key(commands[index])
            node: Any = cluster.nodes_manager.default_node
            if key is not None:
                node = cluster.nodes_manager.get_node_from_slot(key_slot(key))
            if node is None:
                raise ConnectionError("the client of the cluster was closed")
            shares.setdefault(node.name, (node, []))[1].append(index)
    yield from shares.values()


def _key(command: Command) -> bytes | None:
    name = command[0]
    if name in _KEYLESS:
        return None
    key = command[3 if name in _SCRIPTS else 1]
    return key if isinstance(key, bytes) else key.encode()


def _client_of(cluster: redis.RedisCluster, node: Any) -> redis.Redis:
    return cluster.get_redis_connection(node)


def refresh(cluster: redis.RedisCluster) -> None:
    """Ask again which nodes there are and what they hold."""
    with as_redis_errors():
        cluster.nodes_manager.initialize()


def primaries(cluster: redis.RedisCluster) -> list[redis.Redis]:
    """A client of each node that takes writes."""
    nodes: Any = cluster.nodes_manager.get_nodes_by_server_type("primary")
    found = [_client_of(cluster, node) for node in nodes]
    if not found:
        raise ConnectionError("the cluster has no primaries")
    return found


def masters(cluster: Any) -> frozenset[tuple[str, int]]:
    """Who serves the slots at this moment, as one node sees it."""
    with as_redis_errors():
        shares: Any = cluster.execute_command("CLUSTER SLOTS", target_nodes=cluster.get_default_node())
    return frozenset(share["primary"][:2] for share in shares.values())


@contextmanager
def as_redis_errors() -> Iterator[None]:
    """The cluster client's own errors are none of the others' family."""
    try:
        yield
    except RedisClusterException as error:
        cause = _cause(error)
        if "cluster support disabled" in str(cause):
            raise WrongAddress("is no cluster", "redis:// is for a server that stands alone") from None
        raise cause or ClusterDownError("not all of the cluster's slots are served") from None


def _cause(error: BaseException | None) -> RedisError | None:
    """What a node had said or failed at, if that is behind it."""
    while error is not None and not isinstance(error, RedisError):
        error = error.__cause__ or error.__context__
    return error
