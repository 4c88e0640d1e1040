"""What the rows are measured on: a server, and processes that are waited for.

Everything is in a temporary folder with a short path (a socket's has a limit), and gone at the end.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from reconciler.store.embedded import server_binary

PROJECT = Path(__file__).parent.parent
LIMITS = Path(__file__).with_name("limits.py")
PATIENCE = 60.0
"""Seconds until something that does not come ends the benchmark."""


class Server(NamedTuple):
    """A server of its own: its URL, a client of redis-py, its process, and its folder, with an empty workspace."""

    url: str
    client: redis.Redis
    process: int
    folder: Path

    @property
    def socket(self) -> str:
        return self.url.removeprefix("unix://")

    @property
    def root(self) -> Path:
        return self.folder / "root"


class Cost(NamedTuple):
    """One process: seconds by the clock, seconds of CPU, and what it printed."""

    wall: float
    cpu: float
    said: str


@contextmanager
def temporary(parent: Path | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as name:
        yield Path(name)


@contextmanager
def server(*options: str, copy: Path | None = None) -> Iterator[Server]:
    """A Valkey on a private socket, set up as the embedded one is; stopped at the end.

    `copy` is a folder whose data and workspace it begins with.
    """
    with temporary() as folder:
        if copy is not None:
            shutil.copytree(copy, folder, dirs_exist_ok=True)
        (folder / "root").mkdir(exist_ok=True)
        socket = folder / "valkey.sock"
        chosen = {"port": 0, "unixsocket": socket, "dir": folder, "appendonly": "yes", "appendfsync": "everysec",
                  "save": "", "loglevel": "warning", "logfile": folder / "valkey.log"}  # fmt: skip
        command = [
            str(server_binary()),
            *(part for name, value in chosen.items() for part in (f"--{name}", str(value))),
        ]
        client = redis.Redis(unix_socket_path=str(socket), decode_responses=True)
        with started([*command, *options]) as process:
            waited(lambda: answers(client), "the server's answer", process)
            yield Server(f"unix://{socket}", client, process.pid, folder)
            client.close()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.BusyLoadingError):
        return False


@contextmanager
def started(command: Sequence[str], log: Path | None = None, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the background; stopped at the end."""
    with (log or Path(os.devnull)).open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def waited(there: Any, what: str, process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    until = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > until or (process is not None and process.poll() is not None):
            said = log.read_text("utf-8", "replace")[-2_000:] if log is not None else ""
            raise SystemExit(f"{what} did not come within {PATIENCE:.0f} s, or its process ended\n{said}")
        time.sleep(0.01)


@contextmanager
def one_processor() -> Iterator[None]:
    """This process, and what it starts meanwhile, on one processor, where the system can do that: a wake-up across
    processors costs more than the work that is measured."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment() -> dict[str, str]:
    """This process's, without settings that somebody exported: of the program, and of Python, which could be told
    to compile every module anew in each process."""
    others = ("RECONCILER_", "REDIS_", "LUKA_", "PYTHON")
    clean = {name: text for name, text in os.environ.items() if not name.startswith(others)}
    return {**clean, "PYTHONPATH": str(PROJECT)}


def run(*command: str, code: int = 0, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Cost:
    """Run a program and wait for it; another exit code than `code` ends the benchmark."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd,
                                   env=environment() if env is None else env)  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, wrong = out.read().decode(), err.read().decode()
    if process.returncode != code:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}, not {code}:\n{wrong[-2_000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, said)


def python(*words: str) -> Cost:
    return run(sys.executable, *words)


def limit(*words: str) -> Cost:
    """A row of limits.py, in a process of its own."""
    return python(str(LIMITS), *words)


def reconciler(root: Path, url: str, *words: str, code: int = 0) -> Cost:
    """The program as it is typed, as a whole process."""
    script = Path(sys.executable).with_name("reconciler")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "reconciler"]
    return run(*start, "--root", str(root), "--redis", url, *words, code=code)


@contextmanager
def daemon(root: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `reconciler run` that watches; stopped at the end."""
    log = root.with_name("run.log")
    command = [sys.executable, "-m", "reconciler", "--root", str(root), "--redis", url, "run"]
    with started(command, log, env=environment()) as process:
        waited(lambda: b"Watching" in log.read_bytes(), "a watching reconciler", process, log)
        yield process
        if process.poll() is not None:
            raise SystemExit(f"reconciler run ended by itself:\n{log.read_text('utf-8', 'replace')[-2_000:]}")


def resident(process: int) -> int:
    """Bytes of memory that a process has now."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(said.stdout) * 1024


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
