"""`diff` and its kin write nothing at all: not a byte, not a time, in the workspace or on the server."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis

from tests.cli.shell import Shell, listing, stored

LOOKS = (("diff",), ("diff", "-o", "json"), ("diff", "--prune"), ("validate",), ("status",), ("get",), ("get", "mary"),
         ("history", "mary"), ("explain", "mary", "role"), ("conflicts",), ("export",))  # fmt: skip
READS = {"HELLO", "AUTH", "SELECT", "CLIENT", "PING", "TIME", "SCAN", "HGET", "HGETALL", "EVALSHA_RO", "XREVRANGE"}
"""And `SCRIPT LOAD`, which the first to read sends to a server that has not seen the reading script."""


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_looking_at_a_new_workspace_leaves_no_trace(six: Shell, client: redis.Redis, words: tuple[str, ...]) -> None:
    """Before the first round there is no folder of ours, and afterwards neither."""
    client.hset("memory:agents:mary", "status", "busy")
    before = listing(six.root), stored(client)
    six(*words)
    assert (listing(six.root), stored(client)) == before


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_looking_at_a_new_workspace_starts_no_embedded_store(six: Shell, words: tuple[str, ...]) -> None:
    """What was never written is empty; the server would create its files."""
    six.redis = "embedded:"
    before = listing(six.root)
    assert six(*words).code in (0, 1)
    assert listing(six.root) == before


def test_looking_leaves_no_trace_while_there_is_something_to_do(applied: Shell, client: redis.Redis) -> None:
    """Raw writes to adopt, edits, a broken manifest: seen, not touched."""
    client.hset("memory:agents:mary", mapping={"status": "busy", "context": '{"a": 1}'})
    client.hset("memory:agents:new", "status", "idle")
    client.set("memory:agents:odd", "text")
    applied.write_manifest("gc", "away")
    (applied.root / "manifests" / "bad.yaml").write_text("[")
    before = listing(applied.root), stored(client)
    for words in LOOKS:
        applied(*words)
    assert (listing(applied.root), stored(client)) == before


def test_looking_into_the_embedded_store_leaves_its_data_as_they_are(applied: Shell) -> None:
    """Only what tells the processes of one another (locks, pid, log) moves."""
    applied.redis = "embedded:"
    assert applied("apply").code == 0
    server_files = {"valkey.pid", "valkey.log"}

    def data() -> list[tuple[object, ...]]:
        entries = listing(applied.root)
        return [(name, mode, size, content) for name, mode, size, _, content in entries
                if name.rpartition("/")[2] not in server_files and not name.endswith(".lock")]  # fmt: skip

    before = data()
    for words in LOOKS:
        assert applied(*words).code == 0
    assert data() == before


def test_the_server_sees_only_reads(applied: Shell, client: redis.Redis) -> None:
    """As MONITOR tells: no command that could write, also with something to do."""
    client.hset("memory:agents:mary", "status", "busy")
    seen: list[str] = []
    untyped: Any = client
    with untyped.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                words = str(command["command"]).split()
                if words[:2] == ["ECHO", "enough"]:
                    return
                if words[:2] != ["SCRIPT", "LOAD"]:
                    seen.append(words[0].upper())

        listener = threading.Thread(target=listen)
        listener.start()
        for words in LOOKS:
            applied(*words)
        client.echo("enough")
        listener.join(20)
    assert set(seen) <= READS
    assert {"HGETALL", "SCAN", "XREVRANGE"} <= set(seen)
