"""DESIGN §5, rule 2: a file is compared with the version it was made from, not with the last one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.story.desk import Desk, six_agents


def mirrored(desk: Desk, status: str = "busy") -> dict[str, Any]:
    """A live update of gc is mirrored into the file; the copy that somebody had read before."""
    copy = desk.file()
    desk.hset("gc", status=status)
    desk.apply()
    assert desk.record("gc")["status"] == status
    return copy


def test_only_what_differs_from_the_copy_is_an_edit(shared: Desk) -> None:
    """`jq ... > tmp && mv` from a copy read before a live update: the edit lands, the live update stays."""
    copy = mirrored(shared)
    copy["agents"]["mary"]["status"] = "done"
    shared.save(copy)
    shared.apply()
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "done"
    assert shared.record("gc")["status"] == shared.live("gc")["status"] == "busy"
    shared.assert_agree()


def test_an_editors_buffer_may_be_minutes_old(shared: Desk) -> None:
    """Many live updates later the buffer is saved: its one edit lands, all the updates stay."""
    copy = shared.file()
    for turn in range(12):
        shared.hset("gc", status=f"busy {turn}", insight=f"i{turn}")
        shared.apply()
    shared.later(50)
    copy["agents"]["mary"]["status"] = "done"
    shared.save(copy)
    shared.apply()
    assert shared.record("mary")["status"] == "done"
    assert (shared.record("gc")["status"], shared.record("gc")["insight"]) == ("busy 11", "i11")
    shared.assert_agree()


def test_a_field_gone_with_a_stale_copy_is_not_deleted(shared: Desk) -> None:
    """A live field that the copy never had comes back; one that its writer took out goes."""
    shared.set("mary", insight="old")
    shared.apply()
    copy = shared.file()
    shared.hset("gc", insight="new")
    shared.apply()
    del copy["agents"]["mary"]["insight"]
    shared.save(copy)
    shared.apply()
    assert shared.record("gc")["insight"] == "new"
    assert "insight" not in shared.record("mary")
    assert "insight" not in shared.live("mary")


def test_an_older_version_saved_at_once_was_carried_over(shared: Desk) -> None:
    """A file equal to an older version within 5 s of our write: nobody decided anything; it is put right."""
    copy = mirrored(shared)
    shared.later(4)
    shared.save(copy)
    shared.apply()
    assert shared.record("gc")["status"] == shared.live("gc")["status"] == "busy"


def test_an_older_version_saved_later_is_an_undo(shared: Desk) -> None:
    """The same file 6 s after our write is somebody's decision: it is an edit, and wins."""
    copy = mirrored(shared)
    shared.later(6)
    shared.save(copy)
    shared.apply()
    assert shared.record("gc")["status"] == shared.live("gc")["status"] == "active"


def test_who_sets_fields_back_by_hand_is_believed(shared: Desk) -> None:
    """Three fields set back to what they were, in the newest version of the file, are three edits: that the file
    is now nearer to an older version does not make it a stale copy."""
    before = {name: dict(shared.record(name)) for name in ("gc", "cls", "gg")}
    for name in before:
        shared.hset(name, status="busy")
    shared.apply()
    shared.edit(lambda data: [data["agents"][name].update(status="active") for name in before])
    shared.apply()
    assert [shared.live(name)["status"] for name in before] == ["active"] * 3
    shared.assert_agree()


def test_a_script_that_sets_several_fields_back_is_believed(shared: Desk) -> None:
    """Also within one record, without touching its times."""
    shared.set("gc", status="idle", task="", progress=0, note="-")
    shared.apply()
    shared.hset("gc", status="busy", task="x", progress="5", note="running")
    shared.apply()
    shared.set("gc", status="idle", task="", progress=0, note="-")
    shared.apply()
    live = shared.live("gc")
    assert (live["status"], live["task"], live["progress"], live["note"]) == ("idle", "", "0", "-")


def test_a_backup_put_back_is_an_old_copy(shared: Desk) -> None:
    """Records whose own times went back, and none forward, lose; the plan names them."""
    shared.set("mary", status="busy", last_seen="2025-11-12T09:00:00+07:00")
    shared.apply()
    backup = six_agents("2025-11-11T07:00:00+07:00")
    backup["agents"]["mary"]["status"] = "yesterday's"
    shared.save(backup)
    plan = shared.diff()
    assert any("old cop" in note and "mary" in note for note in plan.notes)
    shared.apply()
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "busy"
    shared.assert_agree()


def test_a_field_that_only_an_old_copy_has_is_not_thrown_away(shared: Desk) -> None:
    """Nobody else ever heard of it, so there is nothing that could be newer."""
    shared.set("mary", status="busy", last_seen="2025-11-12T09:00:00+07:00")
    shared.apply()
    old = six_agents()
    old["agents"]["mary"]["insight"] = "from the attic"
    shared.save({**old, "last_update": "x"})
    shared.apply()
    assert (shared.live("mary")["status"], shared.live("mary")["insight"]) == ("busy", "from the attic")
    shared.assert_agree()


def test_two_programs_with_stale_copies_keep_each_others_edits(shared: Desk) -> None:
    """Each rewrites the whole file from the same copy, one after the other."""
    copy = json.dumps(shared.file())
    for name, status in (("gc", "one"), ("mary", "two"), ("rnd", "three")):
        data = json.loads(copy)
        data["agents"][name]["status"] = status
        shared.save(data)
        shared.apply()
    assert [shared.record(name)["status"] for name in ("gc", "mary", "rnd")] == ["one", "two", "three"]
    shared.assert_agree()


def test_a_program_that_stamps_the_files_header_is_understood_too(shared: Desk) -> None:
    """It sets the file's `last_update` to whole seconds, twice in the same second: that tells no versions apart."""
    first = shared.file()
    first["agents"]["mary"]["status"] = "one"
    first["last_update"] = "2025-11-12T09:00:00+07:00"
    shared.save(first)
    shared.apply()
    shared.hset("gc", status="busy")
    shared.apply()
    second = shared.file()
    second["agents"]["mary"]["status"] = "two"
    second["last_update"] = "2025-11-12T09:00:00+07:00"
    shared.hset("gc", status="done")
    shared.apply()
    shared.save(second)
    shared.apply()
    assert (shared.record("gc")["status"], shared.record("mary")["status"]) == ("done", "two")


@pytest.mark.parametrize("times", [{}, {"last_seen": True}, {"last_seen": True, "last_update": True}], ids=str)
def test_a_script_that_switches_to_and_fro_is_not_a_stale_copy(shared: Desk, times: dict[str, bool]) -> None:
    """`busy`, `idle`, `busy`: every turn is an edit, although the file comes nearer to its older versions."""
    for turn in range(6):
        status, task = (("busy", "x"), ("idle", ""))[turn % 2]
        now = dict.fromkeys(times, f"2025-11-12T09:00:{turn:02}+07:00")
        shared.set("mary", status=status, task=task, **now)
        shared.apply()
        assert (shared.live("mary")["status"], shared.live("mary")["task"]) == (status, task)


def test_a_script_may_set_back_what_live_memory_set(shared: Desk) -> None:
    """Live memory says busy; ten seconds later a script, which stamps everything itself, says active again."""
    shared.set("mary", task="-", note="-")
    shared.apply()
    shared.hset("mary", status="busy", task="x", note="y")
    shared.apply()
    shared.later(10)
    said = datetime.fromtimestamp(shared.now() // 1_000_000, UTC).isoformat()

    def set_back(data: dict[str, Any]) -> None:
        data["last_update"] = said
        data["agents"]["mary"].update(status="active", task="-", note="-", last_seen=said, last_update=said)

    shared.edit(set_back)
    shared.apply()
    assert [shared.live("mary")[name] for name in ("status", "task", "note")] == ["active", "-", "-"]


def test_a_live_update_of_the_same_record_is_not_lost_to_a_stale_copy(shared: Desk) -> None:
    """A script that says when it saw mary rewrites her record from a copy read before a live update of another
    of her fields: both stay."""
    copy = shared.file()
    shared.hset("mary", task="live")
    shared.apply()
    said = datetime.fromtimestamp(shared.now() // 1_000_000, UTC).isoformat()
    copy["agents"]["mary"].update(status="busy", last_seen=said)
    shared.save(copy)
    shared.apply()
    assert (shared.record("mary")["status"], shared.record("mary")["task"]) == ("busy", "live")
    shared.assert_agree()
