"""Calls of the hub beside redis-py's HSET and PUBLISH of the same data, nobody listening.

Server and client share one processor; the hub and redis-py are called by turns in small blocks.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import redis

from reconciler import UnifiedMemoryHub

from . import peers
from .filling import BATCH, agent
from .group import Group, Measures, Row, Scale, timed
from .rig import one_processor, server

KEYS = 4
"""Context keys of one write; all of them change."""
CHANNEL = "bench:updates"


def context(token: str) -> dict[str, str]:
    return {f"key{index}": f"value {token} of {index}" for index in range(KEYS)}


def texts(name: str, data: dict[str, str]) -> tuple[dict[str, str], str]:
    """An agent's hash, and the event that tells of it, as subscribers know it."""
    now = datetime.now(UTC).isoformat()
    event = {"agent": name, "event": "context_update", "timestamp": now, "data": data}
    return {"context": json.dumps(data), "last_update": now}, json.dumps(event)


def say(pipe: Any, name: str, hash_: dict[str, str], event: str) -> None:
    pipe.hset(f"bench:{name}", mapping=hash_)
    pipe.publish(CHANNEL, event)


def bare_write(client: redis.Redis, name: str, data: dict[str, str]) -> None:
    """What one would write with redis-py alone, JSON and all."""
    pipe = client.pipeline(transaction=False)
    say(pipe, name, *texts(name, data))
    pipe.execute()


class _Data:
    """Values that never were before."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> dict[str, str]:
        self.count += 1
        return context(str(self.count))

    def batch(self) -> dict[str, dict[str, str]]:
        return {agent(number): self.next() for number in range(BATCH)}


@contextmanager
def _single(scale: Scale) -> Iterator[Measures]:
    with one_processor(), server() as at, UnifiedMemoryHub(str(at.root), redis=at.url) as hub:
        data = _Data()

        def block(call: Callable[[dict[str, str]], object]) -> float:
            return statistics.median(timed(partial(call, data.next())) for _ in range(scale.calls))

        def at_hand() -> float:
            made = [texts("mary", data.next()) for _ in range(scale.calls)]
            return statistics.median(timed(partial(call, *pair)) for pair in made)

        def call(hash_: dict[str, str], event: str) -> None:
            pipe = at.client.pipeline(transaction=False)
            say(pipe, "mary", hash_, event)
            pipe.execute()

        yield {
            "bare": lambda: block(partial(bare_write, at.client, "mary")),
            "hub": lambda: block(lambda given: hub.update_agent_context("mary", given)),
            "at hand": at_hand,
        }


@contextmanager
def _batch(scale: Scale) -> Iterator[Measures]:
    with one_processor(), server() as at, UnifiedMemoryHub(str(at.root), redis=at.url) as hub:
        data = _Data()

        def bare() -> float:
            batch = data.batch()
            return timed(lambda: call(batch))

        def call(batch: dict[str, dict[str, str]]) -> None:
            pipe = at.client.pipeline(transaction=False)
            for name, given in batch.items():
                say(pipe, name, *texts(name, given))
            pipe.execute()

        def ours() -> float:
            batch = data.batch()
            return timed(lambda: hub.update_many(batch))

        measures: dict[str, Callable[[], float]] = {"bare": bare, "hub": ours}
        tools = peers.redis_tools(scale.peers)
        if tools:
            made = [peers.protocol(texts(name, given), name) for name, given in data.batch().items()]
            measures["redis-cli --pipe"] = lambda: peers.pipe(tools, at.socket, b"".join(made))
            measures["redis-benchmark"] = lambda: peers.benchmark(tools, at.socket, BATCH)
        yield measures


GROUPS = (
    Group("update", _single, (
        Row("hub.update_agent_context : bare HSET + PUBLISH, pipelined", "hub", "bare", 0.95),
        Row("hub.update_agent_context : bare, its JSON made beforehand", "hub", "at hand"),
    ), often=10),
    Group("batch", _batch, (
        Row(f"hub.update_many of {BATCH:,} : bare HSET + PUBLISH of the same, one pipeline", "hub", "bare", 1.8),
        Row(f"hub.update_many of {BATCH:,} : redis-cli --pipe of them, made beforehand", "hub", "redis-cli --pipe"),
        Row(f"hub.update_many of {BATCH:,} : redis-benchmark, as many HSETs, pipelined", "hub", "redis-benchmark"),
    ), often=3),
)  # fmt: skip
