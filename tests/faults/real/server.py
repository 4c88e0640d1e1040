"""A real server that a trial may kill, freeze, start again with what it had, or start again with nothing.

Listens on a private unix socket, or on a loopback port. Append-only with `appendfsync always`: what it has
acknowledged it still has after `kill -9`.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from reconciler.store.embedded import server_binary
from tests.waiting import wait_until


def binaries() -> dict[str, Path]:
    """The servers of this machine by name: the bundled Valkey, and the system's redis-server where there is one."""
    found = {"valkey": server_binary()}
    system = shutil.which("redis-server")
    return found | ({"redis": Path(system)} if system else {})


class Server:
    """One server in one folder; `url` stays the same however often it is killed."""

    def __init__(self, folder: Path, *options: str, binary: Path | None = None, port: int = 0) -> None:
        self.folder, self.port = folder, port
        self.binary = binary or server_binary()
        self.options = options
        self.socket = folder / "socket"
        self.process: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.socket}"

    def lose(self, *, back_to: Path | None = None) -> None:
        """Forget everything, or go back to an older copy; it must not run."""
        assert self.process is None
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        if back_to is not None:
            shutil.copytree(back_to, self.folder / "appendonlydir")

    def copy(self, to: Path) -> None:
        """What it has on disk now, as a backup program would take it; it must not run."""
        assert self.process is None
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.folder / "appendonlydir", to)

    def start(self, *, wait: bool = True) -> None:
        """Start it with what it has on disk. Returns when it answers, unless not asked to wait."""
        assert self.process is None
        place = ("--bind", "127.0.0.1") if self.port else ("--unixsocket", str(self.socket))
        command = [
            str(self.binary),
            *("--port", str(self.port), *place, "--dir", str(self.folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"),
            *self.options,
        ]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={"LC_ALL": "C"}, start_new_session=True
            )
        if wait:
            wait_until(self.answers, 20, f"an answer from {self.url}")

    def kill(self) -> None:
        """SIGKILL; nothing if it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process, self.frozen = None, False

    def freeze(self) -> None:
        """SIGSTOP: connections are taken by the kernel, and nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        if self.process is not None and self.frozen:
            self.process.send_signal(signal.SIGCONT)
            self.frozen = False

    def says(self) -> bytes:
        """What it says to a PING; nothing if it does not answer."""
        with socket.socket(socket.AF_INET if self.port else socket.AF_UNIX) as asking, suppress(OSError):
            asking.settimeout(1)
            asking.connect(("127.0.0.1", self.port) if self.port else str(self.socket))
            asking.sendall(b"PING\r\n")
            return asking.recv(64)
        return b""

    def answers(self) -> bool:
        """Whether it says anything but that it is loading; that it wants a password is an answer too."""
        said = self.says()
        return bool(said) and not said.startswith(b"-LOADING")

    def client(self, **options: Any) -> Any:
        """A plain client that waits at most a second and tries nothing twice."""
        chosen = {"socket_timeout": 1.0, "socket_connect_timeout": 0.25, "retry": Retry(NoBackoff(), 0), **options}
        return redis.Redis.from_url(self.url, protocol=2, **chosen)


@contextmanager
def trial_server(*options: str, kind: str = "valkey", start: bool = True) -> Iterator[Server]:
    """A server of its own on a unix socket, ended with the test."""
    # Directly under /tmp: a socket's path has at most 103 bytes.
    with tempfile.TemporaryDirectory(prefix="trial-", dir="/tmp") as name:
        server = Server(Path(name), *options, binary=binaries()[kind])
        try:
            if start:
                server.start()
            yield server
        finally:
            server.kill()
