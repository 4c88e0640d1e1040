"""A round may end anywhere, by SIGKILL or a power cut: the next one finishes it, and nobody's write is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import files
from reconciler.base import Base
from reconciler.controller import reconcile
from reconciler.stamp import format_time
from reconciler.store import Now, Write, Written
from reconciler.store.redis_store import RedisStore
from reconciler.workspace import Workspace, open_workspace, read_settings
from tests.story.desk import Desk

DIED = 9
PROJECT = Path(__file__).parents[2]
POINTS = (
    "before anything is remembered",
    "after it is remembered",
    "after raw writes are adopted",
    "after Redis is written",
    "after the file is written",
    "at the end",
)


class DyingStore(RedisStore):
    """A store on which the process ends before or after one of its writes."""

    point = ""
    writes = 0

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        die_at(self.point, "after it is remembered", self.writes == 0)
        answers = super().write(writes)
        self.writes += 1
        die_at(self.point, "after raw writes are adopted", self.writes == 1)
        die_at(self.point, "after Redis is written", self.writes == 2)
        return answers


class DyingBase(Base):
    """A memory on which the process ends before or after one of its commits."""

    point = ""
    saves = 0

    def save(self, *args: Any, **more: Any) -> None:
        die_at(self.point, "before anything is remembered", self.saves == 0)
        die_at(self.point, "after the file is written", self.saves == 1)
        super().save(*args, **more)
        self.saves += 1
        die_at(self.point, "at the end", self.saves == 2)


def die_at(point: str, here: str, now: bool) -> None:
    if point == here and now:
        os._exit(DIED)


def dying_round(root: str, url: str, point: str) -> None:
    """What the other process does; it does not return."""
    chosen = read_settings(root, {"redis": url}, {})
    with open_workspace(chosen, lambda text: None) as workspace:
        store, base = workspace.store, DyingBase(chosen.folder)
        assert isinstance(store, RedisStore)
        dying = DyingStore(store.client, store.origin, store.limits, store.name)
        dying.point = base.point = point
        reconcile(Workspace(chosen, base, dying))
    raise AssertionError(f"it did not die {point}")


def crash(desk: Desk, point: str) -> None:
    code = "import sys; from tests.story.test_crashes import dying_round; dying_round(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(desk.root), desk.url, point]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=False)
    assert done.returncode == DIED


@pytest.fixture
def torn(shared: Desk) -> Desk:
    """Three hands have written: the round that follows has work in every direction."""
    shared.manifest("rnd", "spec: {context: {role: a}}", age=60)
    shared.apply()
    shared.manifest("rnd", "spec: {context: {role: b}}")
    shared.hset("gc", status="busy")
    shared.set("mary", status="idle")
    return shared


def assert_whole(desk: Desk) -> None:
    assert desk.record("gc")["status"] == desk.live("gc")["status"] == "busy"
    assert desk.record("mary")["status"] == desk.live("mary")["status"] == "idle"
    assert desk.record("rnd")["context"] == desk.live("rnd")["context"] == {"role": "b"}
    desk.assert_agree()


@pytest.mark.parametrize("point", POINTS)
def test_the_next_round_finishes_what_a_crash_left(torn: Desk, point: str) -> None:
    """Wherever it died, one more round has everything on both sides, and versions have no gaps."""
    crash(torn, point)
    assert torn.apply().exit_code == 0
    assert_whole(torn)
    for agent in ("gc", "mary", "rnd"):
        assert_gapless(torn, agent)


def assert_gapless(desk: Desk, agent: str) -> None:
    entries = desk.redis.xrange(f"memory:history:{{memory:agents:{agent}}}")
    versions = [json.loads(fields["event"])["version"] for _, fields in entries]
    assert versions == list(range(1, len(versions) + 1))


@pytest.mark.parametrize("point", POINTS)
def test_what_is_written_after_a_crash_is_newer_than_what_it_left(torn: Desk, point: str) -> None:
    """A live update and an edit made before the next round win over the half-done one."""
    crash(torn, point)
    torn.hset("gc", status="done", insight="later")
    torn.set("cls", status="later")
    torn.apply()
    assert torn.record("gc")["status"] == torn.live("gc")["status"] == "done"
    assert torn.record("cls")["status"] == torn.live("cls")["status"] == "later"
    assert torn.record("mary")["status"] == torn.live("mary")["status"] == "idle"
    torn.assert_agree()


@pytest.mark.parametrize("point", POINTS)
def test_a_stale_copy_saved_after_a_crash_loses_nothing(torn: Desk, point: str) -> None:
    """Somebody who read the file before the crash writes it whole after it."""
    copy = torn.file()
    crash(torn, point)
    copy["agents"]["cls"]["status"] = "from a stale copy"
    torn.save(copy)
    torn.apply()
    assert torn.record("cls")["status"] == torn.live("cls")["status"] == "from a stale copy"
    assert_whole(torn)


ALONE = ("after it is remembered", "after raw writes are adopted", "before anything is remembered")
"""Where a round dies that has only a raw write: before Redis is written, after it, and then before base is."""


@pytest.mark.parametrize("point", ALONE)
def test_a_raw_write_alone_is_a_live_write_after_a_crash(shared: Desk, point: str) -> None:
    """It is adopted before base knows of it; the next round takes it in as it finds it, as one version."""
    shared.manifest("rnd", "spec: {status: idle}")
    shared.apply()
    shared.hset("gc", status="busy")
    shared.redis.hdel("memory:agents:rnd", "status")
    crash(shared, point)
    version = shared.redis.hget("memory:meta:{memory:agents:gc}", "version")
    shared.set("cls", status="edited meanwhile")
    shared.apply()
    assert shared.record("gc")["status"] == shared.live("gc")["status"] == "busy"
    assert "status" not in shared.record("rnd") and "status" not in shared.live("rnd")
    assert shared.record("cls")["status"] == shared.live("cls")["status"] == "edited meanwhile"
    if point != ALONE[0]:
        assert shared.redis.hget("memory:meta:{memory:agents:gc}", "version") == version
    assert_gapless(shared, "gc")
    shared.assert_agree()


def test_a_pinned_value_waits_for_base_where_somebody_wrote_over_it(shared: Desk) -> None:
    """What a manifest has to say about a raw write is remembered before Redis learns it."""
    shared.manifest("rnd", "spec: {status: idle}\npolicy: {status: pin}")
    shared.apply()
    shared.hset("rnd", status="busy")
    crash(shared, "before anything is remembered")
    assert shared.live("rnd")["status"] == "busy"
    shared.apply()
    assert shared.record("rnd")["status"] == shared.live("rnd")["status"] == "idle"
    shared.assert_agree()


def test_crashing_again_and_again_ends_well_too(torn: Desk) -> None:
    """Six crashes in a row, each further on."""
    for point in POINTS[:4]:
        crash(torn, point)
        torn.hset("gc", status=f"busy {point}")
    torn.hset("gc", status="busy")
    torn.apply()
    assert_whole(torn)


def test_an_edit_saved_while_redis_is_written_is_not_overwritten(torn: Desk) -> None:
    """Somebody saves the file between our reading and our writing of it: the round starts again."""

    class Busy(RedisStore):
        done = False

        def write(self, writes: Sequence[Write | Now]) -> list[Written]:
            if not self.done:
                torn.set("cls", status="in between")
            self.done = True
            return super().write(writes)

    def with_busy_store(workspace: Workspace) -> Workspace:
        store = workspace.store
        assert isinstance(store, RedisStore)
        return replace(workspace, store=Busy(store.client, store.origin, store.limits, store.name))

    torn.round(with_busy_store)
    assert torn.record("cls")["status"] == torn.live("cls")["status"] == "in between"
    assert_whole(torn)


def test_an_edit_saved_at_the_very_moment_of_the_swap_is_taken_in(torn: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too late to be noticed before ours took its place, it comes out of the swap and goes into the journal."""
    swap, saved = files._swap, list[bool]()

    def late(temp: Path, target: Path, expected: files.Identity | None) -> bool:
        if saved or expected is None:
            return swap(temp, target, expected)
        identify = files.identify
        monkeypatch.setattr(files, "identify", lambda path: expected if path == target else identify(path))
        torn.set("cls", status="at the last moment")
        saved.append(True)
        try:
            return swap(temp, target, expected)
        finally:
            monkeypatch.setattr(files, "identify", identify)

    monkeypatch.setattr(files, "_swap", late)
    torn.apply()
    assert saved
    assert torn.record("cls")["status"] == torn.live("cls")["status"] == "at the last moment"
    assert_whole(torn)


def test_what_a_crash_kept_from_the_file_is_not_deleted_by_who_never_saw_it(shared: Desk) -> None:
    """Base knew the new version, the file never had it; edits that go on for long after do not take it back."""
    shared.apply()
    shared.hset("gc", insight="written live")
    shared.apply()
    shared.hset("gc", note="written live too")
    crash(shared, "after raw writes are adopted")
    shared.later(7)
    shared.set("gc", status="edited", last_update=format_time(shared.now()))
    shared.apply()
    assert shared.live("gc").get("note") == "written live too"
    assert shared.record("gc").get("note") == "written live too"
    assert shared.live("gc")["status"] == "edited"
    shared.assert_agree()
