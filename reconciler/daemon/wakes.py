"""What has happened since the last round, gathered from every thread: the worker takes it as one scope.

Raw writes come in bursts (eleven HSETs in a row, `last_update` last). An agent is looked at as soon as somebody
writes it, but what was written raw waits until it has been quiet (DESIGN §4): `resting` names such agents.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ..view import Scope

REST = 0.02
"""Seconds that a drop rests in the spool, so that those of processes which drop at the same time are all there."""

SPARED = 0.25
"""Seconds at rest that count as the pause of the rounds that follow."""

PATIENCE = 20
"""Somebody who never stops writing is not waited for longer than so many quiet times."""


@dataclass(slots=True)
class _Touch:
    """An agent somebody wrote: since when, when last, and when it is to be looked at (monotonic seconds)."""

    first: float
    last: float
    due: float


class Wakes:
    """Thread-safe; `quiet` in seconds."""

    def __init__(self, quiet: float) -> None:
        self.quiet = quiet
        self.whole = 0.0
        """Seconds that the last round over everything took."""
        self._changed = threading.Condition()
        self._agents: dict[str, _Touch] = {}
        self._all = self._file = self._interrupted = False
        self._paths: set[str] | None = set()
        self._dropped = float("inf")

    def everything(self) -> None:
        """Anything may have changed."""
        with self._changed:
            self._all = True
            self._changed.notify()

    def file(self) -> None:
        """`context.json` or the journal may have changed."""
        with self._changed:
            self._file = True
            self._changed.notify()

    def manifests(self, paths: Iterable[str] | None) -> None:
        """These manifest files may have changed; None: any of them."""
        with self._changed:
            self._file = True
            if paths is None:
                self._paths = None
            elif self._paths is not None:
                self._paths.update(paths)
            self._changed.notify()

    def drop(self, age: float = 0.0) -> None:
        """Somebody dropped something into the spool so many seconds ago."""
        with self._changed:
            self._dropped = min(self._dropped, time.monotonic() + min(max(REST - age, 0.0), REST))
            self._changed.notify()

    def live(self, agents: Iterable[str] | None) -> None:
        """These agents were written in Redis; None: any may have been."""
        if agents is None:
            self.everything()
            return
        now = time.monotonic()
        with self._changed:
            for agent in agents:
                touch = self._agents.setdefault(agent, _Touch(now, now, now))
                touch.last = touch.due = now
            self._changed.notify()

    def interrupt(self) -> None:
        """Let the worker look up: it is to stop, to reload, or to report."""
        with self._changed:
            self._interrupted = True
            self._changed.notify()

    def take(self, not_before: float) -> Scope | None:
        """Wait for something to do and take it, but not before that moment (monotonic seconds); None when
        interrupted."""
        with self._changed:
            while not self._interrupted:
                now = time.monotonic()
                pause = max(not_before, self._due(now)) - now
                if pause <= 0:
                    return self._take(now)
                self._changed.wait(min(pause, 3600))
            self._interrupted = False
            return None

    def leftover(self) -> Scope | None:
        """What nobody has taken yet, resting or not; None for nothing."""
        with self._changed:
            now = time.monotonic()
            if not self._agents and self._due(now) > now and self._dropped == float("inf"):
                return None
            for touch in self._agents.values():
                touch.due, touch.first = now, now - PATIENCE * self.quiet
            return self._take(now)

    def settle(self, scope: Scope, again: frozenset[str], began: float, pause: float) -> None:
        """A round over `scope` is done that began then: its agents are forgotten, but for those written since.

        The agents in `again` are looked at once more, when they have rested, else after `pause` seconds.
        """
        now = time.monotonic()
        with self._changed:
            if scope.agents is None:
                self.whole = now - began
            for agent in list(self._agents) if scope.agents is None else scope.agents:
                if agent not in again and agent in self._agents and self._agents[agent].last <= began:
                    del self._agents[agent]
            for agent in again:
                touch = self._agents.setdefault(agent, _Touch(now, now - self.quiet, now))
                rested = touch.last + self.quiet
                touch.due = min(touch.due, rested if rested > now else now + pause)

    def _due(self, now: float) -> float:
        if self._all or self._file or self._paths is None or self._paths:
            return now
        return min(self._dropped, *(touch.due for touch in self._agents.values()), float("inf"))

    def _rests(self, touch: _Touch, now: float) -> bool:
        return now - touch.last < self.quiet and now - touch.first < PATIENCE * self.quiet

    def _take(self, now: float) -> Scope:
        due = {agent for agent, touch in self._agents.items() if touch.due <= now or self._all}
        resting = frozenset(agent for agent, touch in self._agents.items() if self._rests(touch, now))
        agents = None if self._all else frozenset(due)
        paths = None if self._all or self._paths is None else frozenset(self._paths)
        for agent in due:
            self._agents[agent].due = float("inf")
        self._all = self._file = False
        self._paths, self._dropped = set(), float("inf")  # each round looks at the spool
        return Scope(agents, paths, resting)


def after(not_before: float, began: float, now: float) -> float:
    """The moment before which no round follows the one from `began` to `now`, `not_before` being its own.

    Under a flood rounds take half of the time at most, so that each takes in what came meanwhile.
    """
    took = now - began
    return max(not_before, began - SPARED) + took + min(took, 1.0)
