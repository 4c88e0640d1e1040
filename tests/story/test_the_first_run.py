"""DESIGN §5, rule 4: without a base nobody knows what is an edit, so nothing is deleted and times decide."""

from __future__ import annotations

import pytest

from tests.story.desk import Desk

OLD, NEW = "2025-11-12T01:00:00Z", "2025-11-12T09:00:00Z"


def meet(desk: Desk, **record: object) -> None:
    """A file and a server that never met."""
    desk.hset("mary", status="live", last_update="2025-11-12T05:00:00Z", insight="only live")
    desk.save({"agents": {"mary": {"status": "file", **record}, "gc": {"status": "only here"}}})


def test_a_declared_time_decides(desk: Desk) -> None:
    """A record newer than the hash wins, an older one loses."""
    meet(desk, last_seen=NEW)
    desk.apply()
    assert desk.live("mary")["status"] == desk.record("mary")["status"] == "file"


def test_an_older_record_loses(desk: Desk) -> None:
    """The hash says itself when it was written."""
    meet(desk, last_seen=OLD)
    desk.apply()
    assert desk.live("mary")["status"] == desk.record("mary")["status"] == "live"


def test_a_record_without_a_time_loses_to_any_live_value(desk: Desk) -> None:
    """However new the file is: a copy or a checkout has today's mtime too."""
    meet(desk)
    desk.apply()
    assert desk.live("mary")["status"] == desk.record("mary")["status"] == "live"


def test_nothing_is_deleted(desk: Desk) -> None:
    """What only one side has, the other one learns."""
    meet(desk, last_seen=NEW)
    done = desk.apply()
    assert all(change.op != "delete" for change in done.plan.changes)
    assert desk.record("mary")["insight"] == "only live"
    assert desk.live("gc")["status"] == "only here"
    desk.assert_agree()


def test_nothing_is_deleted_by_prune_either(desk: Desk) -> None:
    """Nobody has lost what nobody is known to have had."""
    meet(desk, last_seen=NEW)
    done = desk.apply(prune=True)
    assert all(change.op != "delete" for change in done.plan.changes)
    desk.assert_agree()


def test_equal_values_are_no_conflict(desk: Desk) -> None:
    """Whatever their times: there is nothing to decide."""
    desk.hset("mary", status="same")
    desk.save({"agents": {"mary": {"status": "same"}}})
    assert desk.changes() == {}


@pytest.mark.parametrize(("mode", "wins"), [("newer", "live"), ("files", "file"), ("live", "live")])
def test_first_run_says_who_wins(desk: Desk, mode: str, wins: str) -> None:
    """`--first-run` overrides the times; with `live` even a newer record loses."""
    meet(desk, last_seen=NEW if mode == "live" else OLD)
    desk.apply(first_run=mode)
    assert desk.live("mary")["status"] == desk.record("mary")["status"] == wins
    assert desk.record("mary")["insight"] == "only live"
    desk.assert_agree()


def test_a_manifest_without_a_time_is_weak_as_well(desk: Desk) -> None:
    """Manifests are checked out anew all the time; `metadata.updated` makes one count."""
    desk.hset("mary", status="live", last_update="2025-11-12T05:00:00Z")
    desk.hset("gc", status="live", last_update="2025-11-12T05:00:00Z")
    desk.manifest("mary", "spec: {status: declared}")
    desk.manifest("gc", "spec: {status: declared}", metadata=f'updated: "{NEW}"')
    desk.apply()
    assert (desk.live("mary")["status"], desk.live("gc")["status"]) == ("live", "declared")


def test_without_a_file_one_is_written(desk: Desk) -> None:
    """Manifests and Redis are enough to begin with."""
    desk.manifest("mary", "spec: {status: active, context: {role: dispatcher}}")
    desk.hset("gc", status="live")
    assert desk.apply().exit_code == 0
    assert desk.record("mary") | {"last_update": ""} == {
        "status": "active", "context": {"role": "dispatcher"}, "last_update": "",
    }  # fmt: skip
    assert desk.record("gc")["status"] == "live"
    desk.assert_agree()


def test_an_empty_workspace_is_in_sync_after_one_round(desk: Desk) -> None:
    """Nothing anywhere: nothing to do, and nothing invented."""
    assert desk.apply().exit_code == 0
    assert desk.diff().in_sync
    assert desk.redis.keys("memory:agents:*") == []


def test_a_lost_memory_is_a_first_run_again(shared: Desk) -> None:
    """Without `.reconciler` newest wins once more, and an agent that is missing somewhere is filled in."""
    for path in (shared.root / ".reconciler").iterdir():
        path.unlink()
    shared.edit(lambda data: data["agents"].pop("mary"))
    shared.apply()
    assert shared.record("mary")["status"] == "active"
    shared.assert_agree()
