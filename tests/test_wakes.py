"""What the daemon's threads gather for its worker: scopes, and agents that must rest first."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from reconciler.base import Base
from reconciler.daemon import Daemon, Notice
from reconciler.daemon.news import MOST_WARNED, News
from reconciler.daemon.triggers import SPARING, SURE, WHOLE, Clock, Files
from reconciler.daemon.wakes import REST, SPARED, Wakes, after
from reconciler.errors import StoreAway
from reconciler.settings import build
from reconciler.store import Now, Write, Written
from reconciler.view import ALL, Options, Scope, View
from reconciler.workspace import Workspace, wall_clock
from tests.fakes import MemoryStore
from tests.waiting import wait_until

NOBODY: frozenset[str] = frozenset()
MARY = frozenset({"mary"})
FOREVER = 3600.0


def take(wakes: Wakes) -> Scope:
    scope = wakes.take(0.0)
    assert scope is not None
    return scope


def settle(wakes: Wakes, scope: Scope, again: Iterable[str] = ()) -> None:
    wakes.settle(scope, frozenset(again), time.monotonic(), FOREVER)


def test_what_happened_meanwhile_is_one_scope() -> None:
    """Agents, manifests and files, from however many wakes."""
    wakes = Wakes(0.0)
    wakes.live(["mary"])
    wakes.live(["gc", "mary"])
    wakes.manifests(["manifests/rnd.yaml"])
    wakes.file()
    assert take(wakes) == Scope(frozenset({"mary", "gc"}), frozenset({"manifests/rnd.yaml"}))
    settle(wakes, Scope(frozenset({"mary", "gc"})))
    assert wakes.leftover() is None


def test_anything_may_have_changed_is_more_than_some_agents() -> None:
    """Then every agent and every manifest is looked at."""
    wakes = Wakes(0.0)
    wakes.live(["mary"])
    wakes.live(None)
    assert take(wakes) == Scope(None, None)


def test_a_folder_of_manifests_that_changed_is_read_whole() -> None:
    """But Redis is not."""
    wakes = Wakes(0.0)
    wakes.manifests(None)
    wakes.manifests(["manifests/mary.yaml"])
    assert take(wakes) == Scope(NOBODY, None)


def test_a_drop_rests_before_a_round_takes_it_in() -> None:
    """One that was made a while ago has rested; any round looks at the spool, so nothing is left to do after it."""
    wakes = Wakes(0.0)
    wakes.drop(age=FOREVER)
    assert take(wakes) == Scope(NOBODY, NOBODY)
    began = time.monotonic()
    wakes.drop()
    assert take(wakes) == Scope(NOBODY, NOBODY)
    assert time.monotonic() - began >= REST / 2
    wakes.drop()
    wakes.file()
    take(wakes)
    assert wakes.leftover() is None


def test_an_agent_is_looked_at_at_once_and_again_when_it_has_rested() -> None:
    """The first look tells that somebody may still be writing; the second comes after the quiet time."""
    wakes = Wakes(0.05)
    wakes.live(["mary"])
    first = take(wakes)
    assert (first.agents, first.resting) == (MARY, MARY)
    settle(wakes, first, ["mary"])
    second = take(wakes)
    assert (second.agents, second.resting) == (MARY, NOBODY)


def test_who_goes_on_writing_is_waited_for_only_so_long() -> None:
    """A heartbeat that never rests is adopted all the same."""
    wakes = Wakes(0.01)

    def rests() -> bool:
        wakes.live(["mary"])
        scope = take(wakes)
        settle(wakes, scope, ["mary"])
        return bool(scope.resting)

    assert rests()
    wait_until(lambda: not rests())


def test_a_write_during_the_round_is_not_forgotten() -> None:
    """Only what was there when the round began is dealt with."""
    wakes = Wakes(0.0)
    wakes.live(["mary", "gc"])
    scope, began = take(wakes), time.monotonic()
    wakes.live(["gc"])
    wakes.settle(scope, NOBODY, began, FOREVER)
    assert take(wakes).agents == frozenset({"gc"})


def test_what_redis_refused_is_tried_again_after_a_pause() -> None:
    """Not at once: that would be a busy loop."""
    wakes = Wakes(0.0)
    wakes.live(["mary"])
    scope = take(wakes)
    wakes.settle(scope, frozenset({"mary"}), time.monotonic(), 0.02)
    began = time.monotonic()
    assert take(wakes).agents == MARY
    assert time.monotonic() - began >= 0.01


def test_at_the_end_also_what_rests_is_done() -> None:
    """Who is asked to stop flushes."""
    wakes = Wakes(60.0)
    wakes.live(["mary"])
    settle(wakes, take(wakes), ["mary"])
    assert wakes.leftover() == Scope(MARY, NOBODY)


def test_under_a_flood_rounds_take_half_of_the_time() -> None:
    """Each begins as soon as it may; the longest pause is a second."""
    not_before = began = 100.0
    for _ in range(10):
        not_before = began = after(not_before, began, began + 0.1)
    assert began == pytest.approx(102.0)
    assert after(began, began, began + 30) == began + 31


def test_after_a_rest_the_next_round_is_at_once() -> None:
    """But no rest is long enough for a flood."""
    began = 100.0
    not_before = after(0.0, began, began + 0.1)
    assert not_before < began + 0.1
    for _ in range(10):
        began = max(not_before, began + 0.1)
        not_before = after(not_before, began, began + 0.1)
    assert not_before == pytest.approx(102.2 - SPARED)


def test_a_worker_that_waits_is_interrupted() -> None:
    """By a signal that wants something of it."""
    wakes = Wakes(0.1)
    found: list[Scope | None] = [Scope()]
    worker = threading.Thread(target=lambda: found.append(wakes.take(0.0)))
    worker.start()
    wakes.interrupt()
    worker.join(10)
    assert found[-1] is None


def test_files_that_the_system_does_not_watch_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once; no edit waits for the next full round."""
    real = watchfiles.watch

    def watch(*paths: Any, force_polling: bool | None, **options: Any) -> Any:
        if not force_polling:
            raise OSError(28, "OS file watch limit reached")  # it cannot be lowered for a test alone
        return real(*paths, force_polling=True, **options)

    monkeypatch.setattr(watchfiles, "watch", watch)
    said: list[str] = []
    settings, wakes = build(tmp_path, {}, {}, {}), Wakes(0.0)
    settings.manifests.mkdir()
    files = Files(settings, wakes, said.append)
    files.watch()
    try:
        assert take(wakes) == Scope()
        settle(wakes, Scope())
        (settings.manifests / "mary.yaml").write_text("")
        found = take(wakes).paths
        assert found is None or "manifests/mary.yaml" in found
        files.watch()
    finally:
        files.close()
    assert len(said) == 1 and "watch limit reached" in said[0]


@pytest.mark.parametrize(
    ("told", "whole", "since", "agents"),
    [
        (False, 0.0, 0.0, None),
        (True, 0.0, 0.0, NOBODY),
        (True, 0.0, SURE, None),
        (True, 1.0, SURE, NOBODY),
        (True, 1.0, SPARING + 100.0, None),
        (True, SURE, WHOLE, None),
    ],
)
def test_the_clock_reads_redis_only_where_that_does_not_tell(
    tmp_path: Path, told: bool, whole: float, since: float, agents: frozenset[str] | None
) -> None:
    """All files each time, and all of Redis now and then, to make sure: the more seldom the longer that takes."""
    wakes = Wakes(0.0)
    wakes.settle(Scope(), NOBODY, time.monotonic() - whole, 0.0)
    clock = Clock(build(tmp_path, {"interval": "0.05"}, {}, {}), wakes, lambda: told)
    clock._whole -= since
    try:
        scope = take(wakes)
    finally:
        clock.close()
    assert (scope.agents, scope.paths) == (agents, None)


def test_a_clock_that_is_set_back_stops_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a machine starts with a wrong one: it would be silent for as long as that was wrong."""
    back, strikes = timedelta(), list[object]()

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Moved:
            return super().now(tz) - back

    for module in ("schedulers.base", "executors.base"):
        monkeypatch.setattr(f"apscheduler.{module}.datetime", Moved)
    wakes = Wakes(0.0)
    monkeypatch.setattr(wakes, "manifests", strikes.append)
    with closing(Clock(build(tmp_path, {"interval": "0.05"}, {}, {}), wakes, lambda: True)):
        wait_until(lambda: strikes, 20)
        back = timedelta(hours=3)
        strikes.clear()
        wait_until(lambda: len(strikes) >= 3, 20)


def test_warnings_without_end_are_not_remembered_without_end() -> None:
    """Each is said once, until there were very many others."""
    said: list[Notice] = []
    news = News(said.append)
    for number in range(2 * MOST_WARNED):
        news.warn(f"warning {number}")
        news.warn(f"warning {number}")
    assert len(said) == 2 * MOST_WARNED
    assert len(news._warned) <= MOST_WARNED


def test_a_round_that_redis_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its error is told long after it, and must not keep all that the round had read."""

    class Leaving(MemoryStore):
        def write(self, writes: Sequence[Write | Now]) -> list[Written]:
            raise StoreAway("gone in the middle")

    settings = build(tmp_path, {}, {}, {})
    settings.context_file.parent.mkdir()
    settings.context_file.write_text('{"agents": {"mary": {"status": "idle"}}}')
    workspace = Workspace(settings, Base(settings.folder), Leaving(wall_clock))
    daemon = Daemon(settings, Options(), lambda notice: None, lambda: settings)
    gc.collect()
    gc.disable()
    try:
        _, away = daemon._reconcile(workspace, ALL)
        assert isinstance(away, StoreAway)
        assert [found for found in gc.get_objects() if isinstance(found, View)] == []
    finally:
        gc.enable()
