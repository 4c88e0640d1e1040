"""One round trip on a connection of one's own: nobody ever reads an answer that was meant for another."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.store import Write
from reconciler.store.connect import connect
from reconciler.store.redis_store import RedisStore
from reconciler.store.wire import Wire
from tests.contract.kit import put
from tests.relay import Relay
from tests.servers import Memory, Server

Launch = Callable[..., Server]


@pytest.fixture
def relayed(real: Memory) -> Iterator[Relay]:
    with Relay(Path(real.redis.connection_pool.connection_kwargs["path"])) as relay:
        yield relay


def opened(server: Server) -> RedisStore:
    return RedisStore(connect(server.url, None, print), "tester@host")


def test_a_late_answer_is_read_by_nobody(launch: Launch) -> None:
    """The connection on which a call timed out is closed; the next call gets its own answer."""
    server = launch()
    store = opened(server)
    store.wire.exchange([("SET", "memory:a", "first")])
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(redis.TimeoutError):
        store.wire.exchange([("GET", "memory:a")])
    server.process.send_signal(signal.SIGCONT)
    assert store.wire.exchange([("ECHO", "second"), ("ECHO", "third")]) == [b"second", b"third"]
    store.close()


def test_an_answer_that_trickles_is_not_waited_for(real: Memory, relayed: Relay) -> None:
    """At 1,000 bytes a second it would take 20 s, of which none is without a byte: neither keys nor values block."""
    real.redis.hset("memory:a", mapping={f"field{number}": "x" * 100 for number in range(200)})
    real.redis.mset({f"memory:{number:0100}": "" for number in range(200)})
    wire = Wire(connect(relayed.url, None, print))
    wire.exchange([("PING",)])
    relayed.rate = 1_000
    with pytest.raises(redis.TimeoutError, match="trickles"):
        wire.exchange([("HGETALL", "memory:a")])
    relayed.rate = 0
    wire.exchange([("PING",)])
    relayed.rate = 1_000
    with pytest.raises(redis.TimeoutError, match="trickles"):
        list(wire.keys_like("memory:*"))


def test_a_line_that_is_slow_brings_the_whole_answer(real: Memory, relayed: Relay) -> None:
    """More than the time for a command, but something arrives all the time."""
    real.redis.set("memory:a", "x" * 30_000)
    wire = Wire(connect(relayed.url, None, print))
    relayed.rate = 15_000
    assert wire.exchange([("GET", "memory:a"), ("ECHO", "next")]) == [b"x" * 30_000, b"next"]


def test_an_interrupted_call_leaves_no_answer_behind(launch: Launch) -> None:
    """Ctrl-C between the command and its answer."""
    server = launch()
    store = opened(server)
    store.wire.exchange([("PING",)])
    server.process.send_signal(signal.SIGSTOP)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        store.wire.exchange([("ECHO", "first")])
    server.process.send_signal(signal.SIGCONT)
    assert store.wire.exchange([("ECHO", "second")]) == [b"second"]
    store.close()


def test_an_error_in_the_middle_is_one_answer(memory: Memory) -> None:
    """The commands around it have theirs."""
    memory.redis.set("memory:a", "text")
    wire = Wire(memory.redis)
    found = wire.exchange([("GET", "memory:a"), ("HGETALL", "memory:a"), ("NONSENSE",), ("GET", "memory:a")])
    assert found[0] == found[3] == b"text"
    assert all(isinstance(answer, redis.ResponseError) for answer in found[1:3])
    assert wire.exchange([]) == []


def test_a_connection_that_the_server_closed_is_not_used(real: Memory) -> None:
    """It was idle too long, or the server was restarted: another one is opened, and nobody notices."""
    wire = Wire(real.redis)
    wire.exchange([("PING",)])
    real.redis.client_kill_filter(skipme=False, _type="normal")
    assert wire.exchange([("PING",)]) == [b"PONG"]


def test_a_script_that_was_flushed_is_loaded_again(memory: Memory) -> None:
    """For all writes of the call, in their order."""
    memory.store.write([Write("mary", (put("context.n", -1),))])
    memory.redis.script_flush()
    answers = memory.store.write([Write("mary", (put("context.n", number),)) for number in range(700)])
    assert [answer.version for answer in answers] == list(range(2, 702))
    memory.redis.script_flush()
    assert memory.store.observe({}).agents["mary"].version == 701


def test_a_server_that_nobody_knew_is_given_the_script_with_the_command(
    real: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot moved to it meanwhile. What else is asked in the same call is no script, and answered once."""
    wire, script = Wire(real.redis), "return redis.call('PING')"
    monkeypatch.setattr(wire, "_servers", list)
    real.redis.script_flush()
    sha = hashlib.sha1(script.encode()).hexdigest()
    answers = wire.run_script(script, [("TIME",), ("EVALSHA", sha, "0"), ("HGET", "memory:hub", "epoch")])
    assert len(answers[0]) == 2 and answers[1:] == [b"PONG", None]


def test_a_connection_that_is_busy_is_not_shared(real: Memory) -> None:
    """Sixteen threads at once, each with its own answers."""
    wire, wrong = Wire(real.redis), []

    def ask(name: str) -> None:
        until = time.monotonic() + 1
        number = 0
        while time.monotonic() < until:
            number += 1
            words: list[Any] = [("ECHO", f"{name} {number} {part}") for part in range(5)]
            if wire.exchange(words) != [word[1].encode() for word in words]:
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(f"t{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert int(real.redis.info("clients")["connected_clients"]) < 40


def test_texts_of_any_length(memory: Memory) -> None:
    """Longer than any buffer on the way."""
    text = "x" * 3_000_000
    assert Wire(memory.redis).exchange([("SET", "memory:a", text), ("GET", "memory:a")])[1] == text.encode()
