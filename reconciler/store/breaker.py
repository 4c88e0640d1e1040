"""Nobody waits twice for a server that does not answer (DESIGN §8).

    closed      calls go through; the first StoreAway opens it
    open        every call is refused at once with the last reason, while a thread of its own tries to connect, after
                0.1 s, then after twice as long each time up to 1 s, for ever; the first success closes it

Connecting is done anew each time, with the password found out anew. A wrong password is a reason like any other
while it is tried: somebody may set the right one.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

from ..errors import StoreAway, StoreError
from ..events import Event
from ..state import State
from . import AWAY_NAME, Channel, Live, LiveStore, Now, Tracking, Write, Written
from .failures import locked_out

T = TypeVar("T")
_FIRST, _LONGEST = 0.1, 1.0
"""Seconds between two attempts."""
_PATIENCE = 1.3
"""Seconds that a caller waits for the first connection of a forked child."""
_breakers: WeakSet[Breaker] = WeakSet()


class Breaker:
    """A LiveStore around `connect`, which makes one. Safe to share between threads, and with a forked child, which
    gets connections of its own.

    `connect` is called at once: StoreAway opens the breaker, StoreError is raised. `on_return` is called, in the
    breaker's own thread, each time that the server is back; one who gives it waits for the right password as well,
    so with it StoreError opens the breaker too.
    """

    def __init__(self, connect: Callable[[], LiveStore], on_return: Callable[[], None] | None = None) -> None:
        self._connect, self._on_return = connect, on_return
        self._store: LiveStore | None = None
        self._inherited: list[LiveStore | None] = []
        self._reason: StoreAway | StoreError = StoreAway("the store is not open yet")
        self._delay = _FIRST
        self._start_over()
        try:
            self._store = connect()
        except (StoreAway, StoreError) as reason:
            if isinstance(reason, StoreError) and on_return is None:
                raise
            self._reason = _again(reason)
            self._probe()
        self._tried.set()
        _breakers.add(self)

    def _start_over(self) -> None:
        """The locks and the thread, which a forked child does not inherit in a state it could use."""
        self._lock, self._tried, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._prober: threading.Thread | None = None

    def after_fork(self) -> None:
        """What a forked child does first: its first call connects."""
        closed = self._ended.is_set()
        self._start_over()
        if closed:
            self._ended.set()
            self._tried.set()
            return
        # Kept: a client that is dropped closes its connections, and takes locks that nobody here will release.
        self._inherited.append(self._store)
        self._store = None
        self._reason, self._delay = StoreAway("Redis is not connected yet"), 0.0

    @property
    def name(self) -> str:
        store = self._store
        return AWAY_NAME if store is None else store.name

    @property
    def up(self) -> bool:
        """Whether calls go through; nothing is asked of the server."""
        return self._store is not None

    def close(self) -> None:
        """End the attempts and let go of the connections; every further call is refused."""
        self._ended.set()
        with self._lock:
            store, self._store = self._store, None
            self._reason, prober = StoreAway("the store is closed"), self._prober
        if prober is not None and prober is not threading.current_thread():
            prober.join(_PATIENCE)
        if store is not None:
            store.close()

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        return self._call(lambda store: store.observe(base, agents))

    def plain(self) -> dict[str, dict[str, Any] | None]:
        return self._call(lambda store: store.plain())

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        store = self._store or self._connected()  # as `_call`, with less between
        try:
            found = store.write(writes)
        except (StoreAway, StoreError) as reason:
            self._failed(store, reason)
            raise
        self._delay = _FIRST
        return found

    def history(self, agent: str, count: int) -> list[Event]:
        return self._call(lambda store: store.history(agent, count))

    def messages(self, agent: str, count: int, before: int = 0) -> list[tuple[int, bytes]]:
        return self._call(lambda store: store.messages(agent, count, before))

    def since(self, agent: str, version: int) -> list[Event]:
        return self._call(lambda store: store.since(agent, version))

    def versions(self, agents: Iterable[str] | None = None) -> dict[str, int]:
        return self._call(lambda store: store.versions(agents))

    def trim(self) -> int:
        return self._call(lambda store: store.trim())

    def listen(self, agents: Sequence[str] = ()) -> Channel:
        return self._call(lambda store: store.listen(agents))

    def track(self) -> Tracking:
        return self._call(lambda store: store.track())

    def publish(self, event: Event) -> int:
        return self._call(lambda store: store.publish(event))

    def start_epoch(self, epoch: str) -> str:
        return self._call(lambda store: store.start_epoch(epoch))

    def mark(self) -> str:
        return self._call(lambda store: store.mark())

    def _call(self, work: Callable[[LiveStore], T]) -> T:
        store = self._store or self._connected()
        try:
            found = work(store)
        except (StoreAway, StoreError) as reason:
            self._failed(store, reason)
            raise
        self._delay = _FIRST
        return found

    def _failed(self, store: LiveStore, reason: StoreAway | StoreError) -> None:
        if isinstance(reason, StoreAway) or locked_out(reason):  # the next one may be let in, with another password
            self._open(store, reason)

    def _connected(self) -> LiveStore:
        """The store, while there is none: its reason is raised at once. Only a forked child's first calls wait."""
        if not self._tried.is_set():
            self._probe()
            self._tried.wait(_PATIENCE)
            self._tried.set()
        store = self._store
        if store is None:
            if self._prober is None:
                self._probe()
            raise _again(self._reason)
        return store

    def _open(self, store: LiveStore, reason: StoreAway | StoreError) -> None:
        """Nobody uses this store again. Others may still be in a call with it: the last of them lets go of it."""
        with self._lock:
            if self._store is not store:
                return
            self._store, self._reason = None, _again(reason)
        self._probe()

    def _probe(self) -> None:
        with self._lock:
            if self._store is None and self._prober is None and not self._ended.is_set():
                prober = threading.Thread(target=self._probe_on, name="reconnect", daemon=True)
                with suppress(RuntimeError):  # no more threads: the next call tries again
                    prober.start()
                    self._prober = prober

    def _probe_on(self) -> None:
        while not self._ended.wait(self._delay * random.uniform(0.75, 1.25)):
            self._delay = min(max(self._delay * 2, _FIRST), _LONGEST)
            try:
                store = self._connect()
            except Exception as error:  # whatever it is: a thread that ends here would never come back
                self._reason = _again(error)
                self._tried.set()
                continue
            with self._lock:
                kept = not self._ended.is_set()
                if kept:
                    self._store, self._prober = store, None
            self._tried.set()
            if not kept:
                store.close()
            elif self._on_return is not None:
                self._on_return()
            return


def _again(reason: Exception) -> StoreAway | StoreError:
    """The same error anew: one that is raised again and again would collect the traces of all who raised it."""
    if isinstance(reason, StoreAway | StoreError):
        return type(reason)(reason.message, hint=reason.hint)
    return StoreError(f"Redis cannot be connected: {reason}", hint="it is tried again and again")


def _after_fork() -> None:
    for breaker in list(_breakers):
        breaker.after_fork()


os.register_at_fork(after_in_child=_after_fork)
