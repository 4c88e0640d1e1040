"""`watch`: events on a terminal and in a pipe, from before and from now on, until it is told to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.events import CHANNEL
from tests.cli.shell import Shell, read_until, say
from tests.cli.test_signals import free_port, own_server
from tests.cli.test_terminal import ESCAPE, typed
from tests.waiting import wait_until


@contextmanager
def watching(shell: Shell, client: Any, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`watch` in the background, once it listens."""
    with shell.start("watch", *words) as process:
        wait_until(lambda: client.pubsub_channels("memory:updates*") or process.poll() is not None, 20, "a subscriber")
        yield process


def lines(process: subprocess.Popen[str], count: int) -> list[Any]:
    assert process.stdout
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_watch_prints_each_event_as_a_line_of_json_at_once(applied: Shell, client: redis.Redis) -> None:
    """In a pipe; every token as it was written."""
    with watching(applied, client) as process:
        applied("set", "mary", "--json", "-", input='{"n":12345678901234567890123,"t":"é\\n"}')
        event = lines(process, 1)[0]
        assert (event["agent"], event["version"], event["data"]) == (
            "mary",
            2,
            {"n": 12345678901234567890123, "t": "é\n"},
        )
        assert "replayed" not in event
        client.publish(CHANNEL, '{"agent":"mary", "event":"ping","timestamp":"t",\n "data":{"n":1.50e3}}')
        assert process.stdout
        assert process.stdout.readline() == '{"agent":"mary","event":"ping","timestamp":"t","data":{"n":1.50e3}}\n'


def test_watch_names_agents_events_and_how_many(applied: Shell, client: redis.Redis) -> None:
    """It ends by itself after --count."""
    with watching(applied, client, "gc", "mary", "--event", "agent_deleted", "--count", "2") as process:
        for agent in ("rnd", "mary", "gc"):
            applied("set", agent, "task=x")
            applied("delete", agent)
        assert [(event["agent"], event["version"]) for event in lines(process, 2)] == [("mary", 3), ("gc", 3)]
        assert process.wait(10) == 0


def test_watch_since_a_version_or_a_time_begins_with_the_history(applied: Shell, client: redis.Redis) -> None:
    """These are marked as replayed."""
    for value in "abc":
        applied("set", "mary", f"task={value}")
    history = applied("history", "mary", "-o", "json").json["versions"]
    for since in ("2", history[1]["timestamp"]):
        found = applied("watch", "mary", "--since", since, "--count", "2")
        assert found.code == 0
        events = [json.loads(line) for line in found.out.splitlines()]
        assert [(event["version"], event["replayed"]) for event in events] == [(3, True), (4, True)]


def test_watch_is_for_people_on_a_terminal(applied: Shell) -> None:
    """When, who, what, and the changes in colour; the same words without colour with -o text."""
    applied("set", "mary", "task=x", "role=lead")
    shown = typed(applied, "watch", "mary", "--since", "1", "--count", "1")
    assert "\x1b[32m" in shown
    said = applied("watch", "mary", "--since", "1", "--count", "1", "-o", "text").out
    assert ESCAPE.sub("", shown).replace("\r\n", "\n") == said
    assert re.fullmatch(
        r"\S+Z  mary  context_update  version 2  \S+  replayed\n"
        r"        \+ context.task  \"x\"\n        ~ context.role  \"dispatcher\" → \"lead\"\n",
        said,
    )


def test_what_strangers_publish_cannot_write_to_the_terminal(applied: Shell, client: redis.Redis) -> None:
    """Control characters are shown, not obeyed."""
    with watching(applied, client, "-o", "text", "--count", "1") as process:
        event = {
            "agent": "mary",
            "event": "\x1b[2J",
            "timestamp": "\x07",
            "data": {"\x1b]0;x": "\x1b"},
            "origin": "\x1b",
        }
        client.publish(CHANNEL, "garbage")
        client.publish(CHANNEL, json.dumps(event))
        out, _ = process.communicate(timeout=20)
    assert "mary" in out
    assert out.replace("\n", "").isprintable()


def test_a_number_that_is_too_large_for_python_ends_no_watch(applied: Shell, client: redis.Redis) -> None:
    """As any other message of a stranger."""
    with watching(applied, client, "-o", "text", "--count", "2") as process:
        for number in ("1e400", "2"):
            client.publish(CHANNEL, f'{{"agent":"mary","event":"x","timestamp":"t","data":{{"a":{number}}}}}')
        said = process.communicate(timeout=20)[0]
    assert process.returncode == 0, said
    assert '{"a":Infinity}' in said
    assert '{"a":2}' in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_watch_with_0(applied: Shell, client: redis.Redis, number: signal.Signals) -> None:
    """After what it has printed, without a word."""
    with watching(applied, client) as process:
        applied("set", "mary", "task=x")
        assert lines(process, 1)[0]["version"] == 2
        assert say(process, number)[:2] == (0, "")


def test_a_closed_pipe_ends_watch_quietly_also_while_nothing_happens(applied: Shell, client: redis.Redis) -> None:
    """As `watch | head -n 1` would leave it."""
    ours, theirs = os.pipe()
    process = subprocess.Popen(applied.words("watch"), stdout=theirs, stderr=subprocess.PIPE, env=applied.environment())
    os.close(theirs)
    try:
        wait_until(lambda: client.pubsub_channels("memory:updates*"), 20)
        os.close(ours)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (141, b"")


def test_watch_waits_for_redis_and_says_so_once(six: Shell, tmp_path: Path) -> None:
    """On stderr; when it is back, events go on, those that were missed as well."""
    port = free_port()
    six.redis = f"redis://127.0.0.1:{port}/0"
    with ExitStack() as stack:
        process = stack.enter_context(six.start("watch", "mary"))
        assert "waiting for it" in read_until(process, "\n")
        with own_server(tmp_path, port):
            assert "is back" in read_until(process, "\n")
            assert six("apply").code == 0
            assert lines(process, 1)[0]["version"] == 1
        assert "waiting for it" in read_until(process, "\n")
        with own_server(tmp_path, port):
            assert six("apply").code == 0
            assert "is back" in read_until(process, "\n")
            assert lines(process, 1)[0]["version"] == 2
        assert say(process, signal.SIGTERM).code == 0


@pytest.mark.parametrize("words", [("../x",), ("--since", "yesterday"), ("--count", "0"), ("-o", "yaml")])
def test_what_watch_cannot_mean_is_a_usage_error(shell: Shell, words: tuple[str, ...]) -> None:
    """Exit code 2 and one line."""
    found = shell("watch", *words)
    assert (found.code, found.out, len(found.err.splitlines())) == (2, "", 1)
