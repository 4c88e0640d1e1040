"""What a person is told when the server is away, refuses, or is none; on real servers and real sockets."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.errors import ReconcilerError, StoreAway, StoreError
from reconciler.events import Event
from reconciler.store import Write
from reconciler.store.connect import PUBLISHED_PASSWORD, connect, public_name
from reconciler.store.redis_store import Limits, RedisStore
from tests.contract.kit import MARY, put
from tests.servers import Memory, Server, running

SECRET = "s3cret-w0rd"
Launch = Callable[..., Server]


@contextmanager
def opened(url: str, password: str | None = None) -> Iterator[tuple[RedisStore, list[str]]]:
    """A store as a workspace opens it, and its warnings."""
    warnings: list[str] = []
    client = connect(url, password, warnings.append)
    store = RedisStore(client, "tester", Limits(), public_name(url))
    try:
        yield store, warnings
    finally:
        store.close()


def refusal(kind: type[ReconcilerError], work: Callable[[], object]) -> str:
    """What is said; with a way out, and without the password."""
    with pytest.raises(ReconcilerError) as caught:
        work()
    assert type(caught.value) is kind, caught.value
    assert caught.value.hint
    assert SECRET not in str(caught.value) and SECRET not in repr(caught.value)
    return str(caught.value)


def use(url: str, password: str | None = None) -> list[str]:
    """Open, write and read; the warnings of it."""
    with opened(url, password) as (store, warnings):
        assert not store.write([Write("mary", (put("status", "x"),))])[0].refused
        assert store.observe({}).agents["mary"].fields["status"].text == '"x"'
        return warnings


def every_call(store: RedisStore) -> list[Callable[[], object]]:
    return [
        lambda: store.observe({}),
        lambda: store.observe({}, ["mary"]),
        lambda: store.write([Write("mary", (put("status", "y"),))]),
        lambda: store.history("mary", 5),
        lambda: store.publish(Event("mary", "note", "2025-11-12T08:00:00Z", {})),
        lambda: store.start_epoch("x"),
    ]


def test_nobody_listens(tmp_path: Path) -> None:
    """On a port or on a socket: away, at once, and named."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url in (f"redis://:{SECRET}@127.0.0.1:{port}/0", f"unix://:{SECRET}@{tmp_path}/none?db=0"):
        assert public_name(url) in refusal(StoreAway, lambda url=url: use(url))  # type: ignore[misc]


def test_a_server_that_hangs_is_away_in_time(launch: Launch) -> None:
    """SIGSTOP: whoever is connected, and whoever comes, is told within 1.5 s; afterwards it works again."""
    server = launch()
    with opened(server.url) as (store, _):
        server.process.send_signal(signal.SIGSTOP)
        try:
            for work in (every_call(store)[2], lambda: use(server.url)):
                started = time.monotonic()
                refusal(StoreAway, work)
                assert time.monotonic() - started < 1.5
        finally:
            server.process.send_signal(signal.SIGCONT)
        for call in every_call(store):
            call()


def test_a_server_that_ends_is_away(launch: Launch) -> None:
    """Whatever is asked of it."""
    server = launch()
    with opened(server.url) as (store, _):
        every_call(store)[2]()
        server.process.kill()
        server.process.wait()
        for call in every_call(store):
            refusal(StoreAway, call)


@contextmanager
def talking(first: bytes, answer: bytes) -> Iterator[str]:
    """A TCP server that is not Redis: what it says at once, and what to anything it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(first)
                    if connection.recv(4096):
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"redis://:{SECRET}@127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (b"", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>no</html>"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", b""),
        (b"", b"500 what?\r\n"),
    ],
)
def test_a_server_that_is_not_redis(first: bytes, answer: bytes) -> None:
    """Its address is wrong, and trying again would not help."""
    with talking(first, answer) as url:
        assert "not as Redis does" in refusal(StoreError, lambda: use(url))


def test_a_wrong_password(launch: Launch) -> None:
    """In the URL or configured: refused, and never shown."""
    server = launch("--requirepass", "right")
    path = server.url.removeprefix("unix://")
    refusal(StoreError, lambda: use(f"unix://:{SECRET}@{path}"))
    assert "password" in refusal(StoreError, lambda: use(server.url, SECRET))
    assert use(server.url, "right") == use(f"unix://:right@{path}", SECRET) == []


def test_a_password_that_nobody_configured(launch: Launch) -> None:
    """It is asked for; the one that the specification publishes is tried first, with a warning."""
    server = launch("--requirepass", SECRET)
    assert "asks for a password" in refusal(StoreError, lambda: use(server.url))
    server = launch("--requirepass", PUBLISHED_PASSWORD)
    warnings = use(server.url)
    assert len(warnings) == 1 and "published" in warnings[0] and PUBLISHED_PASSWORD not in warnings[0]


def test_a_password_that_nobody_needs(valkey: Server, real: Memory) -> None:
    """Configured for another server, or in the URL: it works, with a warning."""
    path = valkey.url.removeprefix("unix://")
    found = [use(valkey.url, SECRET), use(f"unix://:{SECRET}@{path}"), use(f"{valkey.url}?password={SECRET}")]
    assert [len(warnings) for warnings in found] == [1, 1, 1]
    assert all("no password" in warnings[0] and SECRET not in warnings[0] for warnings in found)


def test_a_password_that_is_asked_for_later(launch: Launch) -> None:
    """Somebody sets one while we are at work."""
    server = launch()
    with opened(server.url) as (store, _), server.client() as client:
        client.config_set("requirepass", SECRET)
        pooled: Any = store.client
        pooled.connection_pool.disconnect()
        for call in every_call(store):
            assert "password" in refusal(StoreError, call)


RIGHTS = [
    ("+@all ~* -evalsha", 2),
    ("+@all ~other:*", 2),
    ("+@all ~memory:agents:* &*", 2),
    ("+@all -time ~* &*", 0),
    ("+@all -scan ~* &*", 0),
    ("+@all -xrevrange ~* &*", 3),
    ("+@all ~* resetchannels", 4),
    ("+@all -hsetnx ~* &*", 5),
]


@pytest.mark.parametrize(("rights", "call"), RIGHTS)
def test_a_user_without_the_rights(launch: Launch, rights: str, call: int) -> None:
    """Refused for good, with what to set; and nothing is half-written."""
    server = launch()
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "agent", "reset", "on", f">{SECRET}", *rights.split())
        path = server.url.removeprefix("unix://")
        with opened(f"unix://agent:{SECRET}@{path}") as (store, _):
            assert "ACL" in refusal(StoreError, every_call(store)[call])
        assert admin.keys() == []


@pytest.mark.parametrize(
    "channels", ["resetchannels", "resetchannels &memory:updates", "resetchannels &memory:updates:*"]
)
def test_a_user_who_may_not_publish_writes_nothing(launch: Launch, channels: str) -> None:
    """No change without its event: it is found out before the first write, and the next write is as good as new."""
    server = launch()
    with server.client() as admin:
        admin.execute_command(
            "ACL", "SETUSER", "agent", "reset", "on", "nopass", "+@all", "~memory:*", *channels.split()
        )
        path = server.url.removeprefix("unix://")
        with opened(f"unix://agent:x@{path}") as (store, _):
            assert "memory:updates" in refusal(StoreError, every_call(store)[2])
            assert admin.keys() == []
            admin.execute_command("ACL", "SETUSER", "agent", "&memory:*")
            assert store.write([Write("mary", (put("status", "x"),))])[0].version == 1


def test_the_rights_that_the_hint_names_are_enough(launch: Launch) -> None:
    """Keys `memory:*`, channels `memory:*`, and the commands."""
    server = launch()
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "agent", "reset", "on", "nopass", "+@all", "~memory:*", "&memory:*")
        with opened(f"unix://agent:x@{server.url.removeprefix('unix://')}") as (store, _):
            for call in every_call(store):
                call()


def test_a_read_only_replica(launch: Launch) -> None:
    """Reading works, and so does saying something; a write is refused for now, with the way out."""
    server = launch("--replicaof", "127.0.0.1 1")
    with opened(server.url) as (store, _):
        assert store.observe({}).up
        answer = store.write([Write("mary", (put("status", "y"),))])[0]
        assert answer.later and "replica" in answer.refused and "master" in answer.refused
        assert store.start_epoch("x") == ""
        assert store.publish(Event("mary", "note", "2025-11-12T08:00:00Z", {})) == 0


@pytest.mark.parametrize("history", [10, 0])
def test_a_server_without_memory_refuses_the_write_as_a_whole(launch: Launch, history: int) -> None:
    """`maxmemory` reached and nothing may be evicted: no half of it, no event; reading goes on."""
    server = launch("--maxmemory-policy", "noeviction")
    with server.client() as client, client.pubsub() as heard:
        memory = Memory(client, history=history)
        first = (put("status", "idle"), put("context.k", 1))
        memory.store.write([Write("mary", first)])
        heard.psubscribe("memory:*")
        assert heard.get_message(timeout=10)["type"] == "psubscribe"
        before = [client.dump(key) for key in MARY]
        client.config_set("maxmemory", 1)
        writes = [
            Write("mary", (put("status", "busy"),)),
            Write("new", (put("status", "x"),)),
            Write("mary", (), everything=True),
        ]
        answers = memory.store.write(writes)
        assert all("maxmemory" in answer.refused and "script" not in answer.refused for answer in answers), answers
        assert all(answer.later and not answer.foreign for answer in answers)
        assert [client.dump(key) for key in MARY] == before and not client.keys("*new*")
        assert memory.store.observe({}).agents["mary"].version == 1
        client.config_set("maxmemory", 0)
        assert [answer.version for answer in memory.store.write(writes)] == [2, 1, 3]
        events = [heard.get_message(timeout=10) for _ in range(6)]
        assert {event["type"] for event in events} == {"pmessage"}


def test_a_server_that_is_loading_or_busy_is_away(launch: Launch) -> None:
    """It will answer soon: somebody's script runs long."""
    server = launch("--busy-reply-threshold", "1")
    with server.client(socket_timeout=60) as slow, opened(server.url) as (store, _), server.client() as admin:

        def run() -> None:
            with pytest.raises(redis.ResponseError):
                slow.eval("while true do end", 0)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            said = _until_refused(store)
        finally:
            admin.script_kill()
            thread.join()
        assert "busy" in said.lower()
        assert store.observe({}).up


def _until_refused(store: RedisStore) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            store.write([Write("mary", (put("status", "x"),))])
        except StoreAway as away:
            return str(away)
    raise AssertionError("the script never ran")


ADDRESSES = [
    ("redis://h:1/0", "redis://h:1/0"),
    (f"redis://u:{SECRET}@h:1/0?password={SECRET}", "redis://h:1/0"),
    (f"redis://:a@{SECRET}@h:1/0", "redis://h:1/0"),
    (f"redis://:a/{SECRET}@h:1/0", "redis://h:1/0"),
    (f"redis://:{SECRET}://b@h:1/0", "redis://h:1/0"),
    (f"redis://:a?{SECRET}@h:1/0", "redis://h:1/0"),
    (f"redis://:a#{SECRET}@h:1/0", "redis://h:1/0"),
    (f"rediss://:{SECRET}@[::1]:1", "rediss://[::1]:1"),
    (f"unix://:{SECRET}@/tmp/a@b?db=3", "unix:///tmp/a@b"),
    (f"unix:///tmp/s?password={SECRET}", "unix:///tmp/s"),
]


@pytest.mark.parametrize(("url", "name"), ADDRESSES)
def test_an_address_is_shown_without_its_secrets(url: str, name: str) -> None:
    """Also where the password was not written as a URL wants it."""
    assert public_name(url) == name


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:a/{SECRET}@h:1/0",
        f"redis://:{SECRET}@h:port",
        f"http://:{SECRET}@h",
        f"redis://:{SECRET}@[h",
        f"{SECRET}@h:6379",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    """What is wrong is said in words that do not quote the password."""
    assert "6379" in refusal(StoreError, lambda: use(url))


def test_a_failure_in_the_middle_of_a_chunk_is_the_stores_failure(launch: Launch) -> None:
    """Away is away, for every write of the call; what was done stays done, and may be done again."""
    with running() as server, opened(server.url) as (store, _):
        store.write([Write("mary", (put("status", "x"),))])
        client: Any = store.client
        client.client_pause(60_000, all=False)
        refusal(StoreAway, lambda: store.write([Write(f"a{n}", (put("status", "x"),)) for n in range(3)]))
        client.client_unpause()
        assert all(answer.won for answer in store.write([Write(f"b{n}", (put("status", "x"),)) for n in range(3)]))
