"""A person at a shell: runs `python -m reconciler` in a workspace, looks at what is there before and after."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import redis

PROJECT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "reconciler")


class Result(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """Commands on one workspace and one server; `prefix` is what runs them."""

    root: Path
    redis: str
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """What a command sees: nothing of ours but the way to Python."""
        home = {"HOME": str(self.root.parent), "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
        return home | {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | self.env

    def words(self, *args: str | Path) -> list[str]:
        return [*self.prefix, *COMMAND, "--root", str(self.root), "--redis", self.redis, *map(str, args)]

    def __call__(self, *args: str | Path, input: str = "", timeout: float = 60) -> Result:
        return self.plain(*self.words(*args), input=input, timeout=timeout)

    def plain(self, *words: str, input: str = "", timeout: float = 60) -> Result:
        """Any words, without --root and --redis."""
        done = subprocess.run(
            words,
            input=input.encode(),
            capture_output=True,
            timeout=timeout,
            cwd=self.root if os.access(self.root, os.X_OK) else None,
            env=self.environment(),
            check=False,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.out + result.err, result.err
        assert "\x1b" not in result.out + result.err
        return result

    @contextmanager
    def start(self, *args: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command in the background, its stderr in its stdout; killed at the end if it still runs."""
        process = subprocess.Popen(
            self.words(*args),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.environment(), "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    @property
    def context_file(self) -> Path:
        return self.root / "shared_memory" / "context.json"

    def context(self) -> Any:
        return json.loads(self.context_file.read_text())

    def write_context(self, agents: Mapping[str, Any], **sections: Any) -> None:
        self.context_file.parent.mkdir(exist_ok=True)
        self.context_file.write_text(json.dumps({"version": "1.0", "agents": agents, **sections}, indent=2))

    def write_manifest(self, agent: str, status: str = "active", **context: Any) -> Path:
        path = self.root / "manifests" / f"{agent}.yaml"
        path.parent.mkdir(exist_ok=True)
        spec = json.dumps({"status": status, "context": context}, ensure_ascii=False)
        path.write_text(
            f"apiVersion: reconciler/v1\nkind: Agent\nmetadata: {{name: {agent}}}\nspec: {spec}\n", encoding="utf-8"
        )
        return path


def say(process: subprocess.Popen[str], number: signal.Signals, seconds: float = 20) -> Result:
    """Send a signal and wait for the end."""
    process.send_signal(number)
    out, _ = process.communicate(timeout=seconds)
    assert "Traceback" not in out, out
    return Result(process.returncode, out, "")


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """What a process says up to and including the line with a word in it."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if word in line:
            return said
    raise AssertionError(f"{word!r} was never said:\n{said}")


Entry = tuple[str, int, int, int, bytes]


def listing(folder: Path) -> list[Entry]:
    """Everything under a folder and the folder: name, mode, size, mtime, content. Sockets and fifos by name."""
    found: list[Entry] = []
    for path in [folder, *sorted(folder.rglob("*"))]:
        there = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(there.st_mode) else b""
        found.append((str(path), there.st_mode, there.st_size, there.st_mtime_ns, content))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """The files under a folder but for locks: an empty one of ours says nothing."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path): path.read_bytes() for path in files if path.suffix != ".lock" and path.name != "lock"}


def stored(client: redis.Redis) -> dict[bytes, object]:
    """Every key of the shared memory with its content."""
    dump: Any = client.dump
    return {key: dump(key) for key in sorted(client.scan_iter("memory:*"))}
