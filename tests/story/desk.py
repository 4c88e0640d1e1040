"""One workspace on a real server, and the ways in which people and programs touch it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from reconciler.controller import Options, Round, reconcile
from reconciler.plan import Change, Plan
from reconciler.workspace import Workspace, open_workspace, read_settings

SECOND = 1_000_000_000
"""In nanoseconds, as the file system counts."""


class Desk:
    """A workspace. Times are in seconds; `later` moves the clock of the rounds that follow."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self.settings = read_settings(str(root), {"redis": url}, {})
        self.path = self.settings.context_file
        self.redis: Any = redis.Redis.from_url(url, decode_responses=True)
        self.ahead = 0.0

    def later(self, seconds: float) -> None:
        self.ahead += seconds

    def now(self) -> int:
        return time.time_ns() // 1000 + int(self.ahead * 1_000_000)

    def round(self, change: Callable[[Workspace], Workspace] = lambda same: same, **options: Any) -> Round:
        with open_workspace(self.settings, lambda text: None) as workspace:
            return reconcile(change(replace(workspace, clock=self.now)), Options(**options))

    def apply(self, **options: Any) -> Round:
        return self.round(**options)

    def diff(self, **options: Any) -> Plan:
        return self.round(dry=True, **options).plan

    def changes(self, **options: Any) -> dict[str, tuple[str | None, str | None]]:
        """What a diff says that counts: `mary.status > redis` to old and new."""
        return shown(self.diff(**options))

    def save(self, content: str | bytes | Mapping[str, Any], *, age: float = 0) -> None:
        """Put `context.json` in place as other programs do; saved `age` seconds ago."""
        if isinstance(content, Mapping):
            content = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        data = content if isinstance(content, bytes) else content.encode()
        self.path.parent.mkdir(exist_ok=True)
        temp = self.path.with_name("somebody's.tmp")
        temp.write_bytes(data)
        set_age(temp, age - self.ahead)
        os.replace(temp, self.path)

    def edit(self, change: Callable[[dict[str, Any]], object], *, age: float = 0) -> None:
        """Read the file, change it, write it whole."""
        data = self.file()
        change(data)
        self.save(data, age=age)

    def set(self, agent: str, **values: Any) -> None:
        """Set some fields of an agent's record in the file; a new agent gets one."""
        self.edit(lambda data: data["agents"].setdefault(agent, {}).update(values))

    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def file(self) -> dict[str, Any]:
        return dict(json.loads(self.text()))

    def record(self, agent: str) -> dict[str, Any]:
        """An agent's record in the file."""
        return dict(self.file()["agents"][agent])

    def live(self, agent: str) -> dict[str, Any]:
        """An agent's hash in Redis, its context as an object."""
        found = dict(self.redis.hgetall(f"memory:agents:{agent}"))
        return {**found, "context": json.loads(found["context"])} if "context" in found else found

    def hset(self, agent: str, **fields: str) -> None:
        self.redis.hset(f"memory:agents:{agent}", mapping=fields)

    def manifest(self, agent: str, body: str, *, metadata: str = "", age: float = 0, name: str = "") -> Path:
        """Write `manifests/<agent>.yaml`; `body` is everything behind `metadata`."""
        path = self.root / "manifests" / (name or f"{agent}.yaml")
        path.parent.mkdir(exist_ok=True)
        named = f"metadata: {{name: {agent}{metadata and ', ' + metadata}}}"
        path.write_text(f"apiVersion: reconciler/v1\nkind: Agent\n{named}\n{body}\n", encoding="utf-8")
        set_age(path, age - self.ahead)
        return path

    def assert_agree(self) -> None:
        """File and Redis hold the same agents with the same status and context, and a round has nothing to do."""
        again = self.round(dry=True)
        assert shown(again.plan) == {}
        assert again.plan.in_sync
        for agent, record in self.file()["agents"].items():
            live = self.live(agent)
            assert record.get("status") == live.get("status"), agent
            assert record.get("context", {}) == live.get("context", {}), agent


def set_age(path: Path, seconds: float) -> None:
    """Make a file look saved so many seconds ago."""
    moment = time.time_ns() - int(seconds * SECOND)
    os.utime(path, ns=(moment, moment))


def shown(plan: Plan) -> dict[str, tuple[str | None, str | None]]:
    return {label(change): (change.old, change.new) for change in plan.changes if not change.quiet}


def label(change: Change) -> str:
    return f"{change.agent}.{change.field} > {change.direction}"


def six_agents(seen: str = "2025-11-12T07:58:12+07:00") -> dict[str, Any]:
    """A file of the shape that the agents share in practice."""
    names = ("gc", "cls", "gg", "mary", "rnd", "claude")
    return {
        "version": "1.0",
        "last_update": seen,
        "agents": {name: {"status": "active", "last_seen": seen} for name in names},
        "current_work": {},
        "paths": {"sot": "/home/x/02luka", "bridge": "/home/x/02luka/bridge"},
        "token_usage": {"total": 0, "saved": 0},
    }
