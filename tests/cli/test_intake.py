"""`run` and the spool: hooks that drop while it runs, while it does not, while Redis is away, while it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import redis

from reconciler.base import Base
from reconciler.spool import Part, backlog, pack
from reconciler.workspace import read_settings
from tests.cli.shell import Shell, read_until, say
from tests.servers import Server
from tests.waiting import wait_until

READY = "Watching for changes"
PROGRAM = """
import json, os, sys, time
folder, agent, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
last = 0
for number in range(first, first + count):
    last = max(time.time_ns() // 1000, last + 1)
    name = f"{last}-{os.getpid()}.drop"
    text = json.dumps({"n": number})
    parts = ["reconciler-drop 1", agent, "n", "json", str(number), "result", "json", text, "end", ""]
    with open(f"{folder}/.{name}.tmp", "w") as file:
        file.write("\\0".join(parts))
    os.rename(f"{folder}/.{name}.tmp", f"{folder}/{name}")
"""
"""A hook, as somebody else would write it."""


def spool_of(shell: Shell) -> Path:
    folder = shell.root / ".reconciler" / "spool"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    return folder


def drop(shell: Shell, agent: str, *parts: Part) -> None:
    folder, name = spool_of(shell), f"{time.time_ns() // 1000}-{os.getpid()}.drop"
    (folder / f".{name}.tmp").write_bytes(pack(agent, parts))
    (folder / f".{name}.tmp").rename(folder / name)


def hooks(shell: Shell, processes: int, each: int, first: int = 0) -> list[subprocess.Popen[bytes]]:
    """So many processes at once, for mary and rnd by turns; each drops its own numbers, in order."""
    folder = str(spool_of(shell))
    return [
        subprocess.Popen(
            [sys.executable, "-S", "-c", PROGRAM, folder, ("mary", "rnd")[k % 2], str(first + k * each), str(each)]
        )
        for k in range(processes)
    ]


def numbers(client: redis.Redis, agent: str) -> list[int]:
    """What the versions say that hooks made, which have no gaps."""
    entries: Any = client.xrange(f"memory:history:{{memory:agents:{agent}}}")
    events = [json.loads(fields[b"event"]) for _, fields in entries]
    assert [event["version"] for event in events] == list(range(1, len(events) + 1))
    return [event["data"]["n"] for event in events if event["changes"][0]["by"].startswith("hook-")]


def context(client: redis.Redis, agent: str) -> Any:
    return json.loads(client.hget(f"memory:agents:{agent}", "context") or b"{}")


def assert_each_once(client: redis.Redis, agents: tuple[str, ...], processes: int, each: int) -> None:
    """Every drop is one version, and those of one process are in its order."""
    for turn, agent in enumerate(agents):
        found = numbers(client, agent)
        mine = [range(k * each, (k + 1) * each) for k in range(processes) if k % 2 == turn]
        assert sorted(found) == [number for some in mine for number in some]
        for some in mine:
            assert [number for number in found if number in some] == list(some)


def test_a_drop_is_everywhere_at_once(applied: Shell, client: redis.Redis) -> None:
    """In Redis, in the file, and told to subscribers; the folder for it was not there before."""
    with applied.start("run") as process, applied.start("watch", "mary", "--since", "1", "--count", "1") as watch:
        read_until(process, READY)
        drop(applied, "mary", Part("last_task", "text", b"WO-1"), Part("result", "json", b'{"a": 1.0}'))
        wait_until(lambda: context(client, "mary").get("last_task") == "WO-1", 20)
        wait_until(lambda: applied.context()["agents"]["mary"]["context"].get("result") == {"a": 1.0}, 20)
        assert '"result":{"a":1.0}' in read_until(watch, "WO-1")
        wait_until(lambda: not list(spool_of(applied).iterdir()), 20)
        assert say(process, signal.SIGTERM).code == 0


def test_a_thousand_drops_of_fifty_processes_are_a_thousand_versions(applied: Shell, client: redis.Redis) -> None:
    """Made while nobody ran; then one `run` takes all of them in."""
    for hook in hooks(applied, 50, 20):
        assert hook.wait(60) == 0
    with applied.start("run") as process:
        read_until(process, READY)
        wait_until(lambda: versions_of(client, ("mary", "rnd")) >= 1000, 20)
        assert_each_once(client, ("mary", "rnd"), 50, 20)
        wait_until(lambda: backlog(read_settings(str(applied.root), {}, {}))[:2] == (0, 0), 20)
        say(process, signal.SIGTERM)
    for agent in ("mary", "rnd"):
        assert applied.context()["agents"][agent]["context"] == context(client, agent)


def test_a_run_that_is_killed_again_and_again_loses_and_doubles_nothing(applied: Shell, client: redis.Redis) -> None:
    """By SIGKILL, wherever it is, with more coming in all the time: what came too late to be a version is in the
    ledger."""
    agents = ("mary", "rnd")
    for turn in range(3):
        made = hooks(applied, 2, 100, first=turn * 200)
        with applied.start("run") as process:
            wait_until(partial(_has_grown, client, agents, versions_of(client, agents)), 30)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        for hook in made:
            assert hook.wait(60) == 0
    assert applied("apply").code == 0
    found = [number for agent in agents for number in numbers(client, agent)]
    lost = [conflict for conflict in Base(applied.root / ".reconciler").conflicts() if conflict.field == "context.n"]
    assert sorted(found + [int(conflict.lost.text or "") for conflict in lost]) == list(range(600))
    assert applied("diff").code == 0


def versions_of(client: redis.Redis, agents: tuple[str, ...]) -> int:
    return sum(len(numbers(client, agent)) for agent in agents)


def _has_grown(client: redis.Redis, agents: tuple[str, ...], before: int) -> bool:
    return versions_of(client, agents) > before


def test_drops_made_while_redis_is_away_are_versions_when_it_is_back(six: Shell, launch: Callable[..., Server]) -> None:
    """In the file at once; in Redis each by itself, with the time it was made."""
    server = launch()
    six.redis = server.url
    assert six("apply").code == 0
    with six.start("run") as process, server.client() as client:
        read_until(process, READY)
        server.process.send_signal(signal.SIGSTOP)
        try:
            for hook in hooks(six, 2, 50):
                assert hook.wait(60) == 0
            wait_until(lambda: six.context()["agents"]["mary"]["context"].get("n") == 49, 20)
            wait_until(lambda: six.context()["agents"]["rnd"]["context"].get("n") == 99, 20)
        finally:
            server.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(numbers(client, "mary")) + len(numbers(client, "rnd")) == 100, 20)
        assert_each_once(client, ("mary", "rnd"), 2, 50)
        wait_until(lambda: backlog(read_settings(str(six.root), {}, {}))[:2] == (0, 0), 20)
        say(process, signal.SIGTERM)


def test_what_is_no_drop_is_told_once_and_stops_nothing(applied: Shell, client: redis.Redis) -> None:
    """It is put aside, so the run goes on as before; `status` tells of it until somebody has dealt with it."""
    with applied.start("run") as process:
        read_until(process, READY)
        (spool_of(applied) / f"{time.time_ns() // 1000}-1.drop").write_bytes(
            b"reconciler-drop 1\0../x\0a\0text\0b\0end\0"
        )
        assert "'../x' is no legal agent name" in read_until(process, "not taken in")
        drop(applied, "mary", Part("n", "json", b"1"))
        wait_until(lambda: context(client, "mary").get("n") == 1, 20)
        found = applied("status", "-o", "json").json
        assert (found["quarantined"], [line.partition("/")[0] for line in found["wrong"]]) == ([], ["spool"])
        said = say(process, signal.SIGTERM).out
    assert "good again" not in said and "not taken in" not in said


def test_the_inbox_is_watched_when_the_settings_say_so(applied: Shell, client: redis.Redis) -> None:
    """The folder is made; a file that is finished later is taken in then."""
    (applied.root / "reconciler.yaml").write_text("inbox: true\n")
    inbox = applied.root / "bridge" / "memory" / "inbox"
    with applied.start("run") as process:
        read_until(process, READY)
        wait_until(inbox.is_dir, 20)
        (inbox / "rnd_outcome_1.json").write_text('{"score": 88, "te')
        (inbox / "mary_result_1.json").write_text('{"result": "success"}')
        wait_until(lambda: context(client, "mary").get("result") == "success", 20)
        assert (inbox / "rnd_outcome_1.json").exists()
        (inbox / "rnd_outcome_1.json").write_text('{"score": 88, "test": true}')
        wait_until(lambda: context(client, "rnd").get("score") == 88, 20)
        wait_until(lambda: len(list((inbox / "processed").iterdir())) == 2, 20)
        say(process, signal.SIGTERM)
    assert applied.context()["agents"]["rnd"]["context"]["test"] is True
