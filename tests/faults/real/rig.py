"""The rig of a trial: a server, workspaces with their daemons, writers at work, and the verdict when all is quiet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from reconciler.state import encode
from tests.cli.shell import Shell
from tests.faults import check
from tests.faults.real.server import Server
from tests.faults.real.writer import AGENTS
from tests.faults.record import Records

QUIET = {"RECONCILER_HISTORY": "1000000"}
"""All history is kept, so that it can be replayed from the beginning."""


class Process:
    """A program in the background that may be killed and started again; what it says goes to a file."""

    def __init__(self, words: list[str], env: dict[str, str], said: Path) -> None:
        self.words, self.env, self.path = words, env, said
        self.running: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert self.running is None
        with open(self.path, "ab") as out:
            self.running = subprocess.Popen(self.words, stdout=out, stderr=out, env=self.env, start_new_session=True)

    @property
    def pid(self) -> int:
        assert self.running
        return self.running.pid

    def kill(self) -> None:
        if self.running:
            self.running.kill()
            self.running.wait()
            self.running = None

    def freeze(self) -> None:
        """SIGSTOP."""
        assert self.running
        self.running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.running
        self.running.send_signal(signal.SIGCONT)

    def ended(self) -> int | None:
        """The exit code of one that ended without being asked to, None for one that runs."""
        return self.running.poll() if self.running else None

    def end(self, seconds: float = 30) -> int:
        """SIGTERM, and the exit code."""
        assert self.running
        self.running.terminate()
        code = self.running.wait(seconds)
        self.running = None
        return code

    def said(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")


class Desk(Shell):
    """A workspace with a `run` of its own and a folder for what writers and daemon leave behind."""

    def __init__(self, root: Path, url: str, **env: str) -> None:
        super().__init__(root, url, {**QUIET, **env})
        self.logs = root.parent / f"{root.name}-logs"
        self.logs.mkdir()
        root.mkdir()
        (root / "shared_memory").mkdir()
        (root / "manifests").mkdir()
        self.daemon: Process | None = None
        self.started: list[Process] = []

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened, nothing stays behind."""
        for process in self.started:
            process.kill()

    def background(self, name: str, *words: str, **env: str) -> Process:
        env = {**self.environment(), "PYTHONUNBUFFERED": "1", **env}
        self.started.append(Process(list(words), env, self.logs / f"{name}.out"))
        return self.started[-1]

    def run(self, *words: str, **env: str) -> Process:
        """Start `run`; kept as this workspace's daemon unless there is one."""
        name = "run" if self.daemon is None else "run-again"
        process = self.background(name, *self.words("run", *words), **env)
        self.daemon = self.daemon or process
        return process

    def writer(self, kind: str, name: str, seed: int, **more: Any) -> Process:
        log = self.logs / f"{name}-{seed}.jsonl"
        chosen = {"kind": kind, "name": name, "seed": seed, "log": str(log), "root": str(self.root), **more}
        chosen.setdefault("redis", self.redis)
        return self.background(
            f"{name}-{seed}", sys.executable, "-m", "tests.faults.real.writer", json.dumps(chosen), **self.env
        )

    def records(self) -> Records:
        found = Records()
        found.read(self.logs.glob("*.jsonl"))
        return found

    def settle(self, server: Server, seconds: float = 30) -> None:
        """Wait until its file and Redis are equal, and not empty."""
        with server.client() as client:
            wrong = repeat(lambda: check.quick(client, [self.root]) or check.emptiness(client), seconds)
        assert not wrong, check.shortened(wrong) + (self.daemon.said()[-2000:] if self.daemon else "")

    def begin(self) -> dict[str, dict[str, str]]:
        """Six agents in the file and two manifests; what they say, as the records want it."""
        context = {"role": "first", "k0": "first"}
        agents = {name: {"status": "first", "context": dict(context)} for name in AGENTS}
        self.write_context(agents, current_work={"on": ["x"]}, paths={"sot": "/x"})
        values = {"status": encode("first"), **{f"context.{key}": encode(text) for key, text in context.items()}}
        return dict.fromkeys(AGENTS, values)


class Witness:
    """Reads a `context.json` again and again; knows everything that ever stood there."""

    def __init__(self, root: Path) -> None:
        self.path = root / "shared_memory" / "context.json"
        self.seen: set[tuple[str, str, str]] = set()
        self.faults: list[str] = []
        self._last: object = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.look()

    def look(self) -> None:
        try:
            there = self.path.stat()
            if (there.st_ino, there.st_mtime_ns, there.st_size) == self._last:
                return
            self._last = (there.st_ino, there.st_mtime_ns, there.st_size)
            document = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.faults.append("context.json was not there for a moment")
            return
        except ValueError as error:
            self.faults.append(f"context.json was torn for a moment: {error}")
            return
        for agent, values in check.of_document(document).items():
            self.seen.update((agent, name, text) for name, text in values.items())


def repeat(condition: Callable[[], list[str]], seconds: float) -> list[str]:
    """What is still wrong after so many seconds; returns as soon as nothing is."""
    deadline = time.monotonic() + seconds
    while True:
        wrong = ["away"]
        with suppress(redis.RedisError):
            wrong = condition()
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(0.02)


def say(text: str) -> None:
    """What a person who looks on should know; shown with a failure, and with -s."""
    sys.stdout.write(text + "\n")


def env_number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))
