"""A way of a write: made here, heard of in another process, timed by the clock that both share."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from itertools import count

from .filling import agent
from .listening import Listener

AGENTS = 6
Way = Callable[[str, str], float]
"""Writes a text for an agent, waits for it at the other end, and returns seconds."""
_texts = count(1)


def blocks(way: Way, calls: int, pause: float) -> Callable[[], float]:
    """The median of a block of writes, each with a new text, with a moment of no fixed length before it."""

    def block() -> float:
        taken = []
        for number in range(calls):
            time.sleep(random.uniform(pause, 2 * pause))
            taken.append(way(agent(number % AGENTS), f"<{next(_texts)}>"))
        return statistics.median(taken)

    return block


def heard(listener: Listener, write: Callable[[str, str], object], less: float = 0.0) -> Way:
    """Until another process has heard of what `write` wrote; `less` seconds of that do not count."""

    def way(name: str, token: str) -> float:
        start = time.perf_counter_ns()
        write(name, token)
        return (listener.heard(token) - start) / 1e9 - less

    return way
