"""DESIGN §5, rules 0 and 1: when a file's edit was made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.registers import registers
from tests.story.desk import Desk

START = datetime(2025, 11, 12, 1, 0, 0, tzinfo=UTC)


def stamp(desk: Desk, agent: str, field: str) -> int:
    """When a field was written, as Redis keeps it, in µs."""
    return registers(desk.redis, agent)[field].at


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    "declared",
    [
        "2025-11-12T08:00:00.250000Z",
        "2025-11-12T15:00:00.25+07:00",
        1762934400.25,
        1762934400250,
        "1762934400250000",
        datetime(2025, 11, 12, 8, 0, 0, 250000, UTC).astimezone().replace(tzinfo=None).isoformat(),
    ],
    ids=["Z", "offset", "epoch in s", "epoch in ms", "epoch in µs as text", "naive is local time"],
)
def test_a_record_says_itself_when_it_was_written(desk: Desk, declared: object) -> None:
    """An edit has the time that its record declares, however it is spelt, not the file's."""
    desk.save({"agents": {"mary": {"status": "idle", "last_seen": "2025-11-12T01:00:00Z"}}}, age=90)
    desk.apply()
    desk.set("mary", status="busy", last_seen=declared)
    desk.apply()
    if not str(declared).endswith(("Z", "+07:00")) and isinstance(declared, str) and "T" in declared:
        assert any("local time" in str(problem) for problem in desk.diff().problems)
    base = micros(datetime(2025, 11, 12, 8, 0, 0, 250000, UTC))
    assert stamp(desk, "mary", "status") == base


def test_the_newer_of_two_declared_times_counts(desk: Desk) -> None:
    """`last_update` and `last_seen`: whichever moved and is newer."""
    desk.save({"agents": {"mary": {"status": "idle", "last_seen": "2025-11-12T01:00:00Z"}}}, age=90)
    desk.apply()
    times = {"last_seen": "2025-11-12T02:00:00.1Z", "last_update": "2025-11-12T03:00:00.1Z"}
    desk.set("mary", status="busy", **times)
    desk.apply()
    assert stamp(desk, "mary", "status") == micros(datetime(2025, 11, 12, 3, 0, 0, 100000, UTC))


def test_a_record_that_says_nothing_new_has_the_files_time(desk: Desk) -> None:
    """A declared time that did not move says nothing of this edit: the file's mtime does."""
    desk.save({"agents": {"mary": {"status": "idle", "last_seen": "2025-11-12T01:00:00Z"}}}, age=90)
    desk.apply()
    desk.edit(lambda data: data["agents"]["mary"].update(status="busy"), age=20)
    desk.apply()
    assert stamp(desk, "mary", "status") == desk.path.stat().st_mtime_ns // 1000


def test_no_edit_is_later_than_now(desk: Desk) -> None:
    """A clock that is years ahead, in the record or in the file's mtime, cannot freeze a field."""
    desk.save({"agents": {"mary": {"status": "idle"}, "gc": {"status": "idle"}}}, age=90)
    desk.apply()
    desk.edit(lambda data: data["agents"]["mary"].update(status="busy", last_seen="2099-01-01T00:00:00Z"), age=-9e8)
    desk.apply()
    assert stamp(desk, "mary", "status") <= desk.now()
    desk.hset("mary", status="done")
    desk.apply()
    assert desk.record("mary")["status"] == "done"


def test_a_clock_that_was_wrong_once_is_forgiven(desk: Desk) -> None:
    """A `last_seen` that lay in the future does not turn every honest record after it into an old copy."""
    desk.save({"agents": {"mary": {"status": "idle", "last_seen": "2099-01-01T00:00:00Z"}}}, age=90)
    desk.apply()
    honest = datetime.now(UTC).isoformat(timespec="seconds")
    desk.set("mary", status="busy", last_seen=honest)
    desk.apply()
    assert desk.live("mary")["status"] == "busy"


def test_a_second_is_made_exact_by_the_files_time(desk: Desk) -> None:
    """`date` prints whole seconds; the mtime within that second says the rest."""
    desk.save({"agents": {"mary": {"status": "idle", "last_seen": "2025-11-12T01:00:00Z"}}}, age=90)
    desk.apply()
    desk.set("mary", status="busy")
    saved = desk.path.stat().st_mtime_ns // 1000
    second = datetime.fromtimestamp(saved // 1_000_000, UTC).isoformat()
    desk.set("mary", last_seen=second)
    saved = desk.path.stat().st_mtime_ns // 1000
    desk.apply()
    same_second = saved // 1_000_000 == int(datetime.fromisoformat(second).timestamp())
    assert stamp(desk, "mary", "status") == (saved if same_second else saved // 1_000_000 * 1_000_000)


def test_a_whole_second_is_not_behind_the_fraction_we_wrote(desk: Desk) -> None:
    """Whoever writes `last_update` with whole seconds in the second of our own write has not gone back in time."""
    desk.save({"agents": {"mary": {"status": "idle", "insight": "a"}}}, age=90)
    desk.apply()
    desk.hset("mary", insight="b")
    desk.apply()
    ours = desk.record("mary")["last_update"]
    assert ours.endswith("Z") and "." in ours
    desk.set("mary", status="busy", last_update=ours[:19] + "Z")
    desk.apply()
    assert desk.live("mary")["status"] == desk.record("mary")["status"] == "busy"


def test_an_edit_is_never_stamped_before_what_it_replaced(shared: Desk) -> None:
    """Saved with an old mtime after a live update that its writer had seen: it is the later one (rule 0)."""
    shared.hset("mary", status="busy")
    shared.apply()
    seen = stamp(shared, "mary", "status")
    shared.edit(lambda data: data["agents"]["mary"].update(status="idle"), age=3600)
    shared.apply()
    assert shared.live("mary")["status"] == "idle"
    assert stamp(shared, "mary", "status") == seen + 1


def test_a_live_write_that_the_edit_did_not_see_wins_if_it_is_newer(shared: Desk) -> None:
    """Two hands at one field: the newer one wins, on both sides."""
    shared.edit(lambda data: data["agents"]["mary"].update(status="from the file"), age=10)
    shared.hset("mary", status="from redis")
    shared.apply()
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "from redis"


def test_rubbish_for_a_time_is_no_time(desk: Desk) -> None:
    """An unreadable `last_seen` is carried like any value, and the file's mtime counts."""
    desk.save({"agents": {"mary": {"status": "idle"}}}, age=90)
    desk.apply()
    desk.edit(lambda data: data["agents"]["mary"].update(status="busy", last_seen="yesterday"), age=20)
    desk.apply()
    assert desk.live("mary")["last_seen"] == "yesterday"
    assert stamp(desk, "mary", "status") == desk.path.stat().st_mtime_ns // 1000


def test_a_file_saved_while_a_round_runs_is_not_dated_back(shared: Desk) -> None:
    """A round that takes its time reads it with the time at which it was saved, not with that of its own beginning."""
    shared.apply()
    moments = iter([shared.now() - 3_000_000])
    path = shared.manifest("mary", "spec: {status: saved meanwhile}")
    shared.round(lambda workspace: replace(workspace, clock=lambda: next(moments, shared.now())))
    assert stamp(shared, "mary", "status") == path.stat().st_mtime_ns // 1000
