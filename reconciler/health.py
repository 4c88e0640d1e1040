"""`.reconciler/health.json`: how the rounds went, for `status` and for whoever watches from outside.

Written when something changed, and by `run` when it is asked (SIGUSR1): an idle daemon writes nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import files
from .controller import Round
from .settings import Settings
from .stamp import format_time
from .state import SHARED, present


@dataclass(frozen=True, slots=True)
class Health:
    """How it stands. `at` and `succeeded` in µs since 1970 UTC: the last round, and the last that left nothing
    wrong. `pid`: the `run` that wrote it, 0 for one round by hand; `failures`: rounds that failed in a row.
    """

    at: int = 0
    succeeded: int = 0
    code: int = 0
    wrong: tuple[str, ...] = ()
    pid: int = 0
    store: str = ""
    redis: str = "up"
    agents: int = 0
    journal: int = 0
    failures: int = 0

    def to_plain(self) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "healthy": self.code == 0,
            "round": format_time(self.at),
            "round_us": self.at,
            "succeeded": format_time(self.succeeded) if self.succeeded else None,
            "succeeded_us": self.succeeded,
            "exit_code": self.code,
            "failures": self.failures,
            "pid": self.pid or None,
            "store": self.store,
            "redis": self.redis,
            "agents": self.agents,
            "journal": self.journal,
            "wrong": list(self.wrong[:100]),
        }


_NUMBERS = ("round_us", "succeeded_us", "exit_code", "pid", "agents", "journal", "failures")


def after_round(settings: Settings, done: Round) -> Health:
    """The health after one full round by hand; the time of the last successful one stays when this one was not."""
    now = time.time_ns() // 1000
    before = read_health(settings) or Health()
    return Health(
        at=now,
        succeeded=before.succeeded if done.exit_code else now,
        code=done.exit_code,
        wrong=(*(str(problem) for problem in done.plan.errors), *done.refused),
        redis="up" if done.plan.redis_up else "away",
        agents=sum(name != SHARED and bool(present(fields)) for name, fields in done.merged.items()),
    )


def write_health(settings: Settings, health: Health) -> None:
    """At the end of each round that is told; what those who were killed before their end left is taken away."""
    files.clear_left(settings.folder)
    text = json.dumps(health.to_plain(), indent=2, ensure_ascii=False) + "\n"
    files.write_private(settings.folder / "health.json", text.encode("utf-8", "replace"))


def read_health(settings: Settings) -> Health | None:
    """What was written last, None when there is nothing or it cannot be read."""
    try:
        facts = json.loads((settings.folder / "health.json").read_text(encoding="utf-8"))
        number = {name: int(facts[name] or 0) for name in _NUMBERS}
        return Health(
            number["round_us"], number["succeeded_us"], number["exit_code"], tuple(map(str, facts["wrong"])),
            number["pid"], str(facts["store"]), str(facts["redis"]),
            number["agents"], number["journal"], number["failures"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


STARTING, RUN = "starting", "run"
"""What a `run` writes beside its pid into the lock: that it is one, and then that it may be asked how it stands."""


def is_run(settings: Settings, pid: int) -> bool:
    """Whether the process that holds the workspace is a `run` that listens: only that one may be asked."""
    return files.Lock.signed(settings.folder / "lock", pid) == RUN


def ask_health(settings: Settings, pid: int, seconds: float) -> Health | None:
    """How it stands now, by a `run`'s own word; None if it does not answer in time. Anybody else who holds the lock
    would be ended by the signal: see `is_run`."""
    path = settings.folder / "health.json"
    written = files.identify(path)
    deadline = time.monotonic() + seconds
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    while time.monotonic() < deadline:
        if files.identify(path) != written:
            return read_health(settings)
        time.sleep(0.002)
    return None
