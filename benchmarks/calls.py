"""The first part of `live.py`: what a call of the hub costs beside redis-py's HSET and PUBLISH of the same data."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import redis

from reconciler import UnifiedMemoryHub

CALLS, BATCH = 20, 1_000
"""Calls in one block, and writes in one batch."""
KEYS = 4
"""Context keys of one write; all of them change."""
CHANNEL = "bench:updates"
Times = dict[str, list[float]]
"""What was timed, and its seconds, in the order in which they were taken."""


@contextmanager
def one_processor(process: int) -> Iterator[bool]:
    """This process and the server on one processor; whether the system could do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = {number: os.sched_getaffinity(number) for number in (0, process)}
    try:
        for number in before:
            os.sched_setaffinity(number, {max(before[0])})
        yield True
    finally:
        for number, processors in before.items():
            os.sched_setaffinity(number, processors)


class Calls:
    """The hub's calls, and what they are compared with, on a workspace of their own."""

    def __init__(self, folder: Path, client: redis.Redis) -> None:
        self.root, self.client, self.url = folder / "calls", client, f"unix://{folder / 'valkey.sock'}"
        self.count = 0

    def measure(self, rounds: int) -> Times:
        """The medians of the blocks, in seconds; one round before is not counted."""
        times: Times = {}
        self.root.mkdir()
        with UnifiedMemoryHub(str(self.root), redis=self.url) as hub:
            rows: list[tuple[str, Callable[[], float]]] = [
                ("bare", lambda: self.block(self.bare)),
                ("hub", lambda: self.block(lambda data: hub.update_agent_context("mary", data))),
                ("bare, texts at hand", self.at_hand),
                ("bare batch", self.bare_batch),
                ("hub batch", lambda: self.hub_batch(hub)),
            ]
            for number in range(rounds + 1):
                for name, work in rows if number % 2 else reversed(rows):
                    times.setdefault(name, []).append(work())
                tell(f"calls, round {number} of {rounds}", number == rounds)
        return {name: taken[1:] for name, taken in times.items()}

    def data(self) -> dict[str, str]:
        self.count += 1
        return context(str(self.count))

    def block(self, call: Callable[[dict[str, str]], object]) -> float:
        return statistics.median(_timed(partial(call, self.data())) for _ in range(CALLS))

    def bare(self, data: dict[str, str]) -> None:
        """What one would write with redis-py alone, JSON and all."""
        pipe = self.client.pipeline(transaction=False)
        say(pipe, "mary", *texts("mary", data))
        pipe.execute()

    def at_hand(self) -> float:
        """The same, with the JSON made before."""

        def call(hash_: dict[str, str], event: str) -> None:
            pipe = self.client.pipeline(transaction=False)
            say(pipe, "mary", hash_, event)
            pipe.execute()

        made = [texts("mary", self.data()) for _ in range(CALLS)]
        return statistics.median(_timed(partial(call, *pair)) for pair in made)

    def bare_batch(self) -> float:
        def call() -> None:
            pipe = self.client.pipeline(transaction=False)
            for agent, data in batch.items():
                say(pipe, agent, *texts(agent, data))
            pipe.execute()

        batch = {f"agent-{number:05}": self.data() for number in range(BATCH)}
        return _timed(call)

    def hub_batch(self, hub: UnifiedMemoryHub) -> float:
        batch = {f"agent-{number:05}": self.data() for number in range(BATCH)}
        return _timed(lambda: hub.update_many(batch))


def context(token: str) -> dict[str, str]:
    return {f"key{index}": f"value {token} of {index}" for index in range(KEYS)}


def texts(agent: str, data: dict[str, str]) -> tuple[dict[str, str], str]:
    """An agent's hash, and the event that tells of it, as subscribers know it."""
    now = datetime.now(UTC).isoformat()
    event = {"agent": agent, "event": "context_update", "timestamp": now, "data": data}
    return {"context": json.dumps(data), "last_update": now}, json.dumps(event)


def say(pipe: Any, agent: str, hash_: dict[str, str], event: str) -> None:
    pipe.hset(f"bench:{agent}", mapping=hash_)
    pipe.publish(CHANNEL, event)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show_calls(times: Times, pinned: bool) -> None:
    where = "server and client on one processor" if pinned else "on whatever processors the system chose"
    print(f"\nCalls, {KEYS} keys each, {where}, nobody listening: medians of the blocks, and of their paired ratios")
    print(f"{'':<72}{'ours':>10}{'bare':>10}{'ratio':>8}  spread")
    for what, ours, bare in (
        ("hub.update_agent_context : bare HSET + PUBLISH, pipelined", "hub", "bare"),
        ("the same : bare HSET + PUBLISH, its JSON made beforehand", "hub", "bare, texts at hand"),
        (f"hub.update_many of {BATCH:,} : {BATCH:,} bare HSET + PUBLISH, one pipeline", "hub batch", "bare batch"),
    ):
        medians = "".join(f"{statistics.median(times[name]) * 1e3:>7.3f} ms" for name in (ours, bare))
        print(f"{what:<72}{medians}{ratio(times[ours], times[bare])}")


def tell(text: str, last: bool) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if last else "", file=sys.stderr)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the ratios of the rounds, and their middle half."""
    paired = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    low, _, high = statistics.quantiles(paired, n=4, method="inclusive") if len(paired) > 1 else paired * 3
    return f"{statistics.median(paired):>8.2f}  {low:.2f} - {high:.2f}"
