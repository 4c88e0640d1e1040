"""Other processes that listen, and tell when they heard what. A time is by the clock that all processes share."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import redis

from reconciler import UnifiedMemoryHub

from .calls import CHANNEL

PATIENCE = 120.0
"""Seconds until a way that gives nothing ends its group: longer than a full round over the crowd."""
READY = "ready"
_spawn = multiprocessing.get_context("spawn")


class Listener:
    """A process that does `work` with a pipe, to which it sends (nanoseconds, text), first of all READY."""

    def __init__(self, work: Callable[..., None], *words: object) -> None:
        self._pipe, self._theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=work, args=(self._theirs, *words), daemon=True)

    def __enter__(self) -> Listener:
        self._process.start()
        self._theirs.close()
        self.heard(READY)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.join()

    def heard(self, token: str) -> int:
        """When, in nanoseconds, the other process heard of what contains this text."""
        until = time.monotonic() + PATIENCE
        while self._pipe.poll(max(0.0, until - time.monotonic())):
            try:
                at, text = self._pipe.recv()
            except EOFError:
                raise SystemExit("a process that listens ended") from None
            if token in text:
                return int(at)
        raise SystemExit(f"{self._process.name}: nothing came within {PATIENCE:.0f} s")


def bare(pipe: Connection, url: str) -> None:
    """Until it is ended: what redis-py alone hears."""
    client: Any = redis.Redis.from_url(url)
    listening = client.pubsub()
    listening.subscribe(CHANNEL)
    for message in listening.listen():
        at = time.perf_counter_ns()
        pipe.send((at, READY if message["type"] == "subscribe" else message["data"].decode()))


def keyspace(pipe: Connection, url: str) -> None:
    """Until it is ended: which key was written, by a keyspace event, and what is in it, by HGETALL."""
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    listening = client.pubsub()
    listening.psubscribe("__keyspace@0__:bench:*")
    for message in listening.listen():
        if message["type"] == "psubscribe":
            pipe.send((0, READY))
            continue
        found = client.hgetall(message["channel"].partition(":")[2])
        pipe.send((time.perf_counter_ns(), " ".join(found.values())))


def hub(pipe: Connection, root: str, url: str) -> None:
    """Until it is ended: what a subscriber's callback is called with."""

    def callback(event: dict[str, Any]) -> None:
        at = time.perf_counter_ns()
        pipe.send((at, " ".join(str(change["new"]) for change in event.get("changes", ()))))

    with UnifiedMemoryHub(root, redis=url, reading=True) as listening:
        listening.subscribe_updates(callback)
        pipe.send((0, READY))
        while True:
            time.sleep(60)


def nats(pipe: Connection, library: str, url: str, bucket: str) -> None:
    """Until it is ended: what a watch of a NATS key-value bucket gives."""

    async def watch() -> None:
        from nats import connect

        store = await (await connect(url)).jetstream().key_value(bucket)
        watcher = await store.watchall()
        pipe.send((0, READY))
        async for entry in watcher:
            at = time.perf_counter_ns()
            if entry is not None:
                pipe.send((at, (entry.value or b"").decode()))

    sys.path.insert(0, library)
    asyncio.run(watch())


def etcd(pipe: Connection, library: str, port: int, prefix: str) -> None:
    """Until it is ended: what a watch of etcd gives."""
    sys.path.insert(0, library)
    import pyetcd

    events, _ = pyetcd.client(host="127.0.0.1", port=port).watch_prefix(prefix)
    pipe.send((0, READY))
    for event in events:
        at = time.perf_counter_ns()
        pipe.send((at, event.value.decode()))
