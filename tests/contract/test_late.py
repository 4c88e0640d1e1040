"""A write that its caller gave up is not made: by then he has written it elsewhere, and newer ones after it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

import pytest
import redis

from reconciler.errors import StoreAway
from reconciler.state import Field
from reconciler.store import Now, Put, Seen, Write
from reconciler.store.connect import connect
from reconciler.store.redis_store import RedisStore
from reconciler.store.wire import Wire
from tests.contract.kit import T, put
from tests.servers import Memory, Server

Launch = Callable[..., Server]


def opened(server: Server) -> RedisStore:
    return RedisStore(connect(server.url, None, print), "tester@host")


def fields(store: RedisStore, agent: str = "mary") -> dict[str, str | None]:
    found = store.observe({}, [agent]).agents
    return {name: field.text for name, field in found[agent].fields.items() if name != "last_update"}


def time_out(server: Server, store: RedisStore, *writes: Write) -> None:
    """The writes reach a server that hangs, and go on when their caller is gone."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreAway):
            store.write(writes)
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_write_that_timed_out_never_appears(launch: Launch) -> None:
    """Also one of a batch, a deletion, and one of an agent's first."""
    server = launch()
    store, other = opened(server), opened(server)
    store.write([Write("mary", (put("status", "before"),))])
    late = [
        Write("mary", (put("status", "late"),), floor=None),
        Write("mary", (put("context.a", "late", T), put("status", "late")), floor=0),
        Write("mary", (), everything=True),
        Write("new", (put("status", "late"),)),
    ]
    time_out(server, store, *late)
    other.write([Write("mary", (put("insight", "after"),))])
    assert fields(other) == fields(store) == {"status": '"before"', "insight": '"after"'}
    assert "new" not in other.observe({}).agents
    assert len(other.history("mary", 10)) == 2


def test_an_adoption_that_timed_out_is_not_made(launch: Launch) -> None:
    """What was seen may have been replaced by a write that is acknowledged elsewhere."""
    server = launch()
    store = opened(server)
    store.write([Write("mary", (put("context.a", 1),))])
    store.client.hset("memory:agents:mary", "status", "raw")
    live = store.observe({}).agents["mary"]
    time_out(server, store, Write("mary", live.raw, seen=live.seen))
    again = opened(server).observe({}).agents["mary"]
    assert (again.version, again.foreign) == (1, True)


def test_a_dated_write_may_come_late(launch: Launch) -> None:
    """Its stamp tells how old it is; sending it twice does no harm."""
    server = launch()
    store = opened(server)
    store.write([Write("mary", (put("status", "before", T),))])
    time_out(server, store, Write("mary", (put("status", "dated", T + 1),)))
    assert opened(server).observe({}).agents["mary"].fields["status"] == Field('"dated"', T + 1, "a")


def test_a_server_whose_clock_was_set_is_asked_again(real: Memory) -> None:
    """Forward by more than a command may take, or after this machine slept: nobody hung, so the write is made."""
    store = RedisStore(real.redis.from_url(_url(real), socket_timeout=1.0), "tester@host")
    writes = [Write("mary", (put("status", word),)) for word in ("one", "two", "three")]
    assert store.write(writes[:1])[0].won
    line = store.wire._take()
    line._ahead -= 5_000_000
    store.wire._lines.append(line)  # type: ignore[arg-type]
    assert [answer.version for answer in store.write(writes[1:])] == [2, 3]
    assert fields(store) == {"status": '"three"'}


def _url(memory: Memory) -> str:
    return f"unix://{memory.redis.connection_pool.connection_kwargs['path']}"


@pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_the_server_is_asked_for_its_clock_once(real: Memory, pool: type[redis.ConnectionPool]) -> None:
    """On each connection, whoever keeps it: a write is one round trip."""
    store = RedisStore(redis.Redis(connection_pool=pool.from_url(_url(real), socket_timeout=1.0)), "tester@host")
    real.redis.config_resetstat()
    for number in range(5):
        assert store.write([Write("mary", (put("context.n", number),))])[0].won
    calls = {name: int(stat["calls"]) for name, stat in real.redis.info("commandstats").items()}
    assert calls["cmdstat_time"] == calls["cmdstat_evalsha"] + 1


def test_a_client_that_waits_for_ever_gives_no_deadline(real: Memory) -> None:
    """Nobody gives up, so nothing is ever too late."""
    store = RedisStore(redis.Redis.from_url(_url(real), socket_timeout=None), "tester@host")
    assert store.write([Write("mary", (put("status", "x"),))])[0].won
    assert Wire(store.client).exchange([("PING",)]) == [b"PONG"]


def test_adopting_and_dated_writes_are_told_apart(memory: Memory) -> None:
    """Only what could overtake a newer write has a deadline."""

    def command(write: Write | Now) -> Sequence[object]:
        return memory.store._command(write)

    dated = Write("mary", (put("status", "x", T), Put("context.a", None, T, "a", forget=True)))
    assert command(dated)[-1] == ""
    live: list[Write | Now] = [
        Write("mary", (put("status", "x"),)),
        Write("mary", (put("status", "x", T),), seen={"status": Seen("-")}),
        Write("mary", (), everything=True),
        Now("mary", {"status": '"x"'}),
    ]
    assert all(command(write)[-1] for write in live)
