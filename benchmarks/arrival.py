"""How long a write is on its way: from just before it is made until another process has heard of it.

`event`: the hub beside what does the same elsewhere; servers, writer and listeners share one processor, so that no
ratio depends on where the system put them. `paths`: every way into a workspace that a `reconciler run` keeps, on
whatever processors the system chose; `context.json` is looked at every half millisecond.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reconciler import UnifiedMemoryHub

from . import listening
from .brokers import etcd, nats
from .calls import bare_write, context
from .filling import SMALL, declare
from .group import Group, Measures, Row, Scale
from .listening import PATIENCE, Listener
from .rig import Server, daemon, one_processor, server
from .ways import AGENTS, Way, blocks, heard

QUIET = 0.1
"""Seconds that a raw write rests: the default of the setting `quiet`."""
LOOK = 0.0005
"""Seconds between two looks at a file."""
OVER = 0.2
"""Seconds without a commit after which a round is over."""


@contextmanager
def _event(scale: Scale) -> Iterator[Measures]:
    with ExitStack() as opened:
        opened.enter_context(one_processor())
        at = opened.enter_context(server())
        hub = opened.enter_context(UnifiedMemoryHub(str(at.root), redis=at.url))
        ours = opened.enter_context(Listener(listening.hub, str(at.root), at.url))
        bare = opened.enter_context(Listener(listening.bare, at.url))
        ways = {
            "bare": heard(bare, lambda name, token: bare_write(at.client, name, context(token))),
            "hub": heard(ours, lambda name, token: hub.update_agent_context(name, context(token))),
        }
        for peer, opening in (("nats", nats), ("etcd", etcd)):
            way = opening(scale.peers, opened)
            if way is not None:
                ways[peer] = way
        yield {name: blocks(way, scale.calls, 0.001) for name, way in ways.items()}


class Paths:
    """Every way into a workspace that a daemon keeps, waited for at its other end."""

    def __init__(self, at: Server, hub: UnifiedMemoryHub, ours: Listener) -> None:
        self.at, self.hub, self.ours = at, hub, ours
        self.root = at.root
        self.file = self.root / "shared_memory" / "context.json"

    def update(self, name: str, token: str) -> float:
        return heard(self.ours, lambda *_: self.hub.update_agent_context(name, context(token)))(name, token)

    def mirror(self, name: str, token: str) -> float:
        start = time.perf_counter_ns()
        self.hub.update_agent_context(name, context(token))
        return (self._mirrored(token) - start) / 1e9

    def rested(self, way: Way) -> Way:
        """The same; then the end of that round is waited for, so that the next write meets a daemon at rest."""

        def one(name: str, token: str) -> float:
            taken = way(name, token)
            self._mirrored(token)
            self._over()
            return taken

        return one

    def raw(self, name: str, token: str) -> float:
        key = f"memory:agents:{name}"
        return heard(self.ours, lambda *_: self.at.client.hset(key, "insight", token), QUIET)(name, token)

    def keyspace(self, listener: Listener) -> Way:
        return heard(listener, lambda name, token: self.at.client.hset(f"bench:{name}", "insight", token))

    def edit(self, name: str, token: str) -> float:
        """As an editor or `jq` does it: read, change, write beside it, rename."""
        whole = json.loads(self.file.read_bytes())
        whole["agents"][name]["context"]["note"] = token
        start = _replace(self.file, json.dumps(whole, indent=2))
        return (self.ours.heard(token) - start) / 1e9

    def declare(self, name: str, token: str) -> float:
        path = self.root / "manifests" / f"{name}.yaml"
        start = _replace(path, SMALL.format(agent=name, goal=token))
        return (self.ours.heard(token) - start) / 1e9

    def sync(self, name: str, token: str) -> float:
        """5 ms, and what the system needs until such a file is on the disk."""
        content = self.file.read_bytes()
        with (self.root / "disk").open("wb") as file:
            start = time.perf_counter_ns()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            return (time.perf_counter_ns() - start) / 1e9 + 0.005

    def _over(self) -> None:
        """A round ends with a commit of base, behind context.json: until there was none for a moment."""
        base = self.root / ".reconciler" / "state.db"
        before, since, until = 0, time.monotonic(), time.monotonic() + PATIENCE
        while (now := time.monotonic()) < min(since + OVER, until):
            found = base.stat().st_mtime_ns
            if found != before:
                before, since = found, now
            time.sleep(LOOK)

    def _mirrored(self, token: str) -> int:
        """When, in nanoseconds, context.json held this text."""
        before, text, until = None, token.encode(), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            at, there = time.perf_counter_ns(), self.file.stat()
            mark = there.st_ino, there.st_mtime_ns, there.st_size
            if mark != before:
                before = mark
                if text in self.file.read_bytes():
                    return at
            time.sleep(LOOK)
        raise SystemExit(f"nothing came into context.json within {PATIENCE:.0f} s")


def _replace(path: Path, text: str) -> int:
    """Put a new file in an old one's place; when, in nanoseconds, just before."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    start = time.perf_counter_ns()
    new.replace(path)
    return start


@contextmanager
def _paths(scale: Scale) -> Iterator[Measures]:
    with ExitStack() as opened:
        at = opened.enter_context(server("--notify-keyspace-events", "KEA"))
        declare(at.root, AGENTS)
        opened.enter_context(daemon(at.root, at.url))
        ours = opened.enter_context(Listener(listening.hub, str(at.root), at.url))
        events = opened.enter_context(Listener(listening.keyspace, at.url))
        bare = opened.enter_context(Listener(listening.bare, at.url))
        hub = opened.enter_context(UnifiedMemoryHub(str(at.root), redis=at.url))
        paths = Paths(at, hub, ours)
        ways: dict[str, Way] = {
            "bare": heard(bare, lambda name, token: bare_write(at.client, name, context(token))),
            "hub": paths.update,
            "file": paths.mirror,
            "raw": paths.raw,
            "keyspace": paths.keyspace(events),
            "edit": paths.edit,
            "manifest": paths.declare,
            "sync": paths.sync,
        }
        yield {name: blocks(way, scale.calls, 0.02) for name, way in ways.items()}


GROUPS = (
    Group("event", _event, (
        Row("update -> subscriber's callback : bare HSET + PUBLISH -> redis-py listener", "hub", "bare", 1.0),
        Row("update -> subscriber's callback : NATS KV put -> watch, in memory", "hub", "nats", 0.5),
        Row("update -> subscriber's callback : etcd put -> watch, on tmpfs", "hub", "etcd", 0.3),
    ), often=5),
    Group("paths", _paths, (
        Row("raw HSET -> event, less the quiet time : keyspace event + HGETALL", "raw", "keyspace", 2.0),
        Row("edit of context.json -> event : 5 ms + one fsync", "edit", "sync", 1.0),
        Row("edit of a manifest -> event : 5 ms + one fsync", "manifest", "sync"),
        Row("update -> callback : bare HSET + PUBLISH -> listener, a daemon at work", "hub", "bare"),
        Row("update -> context.json : 5 ms + one fsync", "file", "sync"),
    )),
)  # fmt: skip
