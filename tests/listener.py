"""A subscriber in a process of its own: writes `agent version event replayed` for each event, until it has COUNT.

Run as `python -m tests.listener URL COUNT`. The first line says that it listens, the last how many were lost.
"""

from __future__ import annotations

import sys

from reconciler.store.connect import connect
from reconciler.store.redis_store import RedisStore
from reconciler.subscribe import Subscription


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(url: str, count: str) -> None:
    store = RedisStore(connect(url, None, say), "listener@host")
    with Subscription(store) as subscription:
        say("listening")
        for _ in range(int(count)):
            event = next(subscription)
            say(event.agent, event.version, event.event, event.replayed)
        say("lost", subscription.lost, subscription.next_event(0.3))


if __name__ == "__main__":
    main(*sys.argv[1:])
