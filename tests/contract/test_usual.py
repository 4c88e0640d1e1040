"""The short way through the script, for the usual write, does byte for byte what the long one does."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.errors import StoreError
from reconciler.stamp import format_time
from reconciler.state import encode
from reconciler.store import Now, Put, Write
from reconciler.store.layout import keys_of
from reconciler.store.redis_store import SCRIPT, SCRIPT_SHA, RedisStore
from tests.contract.kit import T
from tests.servers import Memory, Server

CASES, STEPS, SEED = 300, 12, 20251112
ME = "tester@host"
NAMES = ["status", "insight", "odd", "context.a", "context.b", "context.c", "context.", 'context.q"', "context.é"]
VALUES = [*map(encode, ["x", "", "é😀", 'a "b"', "1", 1, 10.0, None, True, [], {"a": {"b": 'c"\n'}}, "x" * 300]), None]
SIMPLE = [*map(encode, ["x", "é😀", 1, True, {"a": 1}])]
CLOCK, TAKEN = "memory:test:clock", "memory:test:taken"
_TIME, _END = "call('TIME')", "return publish(event) or {version + 1"
EXPECTED = [*[0] * 9, -30_000_000, 90_000_000, -86_400_000_000]
"""How far callers are from the minute in which their write arrives, in µs."""
RIGHTS = 12
"""Where a command says that the short way may be tried."""


def watched() -> str:
    """The script by a clock that stands in a key, and counting how often it took the short way."""
    assert SCRIPT.count(_TIME) == SCRIPT.count(_END) == 1
    script = SCRIPT.replace(_TIME, f"call('HMGET', '{CLOCK}', 's', 'us')")
    return script.replace(_END, f"call('INCR', '{TAKEN}')\n  {_END}")


class Pair:
    """Two databases in which the same is done, the short way and the long one."""

    def __init__(self, memory: Memory) -> None:
        path = memory.redis.connection_pool.connection_kwargs["path"]
        other = type(memory.redis)(unix_socket_path=path, db=1)
        other.flushdb()
        self.clients: tuple[Any, Any] = (memory.redis, other)
        self.store = RedisStore(memory.redis, ME)
        self.store._rights = "1"
        self.script, self.agent = watched(), "mary"

    def each(self, *words: Any) -> None:
        for client in self.clients:
            client.execute_command(*words)

    def write(self, write: Write | Now, now: int, *, expected: int = 0) -> None:
        """`expected`: the time in whose minute the caller believes that this will be; it may be wrong."""
        self.each("HSET", CLOCK, "s", now // 1_000_000, "us", now % 1_000_000)
        command = self.store._command(write)
        assert command[:2] == ("EVALSHA", SCRIPT_SHA)
        assert command[RIGHTS] == "1"
        minute = expected - expected % 60_000_000
        moment = f"{now + 1} {minute // 1_000_000} {format_time(minute)[:17]}" if expected else ""
        answers = []
        for client, rights, last in zip(self.clients, ("1", ""), (moment, ""), strict=True):
            words = [*command[2:RIGHTS], rights, *command[RIGHTS + 1 : -1], last]
            answers.append(client.execute_command("EVAL", self.script, *words))
        assert answers[0] == answers[1], (write, answers, SEED)
        self.compare(write)

    def compare(self, write: Write | Now) -> None:
        keys = keys_of(write.agent)
        short, long = (
            (client.hgetall(keys.hash), client.hgetall(keys.sidecar), client.xrange(keys.history))
            for client in self.clients
        )
        assert short == long, (write, SEED)


def random_write(dice: random.Random, now: int) -> Write | Now:
    """Mostly live writes by the origin of some fields in their order; sometimes anything."""
    names = dice.sample(NAMES, dice.randint(1, 4))
    if dice.random() < 0.8:
        names.sort(key=NAMES.index)
    if dice.random() < 0.9:
        return Now("mary", {name: dice.choice(SIMPLE if dice.random() < 0.9 else VALUES) for name in names})
    usual = dice.random() < 0.3
    at, by = (None, ME) if usual else (now - dice.randrange(-5, 5), "b")
    puts = [Put(name, dice.choice(SIMPLE if dice.random() < 0.8 else VALUES), at, by) for name in names]
    if dice.random() < 0.05:
        puts.append(dice.choice(puts)._replace(text='"twice"'))
    return Write("mary", tuple(puts), floor=None if dice.random() < 0.9 else 3)


def test_the_short_way_does_what_the_long_one_does(real: Memory) -> None:
    """Answers, hash, sidecar and history after every step, with raw writes and a clock that is set back in between."""
    dice, pair = random.Random(SEED), Pair(real)
    steps = 0
    for _ in range(CASES):
        pair.each("DEL", *keys_of("mary"))
        now = T
        pair.store.origin = dice.choice([ME, ME, "other"])  # who writes first, and is the usual writer from then on
        pair.write(
            Write("mary", tuple(Put(name, dice.choice(VALUES), T, "b") for name in NAMES if dice.random() < 0.9)), now
        )
        pair.store.origin = ME
        for _ in range(STEPS):
            now += dice.choice([1, 1_000, 1_000_000, 86_400_000_000, -3])
            if dice.random() < 0.04:
                pair.each("HSET", keys_of("mary").hash, dice.choice(["status", "context"]), '{"raw":1}')
            pair.write(random_write(dice, now), now, expected=now + dice.choice(EXPECTED))
            steps += 1
    taken = int(real.redis.get(TAKEN) or 0)
    assert taken > steps / 8, (taken, steps)
    pair.clients[1].flushdb()
    pair.clients[1].close()
    real.redis.delete(CLOCK, TAKEN)


def test_a_right_that_was_taken_away_is_said(launch: Callable[..., Server]) -> None:
    """The write that notices it stands, with its event in the history; the next one is refused before it is made."""
    server = launch()
    with server.client() as admin, server.client(username="agent", password="x", socket_timeout=1.0) as client:
        admin.execute_command("ACL", "SETUSER", "agent", "on", ">x", "~memory:*", "&memory:*", "+@all")
        store = RedisStore(client, ME)
        writes = [Now("mary", {"context.n": str(number)}) for number in range(5)]
        assert store.write([writes[0].in_full(ME, 0)])[0].won
        assert store.write(writes[1:2])[0].version == 2
        admin.execute_command("ACL", "SETUSER", "agent", "resetchannels")
        for write in writes[2:4]:
            with pytest.raises(StoreError, match="forbids it"):
                store.write([write])
        assert [event.version for event in store.history("mary", 9)] == [3, 2, 1]
        admin.execute_command("ACL", "SETUSER", "agent", "&memory:*")
        assert store.write(writes[4:])[0].version == 4
