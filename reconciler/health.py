"""`.reconciler/health.json`: how the last round went, for `status` and for whoever watches from outside."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from . import files
from .controller import Round
from .settings import Settings
from .stamp import format_time
from .state import SHARED, present


@dataclass(frozen=True, slots=True)
class Health:
    """The last round. `at` and `succeeded` in µs since 1970 UTC: any round, and one that left nothing wrong."""

    at: int
    succeeded: int
    code: int
    wrong: tuple[str, ...]


def write_health(settings: Settings, done: Round) -> None:
    """Note a round; the time of the last successful one stays when this one was not."""
    now = time.time_ns() // 1000
    before = read_health(settings)
    code = done.exit_code
    wrong = [str(problem) for problem in done.plan.errors] + list(done.refused)
    facts: dict[str, Any] = {
        "schema_version": 1,
        "round": format_time(now),
        "round_us": now,
        "succeeded_us": now if code == 0 else before.succeeded if before else 0,
        "exit_code": code,
        "redis": "up" if done.plan.redis_up else "away",
        "agents": sum(name != SHARED and bool(present(fields)) for name, fields in done.merged.items()),
        "wrong": wrong[:100],
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    files.write_private(settings.folder / "health.json", text.encode("utf-8", "replace"))


def read_health(settings: Settings) -> Health | None:
    """The last round, None when there was none or its note cannot be read."""
    try:
        facts = json.loads((settings.folder / "health.json").read_text(encoding="utf-8"))
        wrong = tuple(map(str, facts["wrong"]))
        return Health(int(facts["round_us"]), int(facts["succeeded_us"]), int(facts["exit_code"]), wrong)
    except (OSError, ValueError, KeyError, TypeError):
        return None
