"""Servers for tests: a real Valkey on a private unix socket, a fake one, and the one that REDIS_URL names.

`memory` is live memory on each of them in turn, empty at the start. After every test it is looked whether a key
was made outside `memory:*`: that would be somebody else's.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from reconciler.store.embedded import server_binary
from reconciler.store.redis_store import Limits, RedisStore
from tests.waiting import wait_until

URL = os.environ.get("REDIS_URL", "")
KINDS = ("fakeredis", "valkey", *(["REDIS_URL"] if URL else []))


@dataclass(frozen=True)
class Server:
    """A running server: its URL, its process, and its folder."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    def client(self, **options: Any) -> Any:
        return redis.Redis.from_url(self.url, **options)


@contextmanager
def running(*options: str) -> Iterator[Server]:
    """A server of its own, with these options, that listens on a unix socket only and keeps nothing."""
    # Directly under /tmp: a socket's path has at most 103 bytes, and a test's own folder may be deeper.
    with tempfile.TemporaryDirectory(prefix="reconciler-test-", dir="/tmp") as name:
        path = Path(name) / "socket"
        command = [
            str(server_binary()),
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--dir",
            name,
            *options,
        ]
        with open(Path(name) / "log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={"LC_ALL": "C"})
        try:
            wait_until(lambda: _answers(path), what=f"an answer from {path}")
            yield Server(f"unix://{path}", process, Path(name))
        finally:
            process.kill()
            process.wait()


def _answers(path: Path) -> bool:
    """Whether a server says anything: that it wants a password is an answer too."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1)
        try:
            asking.connect(str(path))
            asking.sendall(b"PING\r\n")
            return bool(asking.recv(64))
        except OSError:
            return False


def fake_client() -> Any:
    """A fakeredis whose scripts know `redis.sha1hex`, which every real server has and fakeredis lacks."""
    server: Any = fakeredis.FakeServer()
    client: Any = fakeredis.FakeRedis(server=server, protocol=2, socket_timeout=60)  # its Lua is slow
    client.eval("return 1", 0)  # only now the server has a Lua runtime
    server._lua_runtime.globals()[b"redis"][b"sha1hex"] = lambda text: hashlib.sha1(text).hexdigest().encode()
    return client


class Memory:
    """Live memory: the store, and `redis`, the hands of somebody who knows nothing of it."""

    def __init__(self, client: Any, **limits: int) -> None:
        self.redis = client
        self.store = RedisStore(client, "tester@host", Limits(**limits))

    def with_limits(self, **limits: int) -> Memory:
        return Memory(self.redis, **limits)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """One server for the whole session."""
    with running() as server:
        yield server


@pytest.fixture
def launch() -> Iterator[Callable[..., Server]]:
    """Starts a server with the options given, for this test alone."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(running(*options))


@pytest.fixture
def real(valkey: Server) -> Iterator[Memory]:
    """Live memory on the real Valkey only."""
    with valkey.client() as client:
        client.flushall()
        yield Memory(client)
        _no_leak(client, set())


@pytest.fixture(params=KINDS)
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    """Live memory on every kind of server in turn."""
    if request.param == "valkey":
        yield request.getfixturevalue("real")
        return
    with fake_client() if request.param == "fakeredis" else redis.Redis.from_url(URL) as client:
        _forget(client)
        others = set(client.scan_iter(count=1_000))
        yield Memory(client)
        _no_leak(client, others)
        _forget(client)


def _forget(client: Any) -> None:
    """Delete what belongs to this program, and nothing else."""
    for key in list(client.scan_iter(match="memory:*", count=1_000)):
        client.delete(key)


def _no_leak(client: Any, others: set[bytes]) -> None:
    made = {key for key in client.scan_iter(count=1_000) if not key.startswith(b"memory:")} - others
    assert not made, f"keys outside memory:* were made: {made}"
