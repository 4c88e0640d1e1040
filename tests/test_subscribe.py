"""Subscriptions: every event once, in order within an agent, whatever happens to the reader and to its connection."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from reconciler.errors import StoreError, UsageError
from reconciler.events import CHANNEL, Event, agent_channel, read_event
from reconciler.store import Put, Write
from reconciler.store.connect import connect
from reconciler.store.embedded import server_binary
from reconciler.store.redis_store import Limits, RedisStore
from reconciler.subscribe import FULL, Subscription, Waiting
from tests.contract.kit import put, write
from tests.relay import Relay
from tests.servers import Memory, Server, running
from tests.waiting import wait_until

COUNT = int(os.environ.get("RECONCILER_EVENTS", "10000"))
PROJECT = Path(__file__).parent.parent


def store_of(server: Server, history: int = 5_000) -> RedisStore:
    return RedisStore(connect(server.url, None, print), "tester@host", Limits(history=history))


def said(subscription: Subscription, count: int, seconds: float = 20) -> list[Event]:
    """The next `count` events, and that there is no other."""
    found: list[Event] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        event = subscription.next_event(max(deadline - time.monotonic(), 0))
        if event is None:
            raise AssertionError(f"only {len(found)} of {count} events within {seconds} s")
        found.append(event)
    assert subscription.next_event(0.05) is None
    return found


def ids(events: list[Event]) -> list[str]:
    return [event.id for event in events]


def one_by_one(memory: Memory, count: int, agent: str = "mary") -> None:
    memory.store.write([Write(agent, (put("status", f"s{time.monotonic_ns()}"),)) for _ in range(count)])


# What happens is heard.


def test_what_is_written_after_the_call_is_heard_once_and_in_order(real: Memory) -> None:
    """As it was published, with nothing said before."""
    write(real, put("status", "busy"))
    with Subscription(real.store) as subscription:
        one_by_one(real, 3)
        write(real, put("context.task", 1), agent="gc")
        events = said(subscription, 4)
    assert ids(events) == ["mary:2", "mary:3", "mary:4", "gc:1"]
    assert not any(event.replayed for event in events)
    assert events[3].data == {"task": 1}


def test_named_agents_are_heard_on_their_own_channels(real: Memory) -> None:
    """Nobody else is, and one that does not exist yet is heard when it does."""
    with Subscription(real.store, agents=["mary", "later"]) as subscription:
        write(real, put("status", "a"))
        write(real, put("status", "a"), agent="gc")
        write(real, put("status", "a"), agent="later")
        assert ids(said(subscription, 2)) == ["mary:1", "later:1"]
        assert subscription.foreign == 0
        channels: Any = real.redis.pubsub_numsub(CHANNEL, agent_channel("mary"))
        assert [number for _, number in channels] == [0, 1]


def test_events_chosen_by_name_leave_no_gap(real: Memory) -> None:
    """What is not chosen is counted as seen."""
    with Subscription(real.store, events=["deploy", "agent_deleted"]) as subscription:
        write(real, put("status", "a"))
        write(real, put("status", "b"), event="deploy")
        one_by_one(real, 3)
        write(real, everything=True)
        events = said(subscription, 2)
    assert [(event.id, event.event) for event in events] == [("mary:2", "deploy"), ("mary:6", "agent_deleted")]
    assert (subscription.lost, [event.replayed for event in events]) == (0, [False, False])


def test_what_is_published_without_a_write_is_heard_as_well(real: Memory) -> None:
    """In its place between the versions, and chosen by the same rules."""
    with Subscription(real.store) as subscription:
        write(real, put("status", "a"))
        real.store.publish(Event("mary", "ping", "2025-11-12T08:00:00Z", {"n": 1}))
        write(real, put("status", "b"))
        assert ids(said(subscription, 3)) == ["mary:1", "mary:0", "mary:2"]


GARBAGE = [
    b"", b"\xff\xfe", b"null", b"[]", b"{}", b'{"agent":1}', b'{"event":"new_data","ts":"2025-11-12T08:00:00Z"}',
    b'{"agent":"mary","event":"x","timestamp":"t","version":"7"}', b'{"agent":"../x","event":"x","timestamp":"t"}',
    b'{"agent":"mary","event":"x","timestamp":"t","version":-1}', b"[" * 100_000,
    b'{"agent":"mary","event":"x","timestamp":"9999-12-31T23:59:59Z","data":{},"version":900}',
    b'{"agent":"gc","event":"x","timestamp":"9999-12-31T23:59:59Z","data":{},"version":3}',
]  # fmt: skip


def test_foreign_messages_are_counted_and_stop_nothing(real: Memory) -> None:
    """Garbage, strangers' formats, and versions that nobody wrote."""
    with Subscription(real.store) as subscription:
        for number, text in enumerate(GARBAGE):
            real.redis.publish(CHANNEL, text)
            write(real, put("status", f"s{number}"))
        assert ids(said(subscription, len(GARBAGE))) == [f"mary:{n}" for n in range(1, len(GARBAGE) + 1)]
        assert (subscription.foreign, subscription.lost) == (len(GARBAGE), 0)


def test_an_old_event_said_again_is_skipped(real: Memory) -> None:
    """Whoever repeats it, also with another time."""
    with Subscription(real.store) as subscription:
        one_by_one(real, 3)
        events = said(subscription, 3)
        real.redis.publish(CHANNEL, events[0].text)
        real.redis.publish(CHANNEL, events[1].text.replace(events[1].timestamp, "9999-12-31T23:59:59.000000Z"))
        one_by_one(real, 1)
        assert ids(said(subscription, 1)) == ["mary:4"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"agents": ["../x"]},
        {"agents": "mary"},
        {"agents": 5},
        {"agents": ["mary", 5]},
        {"events": "ping"},
        {"since": "yesterday"},
        {"since": -1},
        {"since": True},
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(real: Memory, wrong: dict[str, Any]) -> None:
    """At once, before anything is heard."""
    with pytest.raises(UsageError):
        Subscription(real.store, **wrong)


# What happened before.


def test_since_a_version_gives_what_the_history_holds(real: Memory) -> None:
    """In order, marked as replayed, then what happens."""
    one_by_one(real, 5)
    one_by_one(real, 2, "gc")
    with Subscription(real.store, agents=["mary"], since=3) as subscription:
        one_by_one(real, 1)
        assert [(event.version, event.replayed) for event in said(subscription, 3)] == [
            (4, True),
            (5, True),
            (6, False),
        ]
    with Subscription(real.store, since=1) as subscription:
        events = said(subscription, 6)
    assert {
        agent: [event.version for event in found] for agent, found in groupby(events, lambda event: event.agent)
    } == {
        "mary": [2, 3, 4, 5, 6],
        "gc": [2],
    }
    with Subscription(real.store, agents=["mary"], since=100) as subscription:
        one_by_one(real, 1)
        assert ids(said(subscription, 1)) == ["mary:7"]


def test_since_a_time_gives_what_happened_from_then_on(real: Memory) -> None:
    """ISO text, a datetime and seconds mean the same; a time without a zone is local."""
    one_by_one(real, 3)
    one_by_one(real, 1, "gc")
    history = real.store.history("mary", 10)
    then = datetime.fromisoformat(history[1].timestamp)
    local = then.astimezone().replace(tzinfo=None)
    for since in (history[1].timestamp, then, local, local.isoformat(), then.timestamp()):
        with Subscription(real.store, agents=["mary"], since=since) as subscription:
            assert ids(said(subscription, 2)) == ["mary:2", "mary:3"], since
    with Subscription(real.store, since=datetime.now(UTC) + timedelta(hours=1)) as subscription:
        one_by_one(real, 1)
        assert ids(said(subscription, 1)) == ["mary:4"]


def test_what_the_history_no_longer_holds_is_counted_and_told_once(real: Memory) -> None:
    """The rest is given."""
    memory = real.with_limits(history=10)
    one_by_one(memory, 25)
    told: list[str] = []
    with Subscription(memory.store, since=5, warn=told.append) as subscription:
        assert [event.version for event in said(subscription, 10)] == list(range(16, 26))
        assert subscription.lost == 10
    assert len(told) == 1
    assert "missed 10 versions of mary" in told[0]


# Connections that end.


def kill_subscribers(client: Any) -> None:
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def test_a_cut_connection_is_made_again_and_the_gap_filled(real: Memory) -> None:
    """Nothing twice, nothing missing, and nobody needs to be told of it."""
    told: list[str] = []
    with Subscription(real.store, warn=told.append) as subscription:
        one_by_one(real, 2)
        kill_subscribers(real.redis)
        one_by_one(real, 2)
        events = said(subscription, 4)
        one_by_one(real, 1)
        assert ids(events + said(subscription, 1)) == [f"mary:{n}" for n in range(1, 6)]
    assert (subscription.lost, told) == (0, [])


def test_a_gap_without_a_broken_connection_is_filled_before_the_event_that_shows_it(real: Memory) -> None:
    """Versions whose publishing was lost on the way."""
    with Subscription(real.store) as subscription:
        one_by_one(real, 1)
        assert ids(said(subscription, 1)) == ["mary:1"]
        text = real.store.history("mary", 1)[0].text
        for version in (2, 3):
            silent = text.replace('"mary:1"', f'"mary:{version}"').replace('"version":1', f'"version":{version}')
            real.redis.xadd("memory:history:{memory:agents:mary}", {"event": silent}, id=f"{version}-0")
            real.redis.hset("memory:meta:{memory:agents:mary}", "version", version)
        one_by_one(real, 1)
        events = said(subscription, 3)
    assert [(event.version, event.replayed) for event in events] == [(2, True), (3, True), (4, False)]


def test_a_reader_that_is_too_slow_is_cut_and_misses_nothing(launch: Callable[..., Server]) -> None:
    """The server's output buffer overruns."""
    server = launch()
    memory = Memory(server.client(), history=5_000)
    memory.redis.config_set("client-output-buffer-limit", "pubsub 64kb 0 0")
    with Subscription(memory.store) as subscription:
        memory.store.write([Write("mary", (put("context.text", f"{n}{'x' * 2_000}"),)) for n in range(1_500)])
        assert memory.redis.pubsub_numsub(CHANNEL) == [(CHANNEL.encode(), 0)]
        assert [event.version for event in said(subscription, 1_500)] == list(range(1, 1_501))
        assert subscription.lost == 0


def test_a_half_open_connection_is_noticed(launch: Callable[..., Server]) -> None:
    """No packet comes and none is refused: an unanswered PING ends it."""
    server = launch("--port", "0")
    with Relay(server.folder / "socket") as relay:
        store = RedisStore(connect(relay.url, None, print), "tester@host")
        memory = Memory(server.client())
        with Subscription(store) as subscription:
            one_by_one(memory, 1)
            assert ids(said(subscription, 1)) == ["mary:1"]
            relay.freeze()
            one_by_one(memory, 2)
            assert ids(said(subscription, 2, 30)) == ["mary:2", "mary:3"]


def test_a_connection_is_looked_at_after_a_long_pause(real: Memory) -> None:
    """A consumer that did not ask for longer than a silence may last keeps its connection, if it lives."""
    with Subscription(real.store) as subscription:
        channel: Any = subscription._channel
        channel._line._heard -= 60
        assert subscription.next_event(0.3) is None
        assert cast(Any, subscription._channel) is channel
        assert time.monotonic() - channel._line._heard < 10


def test_redis_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    """Told once when it is away and once when it is back; nothing is owed from before."""
    told: list[str] = []
    with running() as first:
        url, folder = first.url, first.folder
        store = store_of(first)
        first.process.kill()
        first.process.wait()
        with Subscription(store, since=0, warn=told.append) as subscription:
            assert subscription.next_event(0.5) is None
            with again(url, folder):
                memory = Memory(first.client())
                one_by_one(memory, 2)
                assert ids(said(subscription, 2)) == ["mary:1", "mary:2"]
    assert len(told) == 2
    assert "waiting" in told[0]
    assert "is back" in told[1]


@contextmanager
def again(url: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The server that was killed, started again."""
    path = url.removeprefix("unix://")
    words = [str(server_binary()), "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(folder), *options]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis.from_url(url) as client:
            wait_until(lambda: answers(client), what="a server")
        yield process
    finally:
        process.kill()
        process.wait()


def answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_server_that_comes_back_empty_counts_again_and_is_followed() -> None:
    """Its new events are new, although their versions were there before."""
    with running() as first, Subscription(store_of(first)) as subscription:
        one_by_one(Memory(first.client()), 5)
        said(subscription, 5)
        first.process.kill()
        first.process.wait()
        with again(first.url, first.folder):
            memory = Memory(first.client())
            one_by_one(memory, 3)
            assert [event.version for event in said(subscription, 3)] == [1, 2, 3]
            one_by_one(memory, 1)
            assert [event.version for event in said(subscription, 1)] == [4]
    assert subscription.lost == 0


@pytest.mark.parametrize("more", [2, 5, 8])
def test_a_server_that_comes_back_older_is_followed_from_where_it_is(more: int) -> None:
    """It counts below, up to, and beyond what was seen before; what was written since is given, and only that."""
    with running("--save", "", "--dbfilename", "old.rdb") as first:
        store = store_of(first)
        with Subscription(store) as subscription:
            memory = Memory(first.client())
            one_by_one(memory, 5)
            memory.redis.save()
            one_by_one(memory, 5)
            assert len(said(subscription, 10)) == 10
            first.process.kill()
            first.process.wait()
            with again(first.url, first.folder, "--dbfilename", "old.rdb"):
                memory = Memory(first.client())
                one_by_one(memory, more)
                assert [event.version for event in said(subscription, more)] == list(range(6, 6 + more))
                one_by_one(memory, 1)
                assert [event.version for event in said(subscription, 1)] == [6 + more]


def test_after_flushall_events_are_heard_on(real: Memory) -> None:
    """Without any connection being lost."""
    with Subscription(real.store) as subscription:
        one_by_one(real, 3)
        said(subscription, 3)
        real.redis.flushall()
        one_by_one(real, 2)
        assert [event.version for event in said(subscription, 2)] == [1, 2]


def test_a_server_that_refuses_for_good_is_an_error_at_the_start(launch: Callable[..., Server]) -> None:
    """A right that is missing will not come by waiting."""
    server = launch()
    server.client().execute_command("ACL", "SETUSER", "deaf", "on", "nopass", "~*", "+@all", "resetchannels")
    with pytest.raises(StoreError, match="forbids"):
        Subscription(RedisStore(server.client(username="deaf", password="x", protocol=2), "tester@host"))


# Ending.


def test_close_ends_the_iteration_from_another_thread(real: Memory) -> None:
    """Promptly, and for good."""
    subscription = Subscription(real.store)
    found: list[Event] = []
    reader = threading.Thread(target=lambda: found.extend(subscription))
    reader.start()
    one_by_one(real, 1)
    wait_until(lambda: len(found) == 1)
    subscription.close()
    reader.join(5)
    assert not reader.is_alive()
    assert list(subscription) == []


def test_close_ends_it_from_a_signal_also_while_redis_is_away() -> None:
    """A handler may call it."""
    with running() as server:
        subscription = Subscription(store_of(server))
        before = signal.signal(signal.SIGUSR1, lambda number, frame: subscription.close())
        try:
            for away in (False, True):
                if away:
                    subscription = Subscription(subscription._store)
                    server.process.kill()
                    server.process.wait()
                timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
                timer.start()
                assert list(subscription) == []
                timer.join()
        finally:
            signal.signal(signal.SIGUSR1, before)


# Priority.


def waiting(*events: tuple[str, int, str]) -> list[str]:
    queue = Waiting()
    for agent, version, priority in events:
        queue.push(Event(agent, "x", "t", {}, version, priority=priority))
    assert len(queue) == len(events)
    return ids(list(iter(queue.pop, None)))


def test_high_ones_come_first_and_pull_what_their_agent_said_before() -> None:
    """Then normal ones in order of arrival, then low ones."""
    assert waiting(
        ("a", 1, "low"), ("b", 1, "normal"), ("a", 2, "normal"), ("c", 1, "high"), ("a", 3, "high"), ("b", 2, "low")
    ) == ["c:1", "a:1", "a:2", "a:3", "b:1", "b:2"]


def test_any_order_of_arrival_keeps_every_agents_order() -> None:
    """Whatever the priorities; and no event is given while another agent has one that is more urgent in itself."""
    chance = random.Random(11)
    for _ in range(200):
        counts: Counter[str] = Counter()
        events = []
        for _ in range(30):
            agent = chance.choice("abcd")
            counts[agent] += 1
            events.append((agent, counts[agent], chance.choice(("high", "normal", "low"))))
        given = [(agent, int(number)) for agent, number in (text.split(":") for text in waiting(*events))]
        assert sorted(given) == sorted((agent, number) for agent, number, _ in events)
        for agent in counts:
            assert [number for name, number in given if name == agent] == list(range(1, counts[agent] + 1))
        last_high = {
            agent: max(n for a, n, p in events if (a, p) == (agent, "high")) for agent, _, p in events if p == "high"
        }
        until = sum(last_high.values())
        assert all(number <= last_high.get(agent, 0) for agent, number in given[:until])


def test_low_ones_that_were_pulled_forward_leave_nothing_behind() -> None:
    """Also in a queue that is never empty."""
    queue = Waiting()
    queue.push(Event("b", "x", "t", {}))
    for version in range(1, 10_000):
        for priority in ("low", "high"):
            queue.push(Event("a", "x", "t", {}, version, priority=priority))
        assert [event.agent for event in (queue.pop(), queue.pop()) if event] == ["a", "a"]
    assert len(queue) == 1
    assert len(queue._order) < 2_000


def test_a_subscriber_that_fell_behind_gets_high_ones_first(real: Memory) -> None:
    """Also those that it missed and reads from the history."""
    for cut in (False, True):
        with Subscription(real.store) as subscription:
            if cut:
                kill_subscribers(real.redis)
            one_by_one(real, 3)
            one_by_one(real, 2, "gc")
            write(real, put("status", f"now{cut}"), agent="gc", priority="high")
            real.redis.ping()  # the server has sent them when it answers the next
            events = said(subscription, 6)
        assert [event.agent for event in events] == ["gc", "gc", "gc", "mary", "mary", "mary"]
        assert (events[2].priority, events[2].replayed) == ("high", cut)


def test_a_subscriber_keeps_no_more_than_it_should(real: Memory) -> None:
    """What does not fit waits at the server, or in the history."""
    memory = real.with_limits(history=20_000)
    with Subscription(memory.store) as subscription:
        memory.store.write([Write("mary", (put("status", f"{n}"),)) for n in range(2 * FULL)])
        assert subscription.next_event(5)
        assert len(subscription._waiting) < FULL * 1.5
        assert len(list(iter(lambda: subscription.next_event(1), None))) == 2 * FULL - 1


# 10,000 updates, and a subscriber that is stopped or cut off.


@contextmanager
def listener(server: Server, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    out = folder / "heard"
    with out.open("wb") as heard:
        words = [sys.executable, "-m", "tests.listener", server.url, str(COUNT)]
        process = subprocess.Popen(words, stdout=heard, cwd=PROJECT)
    try:
        wait_until(lambda: "listening" in out.read_text(), 20)
        yield process, out
    finally:
        process.kill()
        process.wait()


def update(store: RedisStore, meanwhile: Callable[[int], None] = lambda part: None, parts: int = 20) -> Counter[str]:
    """COUNT updates in parts over 20 agents, of which one has far more than the others; how many each."""
    chance = random.Random(3)
    counts: Counter[str] = Counter()
    names = [f"agent{n}" for n in range(20)] + ["agent0"] * 5
    for part in range(parts):
        writes = []
        for number in range(COUNT // parts):
            agent = chance.choice(names)
            counts[agent] += 1
            value = f'"{part}.{number}{"x" * 100}"'
            writes.append(Write(agent, (Put("context.n", value, None, "w"),)))
        assert all(done.won for done in store.write(writes))
        meanwhile(part)
    return counts


def check(process: subprocess.Popen[bytes], out: Path, counts: Counter[str], replayed: bool) -> None:
    """All of them were heard, in order for each agent, none twice; some from the history, or none."""
    assert process.wait(60) == 0
    lines = [line.split() for line in out.read_text().splitlines()]
    assert lines[-1] == ["lost", "0", "None"]
    heard: dict[str, list[int]] = {}
    for agent, version, *_ in lines[1:-1]:
        heard.setdefault(agent, []).append(int(version))
    assert heard == {agent: list(range(1, count + 1)) for agent, count in counts.items()}
    assert any(line[-1] == "True" for line in lines[1:-1]) == replayed


@pytest.mark.parametrize("cut", [False, True], ids=["kept", "cut"])
def test_a_stopped_subscriber_hears_all_when_it_goes_on(
    launch: Callable[..., Server], tmp_path: Path, cut: bool
) -> None:
    """SIGSTOP while 10,000 updates pass; its connection lasts, or the server cuts it."""
    server = launch()
    server.client().config_set("client-output-buffer-limit", "pubsub 256kb 0 0" if cut else "pubsub 0 0 0")
    with listener(server, tmp_path) as (process, out):
        process.send_signal(signal.SIGSTOP)
        counts = update(store_of(server))
        assert counts["agent0"] > COUNT / 10
        process.send_signal(signal.SIGCONT)
        check(process, out, counts, replayed=cut)


def test_a_subscriber_that_is_cut_off_again_and_again_hears_all(launch: Callable[..., Server], tmp_path: Path) -> None:
    """CLIENT KILL all the time while 10,000 updates pass."""
    server = launch()
    client = server.client()
    with listener(server, tmp_path) as (process, out):
        counts = update(store_of(server), lambda part: kill_subscribers(client))
        check(process, out, counts, replayed=True)


def test_a_subscriber_outlives_the_restarts_of_its_server(tmp_path: Path) -> None:
    """Killed again and again while 10,000 updates pass; its append-only file keeps what it had acknowledged."""
    # Not everysec: then a slow disk delays the file itself, and a kill loses what was acknowledged.
    keeps = ("--appendonly", "yes", "--appendfsync", "no")
    with running(*keeps) as first, ExitStack() as stack:
        processes = [first.process]

        def restart(part: int) -> None:
            if part % 5 == 4:
                processes[-1].kill()
                processes[-1].wait()
                processes.append(stack.enter_context(again(first.url, first.folder, *keeps)))
                answers(store.client)  # its connection is lost with the server

        store = store_of(first)
        with listener(first, tmp_path) as (process, out):
            counts = update(store, restart)
            check(process, out, counts, replayed=True)


@pytest.mark.parametrize("more", ['"data":{"replayed":1}', '"replayed":false', '"replayed":"no"', '"replayed":true'])
def test_a_replayed_event_says_so_on_its_line(more: str) -> None:
    """Whatever else in it is called so."""
    event = read_event('{"agent":"a","event":"e","timestamp":"t","big":1.50,' + more + "}")
    assert read_event(replace(event, replayed=True).line).replayed
