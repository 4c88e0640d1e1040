"""Whoever is killed at a point that has a name loses nothing that was acknowledged, nor an edit.

    RECONCILER_FAILPOINT_TIMES=12 pytest tests/faults/real/test_failpoints.py

dies at each point not only the first time that it comes there, but the second time too, and so on as far as it comes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler import UnifiedMemoryHub, files
from reconciler.cli.rounds import finish
from reconciler.controller import reconcile_or_away
from reconciler.drops import Part
from reconciler.errors import UsageError
from reconciler.failpoints import EXIT_CODE, NAMES, VARIABLE, armed
from reconciler.spool import drop
from reconciler.workspace import open_workspace, read_settings
from tests.faults import check
from tests.faults.real.rig import Desk, env_number
from tests.faults.real.server import Server, trial_server

TIMES = env_number("RECONCILER_FAILPOINT_TIMES", 1)
"""How often a point is come to before the process ends there: from once to so often."""
NOBODY = "unix:///tmp/nobody-listens-here"
ON_FILES = ("journal", "answer")
"""The points to which a round does not come, but who writes while Redis is away."""
EDITED = {
    "a0": {"context.k1": '"edited"', "context.k0": '"newer"'},
    "a1": {"context.role": '"declared"'},
    "a2": {"status": '"raw"'},
    "a3": {"context.told": '"hub"'},
    "a4": {"context.dropped": '"drop"'},
}
"""What was written in each way, before the process that is killed begins."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with trial_server() as server:
        yield server


@pytest.fixture
def desk(server: Server, tmp_path: Path) -> Iterator[Desk]:
    """Every kind of write waits for a round, and one value has lost to a newer one."""
    with server.client() as client, Desk(tmp_path / "work", server.url) as desk:
        client.flushall()
        desk.begin()
        desk.write_manifest("a1", role="first")
        with UnifiedMemoryHub(str(desk.root), server.url) as hub:
            hub.sync_from_file()
            document = desk.context()
            document["agents"]["a0"]["context"] |= {"k0": "older", "k1": "edited"}
            desk.context_file.write_text(json.dumps(document, indent=2))
            desk.write_manifest("a1", role="declared")
            client.hset("memory:agents:a2", "status", "raw")
            hub.update_agent_context("a3", {"told": "hub"})
            hub.update_agent_context("a0", {"k0": "newer"})
            drop(hub.settings, "a4", [Part("dropped", "text", b"drop")])
        yield desk


@pytest.mark.parametrize("time", range(1, TIMES + 1))
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_a_point_nothing_is_lost(server: Server, desk: Desk, name: str, time: int) -> None:
    """The file is whole at once, and after the next round every side holds every write."""
    there = die(desk, name, time)
    assert there or time > 1, f"nobody comes to {name}"
    json.loads(desk.context_file.read_text())
    assert another_round(desk) == 0
    with server.client() as client:
        live = check.of_redis(client)
        wrong = [
            f"{agent}.{field} is {live[agent].get(field)}, and {text} was written"
            for agent, fields in (*EDITED.items(), *owed(name))
            for field, text in fields.items()
            if live[agent].get(field) != text
        ]
        wrong += check.quick(client, [desk.root]) + check.replicas(client, desk.root, server.url)
        wrong += check.History.read(client).faults(client)
    wrong += [f"left behind: {path}" for path in desk.root.rglob("*.tmp")]
    assert wrong == []


def die(desk: Desk, name: str, time: int) -> bool:
    """Whether somebody came to that point, and ended there."""
    with ExitStack() as held:
        words = desk.words("apply")
        if name.partition(".")[0] in ON_FILES:
            words = desk.words("--redis", NOBODY, "set", "a5", "away=5")
            # Somebody else at work: then only the journal can take it.
            held.enter_context(files.Lock(desk.root / ".reconciler" / "lock"))
        env = {**desk.environment(), VARIABLE: f"{name}:{time}"}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (EXIT_CODE, 0, 5), done
    return done.returncode == EXIT_CODE


def another_round(desk: Desk) -> int:
    """What `apply` does, by this process; its exit code."""
    settings = read_settings(str(desk.root), {"redis": desk.redis}, {})
    with open_workspace(settings, lambda text: None) as workspace:
        done = reconcile_or_away(workspace)
        finish(settings, done)
    return done.exit_code


def owed(name: str) -> list[tuple[str, dict[str, str]]]:
    """What is on disk since that point."""
    return [("a5", {"context.away": "5"})] if name.startswith("answer") or name == "journal.after" else []


@pytest.mark.parametrize(
    "text", ["swap", "swap.between", "nowhere.before", "swap.after:", "swap.after:0", "swap.after:x"]
)
def test_a_point_that_is_not_there_is_refused(text: str) -> None:
    """By everyone who would have passed it: a trial that kills nobody shows nothing."""
    with pytest.raises(UsageError):
        armed(text)


def test_the_command_line_refuses_it_in_one_line(desk: Desk) -> None:
    """Before anything is done."""
    words = [*desk.words("apply")]
    env = {**desk.environment(), VARIABLE: "nowhere.before"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no point 'nowhere.before'; there are fsync.before" in done.stderr


def test_who_sets_nothing_comes_to_no_point() -> None:
    """One thing that does nothing, for all of them."""
    assert len({armed("")("swap"), armed("")("commit"), armed("swap.after")("commit")}) == 1
    assert sys.modules["reconciler.failpoints"].around("swap") is armed("")("swap")
