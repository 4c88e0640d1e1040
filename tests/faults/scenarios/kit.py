"""What the scenarios are written with, beside the desk of the stories (`tests/story/desk.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from reconciler import UnifiedMemoryHub
from reconciler.controller import Round
from reconciler.errors import StoreAway
from reconciler.spool import Part, drop
from reconciler.stamp import format_time
from reconciler.store import AwayStore
from reconciler.workspace import Workspace
from tests.story.desk import Desk, six_agents
from tests.waiting import wait_until

PROJECT = Path(__file__).parents[3]
NOBODY = "unix:///tmp/nobody-listens-here"


def hub(desk: Desk) -> UnifiedMemoryHub:
    return UnifiedMemoryHub(str(desk.root), desk.url)


def hub_away(desk: Desk) -> UnifiedMemoryHub:
    """A hub that finds nobody at the server's address."""
    return UnifiedMemoryHub(settings=replace(desk.settings, redis=NOBODY))


def round_away(desk: Desk) -> Round:
    """A round while Redis is away."""
    return desk.round(_away)


def _away(workspace: Workspace) -> Workspace:
    return replace(workspace, store=AwayStore(StoreAway("away")))


def another(desk: Desk, name: str = "another") -> Desk:
    """A second workspace beside the first, on the same server."""
    root = desk.root.parent / name
    root.mkdir(exist_ok=True)
    return Desk(root, desk.url)


@contextmanager
def six_on(folder: Path, url: str) -> Iterator[Desk]:
    """The six agents in agreement, on a server that the scenario may spoil."""
    (folder / "own").mkdir()
    desk = Desk(folder / "own", url)
    desk.save(six_agents(), age=900)
    desk.apply()
    with closing(desk.redis):
        yield desk


def reaches_redis(desk: Desk, agent: str, **context: object) -> None:
    """Wait until a hub that wrote to files has told Redis these keys."""
    wait_until(lambda: context.items() <= desk.live(agent).get("context", {}).items(), what=f"{context} in Redis")


DIED = 137
DYING = """
import os, sys
from pathlib import Path
from reconciler import files
from tests.story.desk import Desk

desk = Desk(Path(sys.argv[1]), sys.argv[2])
"""
"""What begins the code of a child that is to die."""


def child(desk: Desk, code: str, *args: str) -> int:
    """Run code in a process of its own, which has `desk`, and `sys.argv[3:]` for `args`; the exit code."""
    words = [sys.executable, "-c", DYING + textwrap.dedent(code), str(desk.root), desk.url, *args]
    return subprocess.run(words, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=False).returncode


def with_inbox(desk: Desk) -> Desk:
    """The same workspace with its inbox switched on."""
    (desk.root / "reconciler.yaml").write_text("inbox: true\n")
    found = Desk(desk.root, desk.url)
    found.settings.inbox_folder.mkdir(parents=True)
    found.redis = desk.redis
    return found


def dropped(desk: Desk, agent: str, **values: str) -> None:
    """What a hook does: text under some keys, into the spool."""
    drop(desk.settings, agent, [Part(key, "text", text.encode()) for key, text in values.items()])


@contextmanager
def set_to(desk: Desk, name: str, value: str) -> Iterator[None]:
    """One setting of the server, for a while."""
    before = desk.redis.config_get(name)[name]
    desk.redis.config_set(name, value)
    try:
        yield
    finally:
        desk.redis.config_set(name, before)


def sidecar(agent: str) -> str:
    return f"memory:meta:{{memory:agents:{agent}}}"


def history(agent: str) -> str:
    return f"memory:history:{{memory:agents:{agent}}}"


def version(desk: Desk, agent: str) -> int:
    return int(desk.redis.hget(sidecar(agent), "version") or 0)


def named(done: Round) -> str:
    """Everything that a round named as wrong, in one text."""
    return "\n".join(str(problem) for problem in done.plan.problems)


def moment(desk: Desk, seconds: float = 0) -> str:
    """ISO 8601, so many seconds from now."""
    return format_time(desk.now() + int(seconds * 1_000_000))


def unchanged(path: Path, before: bytes) -> bool:
    return path.read_bytes() == before
