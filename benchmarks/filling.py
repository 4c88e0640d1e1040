"""Workspaces of many agents: their manifests, and the data of a server that knows them."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import redis

from reconciler import UnifiedMemoryHub
from reconciler.workspace import read_settings

from .rig import Server, reconciler, server

BATCH = 1_000
"""Agents that are written at once."""
MANIFEST = """\
# yaml-language-server: $schema=../schemas/manifest.schema.json
apiVersion: reconciler/v1
kind: Agent
metadata:
  name: agent-{number:05}
  labels:
    team: team-{team}
spec:
  status: active
  context:
    role: worker
    task: "item {number}"
    attempts: {attempts}
    tags: [alpha, beta]
    note: "what the agent was told, in a line of common length"
  fields:
    insight: none
"""
SMALL = """\
apiVersion: reconciler/v1
kind: Agent
metadata: {{name: {agent}}}
spec: {{context: {{goal: {goal}}}}}
"""
DECLARED = 10


def manifests(root: Path, agents: int) -> None:
    folder = root / "manifests"
    folder.mkdir(parents=True)
    for number in range(agents):
        text = MANIFEST.format(number=number, team=number % 7, attempts=number % 100)
        (folder / f"agent-{number:05}.yaml").write_text(text)


def record(number: int) -> dict[str, Any]:
    """What an agent's context holds."""
    return {
        "role": "worker", "task": f"item {number}", "attempts": number % 100, "tags": ["alpha", "beta"],
        "note": "what the agent was told, in a line of common length",
    }  # fmt: skip


def agent(number: int) -> str:
    return f"agent-{number:05}"


def write(url: str, root: Path, agents: int, history: int = 1_000) -> None:
    """Write so many agents to Redis through the hub."""
    settings = read_settings(str(root), {"redis": url, "history": str(history)}, {})
    with UnifiedMemoryHub(settings=settings) as hub:
        for first in range(0, agents, BATCH):
            numbers = range(first, min(first + BATCH, agents))
            hub.update_many({agent(n): {"context": record(n), "status": "active"} for n in numbers})


class Filled(NamedTuple):
    """A workspace and the data of its server, at rest; and what it took to make them, in seconds."""

    folder: Path
    write: float
    apply: float


@cache
def filled(agents: int) -> Filled:
    """So many agents in Redis, in context.json and in the base, all in agreement; the first ten have a manifest."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with server() as at:
        start = time.perf_counter()
        write(at.url, at.root, agents)
        written = time.perf_counter()
        declare(at.root, min(agents, DECLARED))
        applied = reconciler(at.root, at.url, "apply").wall
        at.client.shutdown()  # with all that it knows in its folder
        shutil.copytree(at.root, folder / "root")
        shutil.copytree(at.folder / "appendonlydir", folder / "appendonlydir")
    return Filled(folder, written - start, applied)


@contextmanager
def filled_server(agents: int, *options: str) -> Iterator[Server]:
    """A server and a workspace with so many agents: a copy, which nobody else changes."""
    with server(*options, copy=filled(agents).folder) as at:
        reconciler(at.root, at.url, "apply")
        yield at


def declare(root: Path, agents: int) -> None:
    """A small manifest for each of so many agents."""
    (root / "manifests").mkdir(exist_ok=True)
    for number in range(agents):
        (root / "manifests" / f"{agent(number)}.yaml").write_text(SMALL.format(agent=agent(number), goal="none"))


def fill_plain(client: redis.Redis, agents: int) -> None:
    """The same agents as three plain fields, under names of the same length."""
    for first in range(0, agents, BATCH):
        pipe = client.pipeline(transaction=False)
        for number in range(first, min(first + BATCH, agents)):
            pipe.hset(f"memory:plains:{agent(number)}", mapping=plain(number))
        pipe.execute()


def plain(number: int) -> dict[Any, Any]:
    now = "2025-11-12T08:00:00.123456Z"
    return {"status": "active", "context": json.dumps(record(number), separators=(",", ":")), "last_update": now}


def empty(root: Path) -> None:
    """As before the first round: no context.json, no base."""
    for name in (".reconciler", "shared_memory"):
        shutil.rmtree(root / name, ignore_errors=True)
