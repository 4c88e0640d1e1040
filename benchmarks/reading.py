"""Reading everything, and writing context.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import redis

from reconciler import UnifiedMemoryHub

from .filling import agent, filled_server
from .group import Group, Measures, Row, Scale, timed
from .warm import Warm

CHUNK = 500
"""Commands in one pipeline."""


def read_everything(client: redis.Redis) -> dict[str, Any]:
    """SCAN, pipelined HGETALL, and json.loads of each context."""
    found: dict[str, Any] = {}
    for key, record in hashes(client):
        record["context"] = json.loads(record["context"])
        found[key] = record
    return found


def hashes(client: redis.Redis) -> Iterator[tuple[str, Any]]:
    keys = list(client.scan_iter(match="memory:agents:*", count=CHUNK))
    for first in range(0, len(keys), CHUNK):
        some = keys[first : first + CHUNK]
        pipe = client.pipeline(transaction=False)
        for key in some:
            pipe.hgetall(key)
        yield from zip(some, pipe.execute(), strict=True)


@contextmanager
def _unified(scale: Scale) -> Iterator[Measures]:
    with filled_server(scale.agents) as at:
        root = at.root

        def bare() -> float:
            with redis.Redis(unix_socket_path=at.socket, decode_responses=True) as client:
                return timed(lambda: read_everything(client))

        def first() -> float:
            with UnifiedMemoryHub(str(root), redis=at.url) as hub:
                return timed(hub.get_unified_context)

        with UnifiedMemoryHub(str(root), redis=at.url) as hub:
            hub.get_unified_context()

            def second() -> float:
                return timed(hub.get_unified_context)

            yield {"bare": bare, "first": first, "second": second}


@contextmanager
def _context_file(scale: Scale) -> Iterator[Measures]:
    with filled_server(scale.agents) as at:
        root = at.root
        path, numbers = root / "shared_memory" / "context.json", count()
        with Warm(root, at.url) as warm, UnifiedMemoryHub(str(root), redis=at.url) as hub:

            def ours() -> float:
                name = agent(scale.agents // 2)
                hub.update_agent_context(name, {"task": f"another {next(numbers)}"})
                return warm.round({name})

            yield {"ours": ours, "json": lambda: timed(lambda: _rewrite(path, at.folder / "copy.json"))}


def _rewrite(path: Path, copy: Path) -> None:
    """As everybody does it: read, change, write all of it anew; into another file, which nobody watches."""
    whole = json.loads(path.read_bytes())
    next(iter(whole["agents"].values()))["status"] = "busy"
    copy.write_text(json.dumps(whole, indent=2))


GROUPS = (
    Group("read", _unified, (
        Row("first get_unified_context : SCAN + pipelined HGETALL + json.loads", "first", "bare", 1.2),
        Row("second get_unified_context : the first", "second", "first", 0.01),
    )),
    Group("context.json", _context_file, (
        Row("round that writes one change into context.json, fsync : json.loads + json.dumps + write",
            "ours", "json", 1 / 3),
    )),
)  # fmt: skip
