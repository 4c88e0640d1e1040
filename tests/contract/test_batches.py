"""Many agents in a handful of round trips, and a server that forgot the script."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from reconciler.store import Write
from reconciler.store.redis_store import SCRIPT_SHA
from tests.contract.kit import T, look, put, values, write
from tests.servers import Memory, Server


class Counting(redis.ConnectionPool):
    """A pool that counts round trips: each is made on a connection that is taken for it."""

    trips = 0

    def get_connection(self, *args: Any, **options: Any) -> Any:
        self.trips += 1
        return super().get_connection(*args, **options)


def test_a_thousand_agents_take_a_handful_of_round_trips(valkey: Server, real: Memory) -> None:
    """Writing them, reading them all, and reading some of them."""
    pool = Counting.from_url(valkey.url)
    with redis.Redis.from_pool(pool) as client:
        memory = Memory(client)
        write(memory, put("status", "first"), agent="a0")
        memory.store.observe({})
        pool.trips = 0
        names = [f"a{number}" for number in range(1_000)]
        answers = memory.store.write([Write(name, (put("status", name), put("context.n", 1))) for name in names])
        assert all(answer.flags == "ww" for answer in answers) and pool.trips == 2
        pool.trips = 0
        agents = memory.store.observe({}).agents
        assert agents.keys() == set(names) and pool.trips <= 5  # SCAN in two or three parts, two reads
        assert {agent.fields["status"].text for agent in agents.values()} == {f'"{name}"' for name in names}
        pool.trips = 0
        assert memory.store.observe({}, names[:300] + names[:300]).agents.keys() == set(names[:300])
        assert pool.trips == 1


def test_answers_come_in_the_order_of_the_writes(memory: Memory) -> None:
    """Also when the same agent is written several times."""
    names = ["x", "y", "x", "z", "x", "y"]
    answers = memory.store.write([Write(name, (put("context.n", number),)) for number, name in enumerate(names)])
    assert [answer.version for answer in answers] == [1, 1, 2, 1, 3, 2]


def test_nothing_to_write_is_nothing(memory: Memory) -> None:
    """No round trip, no key."""
    assert memory.store.write([]) == []
    assert memory.redis.keys("memory:*") == []


def test_a_named_agent_that_is_not_there_is_not_found(memory: Memory) -> None:
    """Asked by name, and absent."""
    assert memory.store.observe({}, ["nobody"]).agents == {}


@pytest.mark.parametrize("at", [0, 3, 4])
def test_a_server_that_forgot_the_script_is_given_it_again(memory: Memory, at: int) -> None:
    """SCRIPT FLUSH, a failover, or a restart between two writes; every write is made once."""
    writes = [Write(f"a{number}", (put("status", "x", T),)) for number in range(4)]
    memory.store.write(writes[:at])
    memory.redis.script_flush()
    answers = memory.store.write(writes)
    assert [answer.version for answer in answers] == [1] * 4
    assert memory.redis.script_exists(SCRIPT_SHA) == [True]


def test_the_script_is_sent_once(memory: Memory) -> None:
    """After that only its digest travels, and other clients use it too."""
    write(memory, put("status", "x"))
    script_load = memory.redis.script_load
    memory.redis.script_load = None
    try:
        write(memory, put("status", "y"))
        write(memory.with_limits(history=3), put("status", "z"))
    finally:
        memory.redis.script_load = script_load
    assert values(memory) == {"status": '"z"'} and look(memory).version == 3
