"""What changed since the last round that a person or a log should hear of, each thing once; and the health of it all.

A round is about some agents only, so what it found wrong with others before still stands.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ..controller import Round
from ..errors import Problem, ReconcilerError, StoreAway, StoreError
from ..health import Health
from ..plan import Plan

TOLD_EVERY = 0.2
"""Seconds between two lines that tell what rounds did."""

MOST_WARNED = 1_000
"""Warnings that are remembered; then each may be said once more."""

LONGEST_PAUSE = 4.0
"""Seconds between two tries when round after round fails: what was mended is green again within five."""


class Notice(NamedTuple):
    """One line of the log. `facts` are for machines; `done` is the round that a person may be shown in full."""

    event: str
    level: Literal["info", "warning", "error"]
    text: str
    facts: Mapping[str, Any] = MappingProxyType({})
    done: Round | None = None


Tell = Callable[[Notice], None]


class News:
    """Hears of every round, tells of every change. `health` is as the last round left it; times are µs."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.health = Health(pid=os.getpid(), redis="")
        self._found: dict[str, tuple[Problem, ...]] = {}
        self._refused: dict[str, str] = {}
        self._away_since = 0.0
        self._failed = ""
        self._warned: set[str] = set()
        self._untold: list[Plan] = []
        self._told_at = 0.0

    def warn(self, text: str) -> None:
        """Something to be said once."""
        if text not in self._warned:
            if len(self._warned) >= MOST_WARNED:
                self._warned.clear()
            self._warned.add(text)
            self.tell(Notice("warning", "warning", text))

    def round(self, done: Round, away: StoreAway | StoreError | None, store: str) -> list[Notice]:
        """A round is over, on files where `away` tells why: what is new."""
        before, now = self.health, time.time_ns() // 1000
        self._remember(done)
        errors = [*done.plan.errors, *(problem for found in self._found.values() for problem in found)]
        lasting = [str(problem) for problem in errors if problem.severity == "error" and not problem.once]
        wrong = tuple(dict.fromkeys([*lasting, *self._refused.values()]))
        if isinstance(away, StoreError):  # nothing but somebody's hand makes it good again
            wrong += (str(away),)
        code = 3 if wrong else 5 if away else 0
        self.health = replace(
            before, at=now, succeeded=before.succeeded if code else now, code=code, wrong=wrong,
            redis="away" if away else "up", failures=0, store=store,
        )  # fmt: skip
        self._failed = ""
        news = [*self._recovery(before), *self._store(before, away), *self._wrong(before.wrong)]
        news += [Notice("quarantined", "error", str(problem)) for problem in done.plan.errors if problem.once]
        if not before.redis:
            news.append(Notice("started", "info", "watching for changes", _facts([done.plan]), done))
        else:
            news += self._rounds(done)
        return news

    def _rounds(self, done: Round) -> Iterator[Notice]:
        """What was done; under a flood five times a second, for all rounds since."""
        if not all(change.quiet for change in done.plan.changes):
            self._untold.append(done.plan)
        if self._untold and time.monotonic() - self._told_at > TOLD_EVERY:
            facts = _facts(self._untold)
            only = done if len(self._untold) == 1 else None
            self._untold, self._told_at = [], time.monotonic()
            yield Notice("round", "info", _summary(facts), facts, only)

    def failed(self, error: Exception) -> tuple[float, Notice | None]:
        """A round failed: the seconds until the next one, and what to say; ever less often."""
        failures = self.health.failures + 1
        pause = min(LONGEST_PAUSE, 0.25 * 2.0 ** min(failures - 1, 10))
        text = str(error) if isinstance(error, ReconcilerError) else _unexpected(error)
        wrong = (*(line for line in self.health.wrong if line != self._failed), text)
        self._failed = text
        self.health = replace(self.health, failures=failures, code=3, wrong=wrong, redis=self.health.redis or "up")
        count = "" if failures == 1 else f", {failures} times in a row"
        facts = {"failures": failures, "next_s": pause}
        text = f"the round failed{count} (next try in {pause:g} s): {text}"
        return pause, Notice("failed", "error", text, facts) if failures.bit_count() == 1 else None

    def stopped(self) -> None:
        self.health = replace(self.health, pid=0)

    def measured(self, agents: int, journal: int) -> Health:
        """The health with what takes a look at everything to tell."""
        self.health = replace(self.health, agents=agents, journal=journal)
        return self.health

    def _remember(self, done: Round) -> None:
        names = done.names if done.names is not None else (self._found.keys() | self._refused.keys()) - done.resting
        for name in names:
            self._found.pop(name, None)
            self._refused.pop(name, None)
        for problem in done.found:
            name = problem.agent or ""
            self._found[name] = (*self._found.get(name, ()), problem)
        self._refused.update({line.partition(":")[0]: f"refused by Redis: {line}" for line in done.refused})

    def _recovery(self, before: Health) -> Iterator[Notice]:
        if before.failures:
            text = f"rounds succeed again after {before.failures} that failed"
            yield Notice("recovered", "info", text, {"failures": before.failures})

    def _store(self, before: Health, away: StoreAway | StoreError | None) -> Iterator[Notice]:
        if away and before.redis != "away":
            self._away_since = time.monotonic()
            yield Notice("away", "warning", f"{away}; going on with files")
        elif not away and before.redis == "away":
            seconds = round(time.monotonic() - self._away_since, 3)
            yield Notice("back", "info", f"{self.health.store} is back after {seconds:.1f} s", {"away_s": seconds})

    def _wrong(self, before: tuple[str, ...]) -> Iterator[Notice]:
        for line in self.health.wrong:
            if line not in before:
                yield Notice("quarantined", "error", line)
        for line in before:
            if line not in self.health.wrong:
                yield Notice("mended", "info", f"good again: {line}")


def _facts(plans: Sequence[Plan]) -> dict[str, Any]:
    changes = [change for plan in plans for change in plan.changes if not change.quiet]
    return {
        "rounds": len(plans),
        "to_redis": sum(change.direction == "redis" for change in changes),
        "to_file": sum(change.direction == "file" for change in changes),
        "agents": sorted({change.agent for change in changes})[:20],
    }


def _summary(facts: Mapping[str, Any]) -> str:
    names = ", ".join(facts["agents"][:5]) + (" and more" if len(facts["agents"]) > 5 else "")
    count = "" if facts["rounds"] == 1 else f"{facts['rounds']} rounds: "
    return f"{count}{facts['to_redis']} → redis, {facts['to_file']} → file: {names}"


def _unexpected(error: Exception) -> str:
    """A fault of this program, or of the machine, in one line that can be reported."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}{place}"
