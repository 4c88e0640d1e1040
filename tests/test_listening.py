"""Hearing from a real server: a channel that notices when it is cut off, and who was written."""

from __future__ import annotations

import gc
import shutil
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.errors import StoreAway, StoreError
from reconciler.events import CHANNEL
from reconciler.store import Tracking, Write
from reconciler.store.connect import connect
from reconciler.store.listening import SILENCE, RedisChannel, RedisKeyspace, RedisTracking
from reconciler.store.redis_store import HUB, RedisStore
from tests.contract.kit import put, write
from tests.relay import Relay
from tests.servers import Memory, Server
from tests.waiting import wait_until

DEBIAN = Path("/usr/bin/redis-server")
KINDS = ("valkey", "redis")


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A client of an empty server: the one that is installed with this package, and the one of the system."""
    if request.param == "valkey":
        with request.getfixturevalue("valkey").client(protocol=2, socket_timeout=10) as client:
            client.flushall()
            yield client
        return
    if not DEBIAN.exists():
        pytest.skip("no redis-server on this machine")
    # A short path: a socket's name has at most 103 bytes.
    folder = Path("/tmp") / f"reconciler-listen-{time.monotonic_ns()}"
    folder.mkdir(mode=0o700)
    words = [str(DEBIAN), "--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(folder / "s"), protocol=2, socket_timeout=10)
    try:
        wait_until(lambda: answers(client))
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def as_user(client: Any, *rules: str) -> Any:
    """A client with other rights."""
    client.execute_command("ACL", "SETUSER", "some", "reset", "on", "nopass", "~*", "&*", "+@all", *rules)
    path = client.get_connection_kwargs()["path"]
    return redis.Redis(unix_socket_path=path, username="some", password="x", protocol=2, socket_timeout=1)


def store(client: Any) -> RedisStore:
    return RedisStore(client, "tester@host")


# Channels.


def test_a_channel_gives_bytes_as_they_were_published(server: Any) -> None:
    """All that are at hand, and none is no error."""
    channel = RedisChannel(server, "redis")
    assert channel.receive(0) == []
    texts = [b"", b"\xff\x00\r\n", b'{"a":1}', b"x" * 3_000_000]
    for text in texts:
        server.publish(CHANNEL, text)
    found: list[bytes] = []
    while len(found) < len(texts):
        more = channel.receive(5)
        assert more
        found += more
    assert found == texts
    channel.close()


def test_when_a_channel_is_there_nothing_is_missed(server: Any) -> None:
    """Subscribing is confirmed, for a thousand agents as well."""
    for agents in ([], [f"a{n}" for n in range(1_000)]):
        channel = store(server).listen(agents)
        assert server.publish(f"{CHANNEL}:a999" if agents else CHANNEL, "x") == 1
        assert channel.receive(5) == [b"x"]
        channel.close()
        with pytest.raises(StoreAway):
            channel.receive(0)


def test_a_channel_that_is_cut_gives_what_it_had_and_then_says_so(server: Any) -> None:
    """Also when the process that it belongs to was busy meanwhile."""
    channel = RedisChannel(server, "redis")
    server.publish(CHANNEL, "last")
    server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert channel.receive(1) == [b"last"]
    with pytest.raises(StoreAway, match="away"):
        channel.receive(1)


def test_a_lost_connection_leaves_nothing_behind(server: Any) -> None:
    """An error that was kept would keep it and its buffer, and a daemon hardly ever looks for such rings."""
    gc.disable()
    try:
        tracking = RedisTracking(server, "redis")
        line = weakref.ref(tracking._lines[0])
        server.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        with suppress(StoreAway):
            tracking.receive(1)
        with suppress(StoreAway):
            tracking.receive(0)
        tracking.close()
        del tracking
        assert line() is None
    finally:
        gc.enable()


def test_a_silent_connection_is_asked_and_kept_when_it_answers(server: Any) -> None:
    """The wait goes on as long as it was meant to."""
    channel = RedisChannel(server, "redis")
    channel._line._heard -= SILENCE
    began = time.monotonic()
    assert channel.receive(0.3) == []
    assert time.monotonic() - began >= 0.3
    assert channel._line._asked == []
    assert channel._line._heard >= began
    channel.close()


def test_a_connection_that_does_not_answer_is_lost(valkey: Server) -> None:
    """Half open: nothing arrives and nothing is refused; for a channel, for tracking, and for its barrier."""
    with Relay(valkey.folder / "socket") as relay:
        client = connect(relay.url, None, print)
        ears: list[Any] = [
            RedisChannel(client, "redis"),
            RedisTracking(client, "redis"),
            RedisTracking(client, "redis"),
        ]
        relay.freeze()
        began = time.monotonic()
        failures = []

        def listen(ear: Any, timeout: float) -> None:
            with pytest.raises(StoreAway, match="no answer to PING"):
                ear.receive(timeout)
            failures.append(ear)

        threads = [threading.Thread(target=listen, args=pair) for pair in zip(ears, (60, 60, 0), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(failures) == len(ears)
        assert time.monotonic() - began < 15
        client.close()


def test_a_channel_can_be_closed_by_another_thread(server: Any) -> None:
    """Whoever waits in it learns it at once."""
    channel = RedisChannel(server, "redis")
    timer = threading.Timer(0.1, channel.close)
    timer.start()
    began = time.monotonic()
    with pytest.raises(StoreAway):
        channel.receive(60)
    assert time.monotonic() - began < 10
    timer.join()


def test_an_answer_that_is_none_of_redis_ends_the_connection() -> None:
    """Somebody else sits behind the address now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            ours, _ = listener.accept()
            while text := ours.recv(1_000):
                ours.sendall(b"<html>" if b"SUBSCRIBE" in text else b"+OK\r\n")
            ours.close()

        thread = threading.Thread(target=babble)
        thread.start()
        with (
            redis.Redis(port=listener.getsockname()[1], protocol=2, socket_timeout=1) as client,
            pytest.raises((StoreAway, StoreError)),
        ):
            RedisChannel(client, "redis")
        thread.join(10)
        assert not thread.is_alive()


# Tracking.


def keyspace(client: Any) -> Tracking:
    """By keyspace events, because tracking is forbidden."""
    client.config_set("notify-keyspace-events", "KA")
    client.hset(HUB, "epoch", "e")
    return store(as_user(client, "-client|tracking")).track()


def heard(tracking: Tracking, timeout: float = 0) -> set[str]:
    found = tracking.receive(timeout)
    assert found is not None
    return set(found)


MEANS: dict[str, Callable[[Any], Tracking]] = {"tracking": lambda client: store(client).track(), "keyspace": keyspace}


@pytest.fixture(params=MEANS)
def tracking(request: pytest.FixtureRequest, server: Any) -> Iterator[Tracking]:
    """By both means; the server is left as it was."""
    found = MEANS[request.param](server)
    assert isinstance(found, RedisKeyspace) == (request.param == "keyspace")
    yield found
    found.close()
    server.config_set("notify-keyspace-events", "")


def test_every_way_to_write_an_agent_is_heard(server: Any, tracking: Tracking) -> None:
    """By hand, by the script, on another connection or in another database's name; nothing else is."""
    memory = Memory(server)
    server.hset("memory:agents:mary", "status", "busy")
    assert heard(tracking) == {"mary"}
    server.hset("memory:agents:gc", mapping={"status": "busy", "x": "y"})
    server.hset("memory:shared", "current_work", "x")
    assert heard(tracking) == {"gc", "@shared"}
    write(memory, put("context.task", 1), agent="rnd")
    assert heard(tracking, 5) == {"rnd"}
    server.hdel("memory:agents:gc", "x")
    server.delete("memory:agents:mary")
    assert heard(tracking) == {"gc", "mary"}
    server.pexpire("memory:agents:gc", 1)
    assert heard(tracking, 5) == {"gc"}
    wait_until(lambda: not server.exists("memory:agents:gc"))
    tracking.receive(0)
    server.set("memory:hub2", "x")
    server.hset("memory:agents:../x", "status", "x")
    assert heard(tracking) == set()


def test_when_an_acknowledged_write_is_over_the_barrier_knows_it(server: Any, tracking: Tracking) -> None:
    """Each time, in one turn of asking."""
    for number in range(300):
        server.hset(f"memory:agents:a{number}", "n", number)
        assert heard(tracking) == {f"a{number}"}
    assert heard(tracking) == set()


def test_a_burst_is_heard_whole(server: Any, tracking: Tracking) -> None:
    """More than fits one read of the socket."""
    Memory(server).store.write([Write(f"agent-with-a-long-name-{n:030}", (put("status", "x"),)) for n in range(5_000)])
    assert len(tracking.receive(0) or ()) == 5_000


def test_waiting_ends_when_somebody_writes_or_when_time_is_over(server: Any, tracking: Tracking) -> None:
    """Whatever comes first."""
    assert heard(tracking, 0.05) == set()
    timer = threading.Timer(0.1, lambda: server.hset("memory:agents:mary", "n", 1))
    timer.start()
    began = time.monotonic()
    assert heard(tracking, 60) == {"mary"}
    assert time.monotonic() - began < 10
    timer.join()


@pytest.mark.parametrize("flush", ["FLUSHALL", "FLUSHDB"])
def test_a_flush_means_anybody(server: Any, tracking: Tracking, flush: str) -> None:
    """None is the answer, and then it goes on."""
    server.hset("memory:agents:mary", "n", 1)
    server.execute_command(flush)
    assert tracking.receive(0) is None
    server.hset(HUB, "epoch", "another")
    tracking.receive(0)
    server.hset("memory:agents:mary", "n", 1)
    assert heard(tracking) == {"mary"}


def test_a_lost_connection_is_said(server: Any, tracking: Tracking) -> None:
    """Whatever was believed must be read again."""
    server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    for timeout in (0, 1):
        with pytest.raises(StoreAway):
            tracking.receive(timeout)


@pytest.mark.parametrize("flags", ["", "KEx", "Eh", "Kh", "EA"])
def test_without_tracking_and_without_keyspace_events_it_is_refused(server: Any, flags: str) -> None:
    """The error names both ways out, and the server's configuration is not touched."""
    server.config_set("notify-keyspace-events", flags)
    before = server.config_get("notify-keyspace-events")
    with pytest.raises(StoreError, match="CLIENT TRACKING is forbidden") as error:
        store(as_user(server, "-client|tracking")).track()
    assert "CONFIG SET notify-keyspace-events" in error.value.hint
    assert server.config_get("notify-keyspace-events") == before
    server.config_set("notify-keyspace-events", "")


def test_without_tracking_and_without_config_it_is_refused(server: Any) -> None:
    """Whether events come cannot be known."""
    server.config_set("notify-keyspace-events", "KA")
    with pytest.raises(StoreError, match="does not tell of writes"):
        store(as_user(server, "-client|tracking", "-config")).track()
    server.config_set("notify-keyspace-events", "")


def test_keyspace_events_of_a_server_without_a_mark_prove_nothing(server: Any) -> None:
    """A flush could not be told from no flush."""
    tracking = keyspace(server)
    server.delete(HUB)
    assert tracking.receive(0) is None
    assert tracking.receive(0) is None
    tracking.close()
    server.config_set("notify-keyspace-events", "")
