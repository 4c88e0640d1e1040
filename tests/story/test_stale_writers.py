"""Another program rewrites the whole file again and again from the copy it read before, and nothing is lost.

`RECONCILER_STALE_PAUSE=0.05` runs it at the pace that such scripts have in practice.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.base import Base
from tests.story.desk import Desk, six_agents
from tests.waiting import wait_until

REWRITES = int(os.environ.get("RECONCILER_STALE_COUNT", "1000"))
PAUSE = float(os.environ.get("RECONCILER_STALE_PAUSE", "0.006"))
"""Seconds that the other program rests between two rewrites."""

WRITER = """
import json, os, sys, time
from datetime import datetime

path, count, pause, tidy = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "tidy"
for i in range(count):
    with open(path) as file:
        data = json.load(file)
    time.sleep(pause / 2)
    record = data["agents"]["rnd"]
    record["status"] = ("busy", "idle")[i % 2] if tidy else f"step {i}"
    record["last_seen"] = datetime.now().astimezone().isoformat(timespec="seconds")
    record.setdefault("context", {})[f"n{i}"] = i
    if tidy:
        data["last_update"] = record["last_seen"]
    with open(path + ".tmp", "w") as file:
        json.dump(data, file, indent=2)
    os.replace(path + ".tmp", path)
    time.sleep(pause / 2)
"""


@contextmanager
def rounds(desk: Desk) -> Iterator[list[Exception]]:
    """The reconciler at work beside us, round after round; what it raised."""
    stop, raised = threading.Event(), list[Exception]()

    def work() -> None:
        try:
            while not stop.is_set():
                desk.apply()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join()


def rewriter(path: Path, manner: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(REWRITES), str(PAUSE), manner])


@pytest.mark.parametrize(("manner", "last"), [("plain", f"step {REWRITES - 1}"), ("tidy", "idle")])
def test_no_update_is_lost_to_a_program_that_rewrites_the_whole_file(desk: Desk, manner: str, last: str) -> None:
    """A thousand rewrites from stale copies: every one of its edits and every live update is there at the end.

    The tidy program goes to and fro between two values, and says in the file's header when it was there.
    """
    desk.save(six_agents())
    desk.apply()
    pauses = random.Random(1)
    updates = 0
    with rounds(desk) as raised, UnifiedMemoryHub(settings=desk.settings) as hub, rewriter(desk.path, manner) as other:
        while other.poll() is None and not raised:
            hub.update_agent_context("mary", {f"u{updates}": updates}, status=f"live {updates}")
            hub.update_agent_context("gc", {"turn": updates % 3}, status=("idle", "busy")[updates % 2])
            desk.hset("cls", status=f"raw {updates}", insight=f"i{updates}")
            updates += 1
            with suppress(subprocess.TimeoutExpired):
                other.wait(pauses.uniform(0, 4 * PAUSE))
    assert other.returncode == 0
    assert not raised
    wait_until(lambda: desk.apply().plan.in_sync, what="a round with nothing to do")
    desk.assert_agree()
    rnd, mary, gc, cls = (desk.record(name) for name in ("rnd", "mary", "gc", "cls"))
    assert [i for i in range(REWRITES) if f"n{i}" not in rnd["context"]] == []
    assert rnd["status"] == last
    assert [i for i in range(updates) if f"u{i}" not in mary["context"]] == []
    assert mary["status"] == f"live {updates - 1}"
    assert (gc["context"]["turn"], gc["status"]) == ((updates - 1) % 3, ("idle", "busy")[(updates - 1) % 2])
    assert (cls["status"], cls["insight"]) == (f"raw {updates - 1}", f"i{updates - 1}")
    assert Base(desk.settings.folder).conflicts() == []  # each field has one writer, and an old copy writes nothing
