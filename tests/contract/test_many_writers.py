"""Sixteen processes write one agent at the same time, and nothing is lost."""

from __future__ import annotations

import multiprocessing
from typing import Any

import redis

from reconciler.state import decode
from reconciler.store import Write
from tests.contract.kit import look, put
from tests.servers import Memory, Server

PROCESSES, WRITES = 16, 60


def work(url: str, number: int, together: Any) -> None:
    """One process: its own field counts its writes, and everybody writes the common ones."""
    with redis.Redis.from_url(url) as client:
        memory = Memory(client, history=10_000)
        together.wait(60)
        for count in range(WRITES):
            puts = (
                put(f"context.own{number}", count, by=f"p{number}"),
                put("context.common", [number, count], by=f"p{number}"),
                put("status", f"{number} {count}", by=f"p{number}"),
            )
            assert memory.store.write([Write("mary", puts)])[0].flags == "www"


def test_sixteen_processes_at_once_lose_nothing(valkey: Server, real: Memory) -> None:
    """Every write is one version, versions have no gaps, and history folds to what is there."""
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(PROCESSES)
    processes = [spawn.Process(target=work, args=(valkey.url, number, together)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES

    events = real.store.history("mary", 10_000)[::-1]
    assert [event.version for event in events] == list(range(1, PROCESSES * WRITES + 1))
    folded: dict[str, Any] = {}
    for event in events:
        for change in event.changes:
            assert folded.get(change["field"]) == change["old"]
            folded[change["field"]] = change["new"]
    live = {name: decode(field.text or "null") for name, field in look(real).fields.items()}
    del live["last_update"]
    assert live == folded
    assert {live[f"context.own{number}"] for number in range(PROCESSES)} == {WRITES - 1}
