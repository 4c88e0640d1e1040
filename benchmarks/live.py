"""Time the way of a write, beside a bare HSET and PUBLISH: `make live`, or `python benchmarks/live.py --help`.

Two parts. In the first one process calls the hub and redis-py by turns, in small blocks, server and client on one
processor where the system can do that (a wake-up across processors costs more than the work); nobody listens and
nothing else runs. In the second a `reconciler run` keeps a workspace and two other processes listen, one to the hub
and one to redis-py; five kinds of writes are made by turns, one at a time, and each is waited for at its other end.

Absolute times say little about another machine: each is printed beside the bare one of the same run. A time begins
just before a write (for a file: before the rename that replaces it) and ends in the process that hears of it, by the
clock that all processes share. `context.json` is looked at every half millisecond.

A Valkey of its own runs in a temporary folder, with the settings of the embedded one; both are gone at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis
from calls import CHANNEL, Calls, Times, context, one_processor, ratio, say, show_calls, tell, texts
from round import describe, server

from reconciler import UnifiedMemoryHub

PATIENCE = 20.0
"""Seconds until a path that gives nothing ends the benchmark."""
LOOK = 0.0005
"""Seconds between two looks at context.json."""
MANIFEST = """\
apiVersion: reconciler/v1
kind: Agent
metadata: {{name: {agent}}}
spec: {{context: {{goal: {goal}}}}}
"""

BARE = "bare HSET + PUBLISH -> bare listener"
HUB, HUB_FILE = "hub.update_agent_context -> callback", "hub.update_agent_context -> context.json"
RAW, RAW_FILE = "raw HSET -> callback (100 ms of it quiet)", "raw HSET -> context.json (100 ms of it quiet)"
EDIT, MANIFEST_EDIT = "edit of context.json -> callback", "edit of a manifest -> callback"
DISK = "a file like context.json, fsynced and renamed"
ROWS = (BARE, HUB, HUB_FILE, RAW, RAW_FILE, EDIT, MANIFEST_EDIT, DISK)
_spawn = multiprocessing.get_context("spawn")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--agents", type=int, default=6, help="agents in the workspace (%(default)s)")
    arguments.add_argument("--writes", type=int, default=1_000, help="writes of each kind (%(default)s)")
    arguments.add_argument("--rounds", type=int, default=50, help="blocks they are made in, by turns (%(default)s)")
    chosen = arguments.parse_args()
    if min(chosen.agents, chosen.rounds) < 1 or chosen.writes < chosen.rounds:
        arguments.error("at least one agent, one round, and one write for each round are needed")
    for name in [name for name in os.environ if name.startswith(("RECONCILER_", "REDIS_"))]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with server(folder) as client:
            describe(chosen.agents, chosen.rounds, client)
            with one_processor(int(client.info("server")["process_id"])) as pinned:
                show_calls(Calls(folder, client).measure(chosen.rounds), pinned)
            client.flushall()
            show_paths(measure_paths(folder, client, chosen), chosen.rounds)
    finally:
        shutil.rmtree(folder)


def measure_paths(folder: Path, client: redis.Redis, chosen: argparse.Namespace) -> Times:
    """Every path, in seconds, by turns."""
    root, url = folder / "workspace", f"unix://{folder / 'valkey.sock'}"
    agents = [f"agent-{number:05}" for number in range(chosen.agents)]
    fill(root, agents)
    with (
        running(root, url),
        Listener(listen_bare, url) as bare,
        Listener(listen_hub, str(root), url) as heard,
        closing(UnifiedMemoryHub(str(root), redis=url)) as hub,
    ):
        paths = Paths(root, client, hub, agents)
        for number in range(chosen.rounds):
            share = chosen.writes * (number + 1) // chosen.rounds - chosen.writes * number // chosen.rounds
            for work, listener in (
                (paths.bare, bare), (paths.update, heard), (paths.raw, heard), (paths.edit, heard),
                (paths.declare, heard), (paths.disk, heard),
            ):  # fmt: skip
                for _ in range(share):
                    work(listener)
            tell(f"paths, round {number + 1} of {chosen.rounds}", number + 1 == chosen.rounds)
    return paths.times


def fill(root: Path, agents: Sequence[str]) -> None:
    """A workspace in which every agent is in context.json and has a manifest."""
    for name in ("shared_memory", "manifests"):
        (root / name).mkdir(parents=True)
    records = {agent: {"status": "idle", "context": {"note": "", "text": "x" * 100}} for agent in agents}
    (root / "shared_memory" / "context.json").write_text(json.dumps({"version": "1.0", "agents": records}, indent=2))
    for agent in agents:
        (root / "manifests" / f"{agent}.yaml").write_text(MANIFEST.format(agent=agent, goal="none"))


@contextmanager
def running(root: Path, url: str) -> Iterator[None]:
    """A `reconciler run` that watches; stopped at the end."""
    command = [sys.executable, "-m", "reconciler", "--root", str(root), "--redis", url, "run"]
    path = root.with_name("run.log")
    with path.open("wb") as log:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    try:
        until = time.monotonic() + PATIENCE
        while b"Watching" not in path.read_bytes():
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"reconciler run does not watch within {PATIENCE:.0f} s:\n{_end(path)}")
            time.sleep(0.02)
        yield
        if process.poll() is not None:
            raise SystemExit(f"reconciler run ended by itself with {process.returncode}:\n{_end(path)}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end(path: Path) -> str:
    return path.read_text("utf-8", "replace")[-2_000:]


class Listener:
    """Another process that listens, and tells when it heard what."""

    def __init__(self, work: Callable[..., None], *words: str) -> None:
        self._pipe, self._theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=work, args=(self._theirs, *words), daemon=True)

    def __enter__(self) -> Listener:
        self._process.start()
        self._theirs.close()
        self.heard("ready", "a listener")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.join()

    def heard(self, token: str, path: str) -> int:
        """When, in nanoseconds, the other process heard of what contains this text."""
        until = time.monotonic() + PATIENCE
        while self._pipe.poll(max(0.0, until - time.monotonic())):
            try:
                at, text = self._pipe.recv()
            except EOFError:
                raise SystemExit(f"{path}: the process that listens ended") from None
            if token in text:
                return int(at)
        raise SystemExit(f"{path}: nothing came within {PATIENCE:.0f} s")


def listen_bare(pipe: Connection, url: str) -> None:
    """Until it is ended: what redis-py alone hears."""
    client: Any = redis.Redis.from_url(url)
    listening = client.pubsub()
    listening.subscribe(CHANNEL)
    for message in listening.listen():
        at = time.perf_counter_ns()
        pipe.send((at, "ready" if message["type"] == "subscribe" else message["data"].decode()))


def listen_hub(pipe: Connection, root: str, url: str) -> None:
    """Until it is ended: what a subscriber's callback is called with."""

    def callback(event: dict[str, Any]) -> None:
        at = time.perf_counter_ns()
        pipe.send((at, " ".join(str(change["new"]) for change in event.get("changes", ()))))

    with UnifiedMemoryHub(root, redis=url, reading=True) as hub:
        hub.subscribe_updates(callback)
        pipe.send((0, "ready"))
        while True:
            time.sleep(60)


class Paths:
    """One write of each kind, waited for at its other end. Each has a text that occurs nowhere else."""

    def __init__(self, root: Path, client: redis.Redis, hub: UnifiedMemoryHub, agents: Sequence[str]) -> None:
        self.client, self.hub, self.agents = client, hub, agents
        self.file, self.manifests = root / "shared_memory" / "context.json", root / "manifests"
        self.times: Times = {}
        self.count = 0

    def bare(self, listener: Listener) -> None:
        agent, token = self.next()
        start = time.perf_counter_ns()
        pipe = self.client.pipeline(transaction=False)
        say(pipe, agent, *texts(agent, context(token)))
        pipe.execute()
        self.took(BARE, start, listener.heard(token, BARE))

    def update(self, listener: Listener) -> None:
        agent, token = self.next()
        start = time.perf_counter_ns()
        self.hub.update_agent_context(agent, context(token))
        self.both(HUB, HUB_FILE, start, token, listener)

    def raw(self, listener: Listener) -> None:
        agent, token = self.next()
        start = time.perf_counter_ns()
        self.client.hset(f"memory:agents:{agent}", "insight", token)
        self.both(RAW, RAW_FILE, start, token, listener)

    def edit(self, listener: Listener) -> None:
        """As an editor or `jq` does it: read, change, write beside it, rename."""
        agent, token = self.next()
        whole = json.loads(self.file.read_bytes())
        whole["agents"][agent]["context"]["note"] = token
        start = _replace(self.file, json.dumps(whole, indent=2))
        self.took(EDIT, start, listener.heard(token, EDIT))

    def declare(self, listener: Listener) -> None:
        agent, token = self.next()
        start = _replace(self.manifests / f"{agent}.yaml", MANIFEST.format(agent=agent, goal=token))
        self.took(MANIFEST_EDIT, start, listener.heard(token, MANIFEST_EDIT))

    def disk(self, _: Listener) -> None:
        """What the system needs to put such a file in place so that it stays, whoever does it."""
        self.next()
        content, path = self.file.read_bytes(), self.file.parent.parent / "disk"
        start = time.perf_counter_ns()
        with path.with_suffix(".new").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").replace(path)
        number = os.open(path.parent, os.O_RDONLY)
        os.fsync(number)
        os.close(number)
        self.took(DISK, start, time.perf_counter_ns())

    def next(self) -> tuple[str, str]:
        """Whose turn it is, and a new text; what the last write set off is given a moment, of no fixed length."""
        time.sleep(random.uniform(0.02, 0.04))
        self.count += 1
        return self.agents[self.count % len(self.agents)], f"<{self.count}>"

    def took(self, row: str, start: int, end: int) -> None:
        self.times.setdefault(row, []).append((end - start) / 1e9)

    def both(self, event: str, mirror: str, start: int, token: str, listener: Listener) -> None:
        """Wait for the file first: when the event came is told by the one who heard it."""
        end = self.mirrored(token, mirror)
        self.took(event, start, listener.heard(token, event))
        self.took(mirror, start, end)

    def mirrored(self, token: str, path: str) -> int:
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
        raise SystemExit(f"{path}: nothing came within {PATIENCE:.0f} s")


def _replace(path: Path, text: str) -> int:
    """Put a new file in an old one's place; when, in nanoseconds, just before."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    start = time.perf_counter_ns()
    new.replace(path)
    return start


def show_paths(times: Times, rounds: int) -> None:
    writes, bare = len(times[BARE]), statistics.median(times[BARE])
    print(f"\nPaths, {writes:,} writes of each kind, by turns, a `reconciler run` at work")
    print(f"{'':<48}{'p50':>12}{'p99':>12}   p50 : bare p50")
    for row in ROWS:
        p50, p99 = statistics.median(times[row]), sorted(times[row])[int(writes * 0.99)]
        print(f"{row:<48}{p50 * 1e3:>9.3f} ms{p99 * 1e3:>9.3f} ms{p50 / bare:>17.1f}")
    blocks = [
        [statistics.median(times[row][writes * n // rounds : writes * (n + 1) // rounds]) for n in range(rounds)]
        for row in (HUB, BARE)
    ]
    print(f"\n{HUB + ' : ' + BARE:<76}{ratio(*blocks)}")


if __name__ == "__main__":
    main()
