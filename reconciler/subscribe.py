"""Events as they happen, each once, in order within an agent, whatever happens to the connection.

`follow` tells what is new; here are the connection, which is made again for ever, and the events that wait.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Self

from .errors import StoreAway, StoreError, UsageError
from .events import PRIORITIES, Event
from .follow import Follower, Since
from .state import SHARED, is_agent_name
from .store import Channel, LiveStore

FULL = 10_000
"""Events that wait at most; what comes then waits at the server, which cuts a reader that is too slow."""
SHORTEST, LONGEST = 0.1, 5.0
"""Seconds between two tries to connect: doubled each time, and up to half of it off by chance."""
_RANK = {name: rank for rank, name in enumerate(PRIORITIES)}


class Waiting:
    """Events that wait: high ones first, then in order of arrival, and never out of order within an agent."""

    def __init__(self) -> None:
        self._agents: dict[str, deque[tuple[int, Event]]] = {}
        self._order: list[tuple[int, int, str]] = []
        self._count = self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, event: Event) -> None:
        self._count += 1
        self._size += 1
        self._agents.setdefault(event.agent, deque()).append((self._count, event))
        heappush(self._order, (_RANK.get(event.priority, 1), self._count, event.agent))
        if len(self._order) > 2 * self._size + 1_000:
            self._order = [entry for entry in self._order if not self._is_given(entry)]
            heapify(self._order)

    def _is_given(self, entry: tuple[int, int, str]) -> bool:
        """Whether an event was pulled forward; what stands for it stays until it is its turn."""
        _, number, agent = entry
        events = self._agents.get(agent)
        return not events or events[0][0] > number

    def pop(self) -> Event | None:
        """The next event. An urgent one pulls forward what its agent said before it."""
        while self._order:
            if self._is_given(self._order[0]):
                heappop(self._order)
                continue
            _, number, agent = self._order[0]
            events = self._agents[agent]
            first, event = events.popleft()
            if first == number:
                heappop(self._order)
            if not events:
                del self._agents[agent]
            self._size -= 1
            return event
        return None


class Subscription(Iterator[Event]):
    """An iterator of events, endless until `close`; also a context manager.

    `agents`: only these (none: all); `events`: only these kinds. `since`: what happened before as well, where
    the history still has it: after a version (an int below 10⁹; of every agent that is meant), or from a time
    on (ISO text, datetime, seconds since 1970; without a zone it is local). `warn` takes one-line warnings.
    When several events wait, those with high priority come first, never out of order within an agent.

    For one thread at a time, and for the process that made it; only `close` may come from another thread or
    from a signal. Raises UsageError, and StoreError when Redis refuses for good at the start. Redis away is
    waited for, for ever; nothing is owed that happened before it was there for the first time.
    """

    def __init__(
        self,
        store: LiveStore,
        agents: Iterable[str] = (),
        events: Iterable[str] = (),
        since: Since = None,
        *,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store, self._warn = store, warn
        self._events = frozenset(_names("events", events))
        self._follower = Follower(_legal(_names("agents", agents)), since, self._give, warn)
        self._inbox: deque[bytes] = deque()
        self._waiting = Waiting()
        self._channel: Channel | None = None
        self._closed = self._told = self._ever = False
        self._failures, self._next_try = 0, 0.0
        self._up_at: float | None = None
        self._gather()

    @property
    def connected(self) -> bool:
        """Whether events arrive as they happen; while not, they are made up for later."""
        return self._channel is not None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def lost(self) -> int:
        """Versions that were missed and that no history had any more."""
        return self._follower.lost

    @property
    def foreign(self) -> int:
        """Messages that were no events."""
        return self._follower.foreign

    def __next__(self) -> Event:
        event = self.next_event()
        if event is None:
            raise StopIteration
        return event

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event; None when there is none within `timeout` seconds, or when it was closed.

        While Redis is away a try to reach it may take a second longer.
        """
        until = None if timeout is None else time.monotonic() + timeout
        just_read = False
        while not self._closed:
            self._gather(just_read)
            event = self._waiting.pop()
            if event is not None:
                return event
            left = 60.0 if until is None else until - time.monotonic()
            if left <= 0:
                return None
            just_read = self._wait(left)
        self._drop()
        return None

    def close(self) -> None:
        """End it, promptly, also while another thread waits in it."""
        self._closed = True
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _give(self, event: Event) -> None:
        if not self._events or event.event in self._events:
            self._waiting.push(event)

    def _gather(self, just_read: bool = False) -> None:
        """Take everything at hand, without waiting; the channel need not be asked when it was read just now."""
        try:
            if self._channel is None and not self._connect():
                return
            while len(self._waiting) < FULL and not self._closed:
                if self._inbox:
                    self._follower.take(self._inbox[0], self._store)
                    self._inbox.popleft()
                elif not self._follower.catch_up(self._store) and (just_read or not self._receive(0)):
                    return
        except (StoreAway, StoreError) as reason:
            self._lose(reason)

    def _wait(self, seconds: float) -> bool:
        """Wait for the next message, or until it is time to connect; whether there was one."""
        if self._channel is None:
            time.sleep(max(0.0, min(seconds, self._next_try - time.monotonic(), 0.05)))
            return False
        try:
            return self._receive(seconds)
        except (StoreAway, StoreError) as reason:
            self._lose(reason)
            return False

    def _receive(self, timeout: float) -> bool:
        channel = self._channel
        if channel is not None:
            self._inbox += channel.receive(timeout)
        return bool(self._inbox)

    def _connect(self) -> bool:
        """Listen, then compare versions; False while it is too early to try again."""
        if time.monotonic() < self._next_try:
            return False
        self._follower.begin(self._store)
        channel = self._channel = self._store.listen(self._follower.agents)
        self._follower.compare(self._store)
        self._up_at, self._ever = time.monotonic(), True
        if self._closed:
            channel.close()
        if self._told:
            self._told = False
            self._warn(f"{self._store.name} is back")
        return True

    def _lose(self, reason: StoreAway | StoreError) -> None:
        """Try again: at once if it was there for a moment, then ever less often, for ever."""
        self._drop()
        if isinstance(reason, StoreError) and not self._ever:
            raise reason
        now = time.monotonic()
        if self._up_at is not None and now - self._up_at > SHORTEST:
            self._failures = 0
        pause = min(LONGEST, SHORTEST * 2.0 ** min(self._failures, 10)) if self._failures else 0
        self._up_at, self._next_try = None, now + pause * random.uniform(0.5, 1)
        self._failures += 1
        if (self._failures > 1 or not self._ever) and not self._told and not self._closed:
            self._told = True
            self._warn(f"{reason.message}; waiting for it")

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


def _names(what: str, given: object) -> list[str]:
    if isinstance(given, str):
        raise UsageError(f"{what}={given!r}: a list is needed", hint=f"{what}=[{given!r}]")
    names: list[object] = list(given) if isinstance(given, Iterable) else [None]
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{what}={repr(given)[:70]}: a list of names is needed", hint=f'{what}=["...", "..."]')
    return list(dict.fromkeys(map(str, names)))


def _legal(agents: list[str]) -> list[str]:
    for agent in agents:
        if agent != SHARED and not is_agent_name(agent):
            hint = "1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
            raise UsageError(f"{agent[:70]!r} is not a legal agent name", hint=hint)
    return agents
