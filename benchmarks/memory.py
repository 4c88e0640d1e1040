"""Memory in Redis, and of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .filling import fill_plain, write
from .group import Group, Measures, Row, Scale
from .rig import Server, server


@contextmanager
def _redis(scale: Scale) -> Iterator[Measures]:
    with server() as at:
        yield {"ours": lambda: hub_bytes(at, scale.agents), "plain": lambda: plain_bytes(at, scale.agents)}


def hub_bytes(at: Server, agents: int, history: int = 0) -> float:
    """Bytes that Redis uses for each agent that the hub wrote once."""
    before = used(at, empty=True)
    write(at.url, at.root, agents, history)
    return (used(at) - before) / agents


def plain_bytes(at: Server, agents: int) -> float:
    """The same as three plain fields."""
    before = used(at, empty=True)
    fill_plain(at.client, agents)
    return (used(at) - before) / agents


def used(at: Server, *, empty: bool = False) -> float:
    """Bytes that Redis has of the system, but for the buffers of connections and of the AOF."""
    client: Any = at.client
    if empty:
        client.execute_command("FLUSHALL", "SYNC")  # else memory goes back some time later
    info = client.info("memory")
    return float(info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"])


GROUPS = (
    Group("memory", _redis, (
        Row("Redis memory of an agent, history off : three plain fields", "ours", "plain", 1.6, "B"),
    )),
)  # fmt: skip
