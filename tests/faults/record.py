"""What each writer did: written down before and after every operation, so that `kill -9` loses no acknowledged one.

A log is one JSON document a line: what is about to be done, then what became of it. An operation without a second
line is one nobody knows about: it may have happened, or happen yet.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler.state import canonical

SLACK = 25_000
"""µs by which a file's mtime may lag behind the clock: the kernel stamps with its last tick."""

CONTEXT, AGENT = "context", "agent"


def now() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on one agent. `sets`: field to canonical JSON text, None deletes; `clears`: what else is
    deleted: "context" (every key not in `sets`), "agent" (every field), or nothing.

    `outcome`: redis, file, done (a raw write or a file that was saved), refused, unknown. `at` is the stamp that
    the program told, 0 where it told none. All times µs since 1970 UTC; `end` is when the outcome was known, and
    for a value in a file when that file was last saved with it.
    """

    id: str
    kind: str
    agent: str
    sets: Mapping[str, str | None]
    clears: str
    start: int
    end: float = math.inf
    outcome: str = "unknown"
    at: int = 0
    version: int = 0
    stale: frozenset[str] = frozenset()
    durable: bool = False
    error: str = ""
    took: int = 0

    @property
    def acknowledged(self) -> bool:
        return self.outcome in ("redis", "file", "done")

    @property
    def in_file(self) -> bool:
        """Whether it was written to a workspace's files, and Redis learns it from a round."""
        return self.outcome == "file" or self.kind in ("edit", "manifest")

    @property
    def earliest(self) -> int:
        """The earliest stamp it can have got."""
        return self.at if self.at else self.start - SLACK

    @property
    def latest(self) -> float:
        """The latest stamp it can have got. A raw write is stamped when somebody sees it, whenever that is."""
        if not self.acknowledged or self.kind == "raw":
            return math.inf
        return self.at + 1_000 if self.at else self.end + SLACK

    def writes(self, name: str) -> bool:
        if name in self.stale:
            return False
        return name in self.sets or self.clears == AGENT or (self.clears == CONTEXT and name.startswith("context."))

    def surely_before(self, other: Op) -> bool:
        """Whether this one certainly got the older stamp."""
        if self.latest < other.earliest:
            return True
        in_redis = self.outcome == "redis" or (self.kind == "raw" and self.acknowledged)
        return in_redis and other.outcome == "redis" and self.end < other.start


class Log:
    """A writer's own log file; every line is out of this process when the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **facts: Any) -> None:
        os.write(self._file, (json.dumps(facts) + "\n").encode())


@dataclass
class Records:
    """Every operation of every writer, by id."""

    ops: dict[str, Op] = field(default_factory=dict)

    def read(self, paths: Iterable[Path]) -> None:
        lines = [json.loads(line) for path in paths for line in path.read_bytes().split(b"\n")[:-1]]
        for facts in lines:
            self.take(facts)
        for facts in lines:
            for other in facts.get("carried", ()):
                op = self.ops[other]
                self.ops[other] = replace(op, end=max(op.end, facts["end"]))

    def take(self, facts: Mapping[str, Any]) -> None:
        if "kind" in facts:
            texts = {name: None if text is None else canonical(text) for name, text in facts["sets"].items()}
            op = Op(facts["id"], facts["kind"], facts["agent"], texts, facts["clears"], facts["start"])
            self.ops[op.id] = replace(op, durable=facts["durable"])
            return
        op = self.ops[facts["id"]]
        sets: Mapping[str, str | None] = op.sets
        if op.clears == AGENT and facts["outcome"] == "file":  # what is not known here cannot be deleted from here
            sets, op = dict.fromkeys(facts["won"], None), replace(op, clears="")
        self.ops[op.id] = replace(
            op,
            sets=sets,
            end=facts["end"],
            outcome=facts["outcome"],
            at=facts.get("at", 0),
            version=facts.get("version", 0),
            stale=frozenset(facts.get("stale", ())),
            error=facts.get("error", ""),
            took=facts["end"] - op.start,
        )

    def initial(self, state: Mapping[str, Mapping[str, str]]) -> None:
        """What was there before anybody began: older than everything, and not to be lost."""
        for agent, fields in state.items():
            for name, text in fields.items():
                op = Op(f"initial:{agent}:{name}", "initial", agent, {name: canonical(text)}, "", 1, 1, "done", 1)
                self.ops[op.id] = op

    def of(self, agent: str, name: str) -> list[Op]:
        return [op for op in self.ops.values() if op.agent == agent and op.writes(name)]
