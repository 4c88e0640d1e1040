"""DESIGN §5, rule 3, and §7: what is missing somewhere is rarely meant to be deleted."""

from __future__ import annotations

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.errors import Refused
from tests.story.desk import Desk


def test_a_field_taken_out_of_a_record_is_deleted(shared: Desk) -> None:
    """It goes from Redis too, and does not come back."""
    shared.set("mary", insight="x", context={"a": 1, "b": 2})
    shared.apply()

    def take_out(data: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        del data["agents"]["mary"]["insight"]
        del data["agents"]["mary"]["context"]["a"]

    shared.edit(take_out)
    assert shared.changes() == {"mary.insight > redis": ('"x"', None), "mary.context.a > redis": ("1", None)}
    shared.apply()
    assert "insight" not in shared.live("mary")
    assert shared.live("mary")["context"] == {"b": 2}
    shared.assert_agree()


def test_a_deleted_field_may_be_written_again(shared: Desk) -> None:
    """A newer write resurrects what a tombstone holds down."""
    shared.edit(lambda data: data["agents"]["mary"].pop("status"))
    shared.apply()
    shared.hset("mary", status="back")
    shared.apply()
    assert shared.record("mary")["status"] == "back"


def test_an_agent_gone_from_the_file_is_restored(shared: Desk) -> None:
    """Deleting is said with `reconciler delete`; the plan says what it puts back and how to delete instead."""
    shared.edit(lambda data: data["agents"].pop("mary"))
    plan = shared.diff()
    assert any("gone from context.json: mary" in note and "--prune" in note for note in plan.notes)
    shared.apply()
    assert shared.record("mary")["status"] == "active"
    shared.assert_agree()


def test_an_agent_gone_from_redis_is_restored(shared: Desk) -> None:
    """DEL of its hash is no deletion either."""
    shared.redis.delete("memory:agents:mary")
    assert any("gone from Redis: mary" in note for note in shared.diff().notes)
    shared.apply()
    assert shared.live("mary")["status"] == "active"
    shared.assert_agree()


def test_an_agent_gone_from_the_manifests_stays(shared: Desk) -> None:
    """A manifest that is taken away takes nothing with it, and the plan says so."""
    path = shared.manifest("zoe", "spec: {status: active}")
    shared.apply()
    path.unlink()
    plan = shared.diff()
    assert plan.in_sync
    assert any("manifest" in note and "zoe" in note and "--prune" in note for note in plan.notes)
    shared.apply()
    assert shared.live("zoe")["status"] == "active"


@pytest.mark.parametrize("where", ["file", "redis", "manifests"])
def test_prune_deletes_what_one_side_has_lost(shared: Desk, where: str) -> None:
    """With --prune the agent goes everywhere."""
    path = shared.manifest("mary", "spec: {status: active}", age=60)
    shared.apply()
    if where == "file":
        shared.edit(lambda data: data["agents"].pop("mary"))
    elif where == "redis":
        shared.redis.delete("memory:agents:mary")
    else:
        path.unlink()
    assert any("pruned" in note and "mary" in note for note in shared.diff(prune=True).notes)
    shared.apply(prune=True)
    assert "mary" not in shared.file()["agents"]
    assert shared.live("mary") == {}
    shared.assert_agree()


def test_prune_without_anything_gone_changes_nothing(shared: Desk) -> None:
    """It only acts on what a side had and lacks now."""
    before = shared.text()
    assert shared.apply(prune=True).plan.changes == ()
    assert shared.text() == before


def test_deleting_too_many_agents_is_refused_with_the_numbers(shared: Desk) -> None:
    """More than 30 % and more than 3 of six agents: nothing happens until it is forced."""

    def keep_two(data: dict[str, dict[str, object]]) -> None:
        data["agents"] = {name: data["agents"][name] for name in ("gc", "cls")}

    shared.edit(keep_two)
    before = shared.text()
    with pytest.raises(Refused, match=r"4 of 6 agents would be deleted.*--max-deletes 4"):
        shared.apply(prune=True)
    assert shared.text() == before
    assert shared.live("mary")["status"] == "active"
    shared.apply(prune=True, max_deletes="4")
    assert sorted(shared.file()["agents"]) == ["cls", "gc"]
    shared.assert_agree()


def test_an_empty_side_is_never_pruned_but_refilled(shared: Desk) -> None:
    """A wiped Redis with --prune would delete everything: refused; without it everything is back."""
    shared.redis.flushall()
    with pytest.raises(Refused, match="one side is empty"):
        shared.apply(prune=True, max_deletes="100%")
    assert len(shared.file()["agents"]) == 6
    shared.apply()
    shared.assert_agree()


def test_force_overrides_the_guards(shared: Desk) -> None:
    """--force means it."""
    shared.redis.flushall()
    shared.apply(prune=True, force=True)
    assert shared.file()["agents"] == {}
    assert shared.redis.keys("memory:agents:*") == []
    assert shared.diff().in_sync


def test_an_explicit_deletion_deletes(shared: Desk) -> None:
    """`reconciler delete mary`, or the hub: the agent goes from the file with the next round and stays gone."""
    with UnifiedMemoryHub(settings=shared.settings) as hub:
        hub.delete_agent("mary")
    shared.apply()
    assert "mary" not in shared.file()["agents"]
    assert shared.live("mary") == {}
    shared.assert_agree()


def test_a_stale_copy_does_not_bring_a_deleted_agent_back(shared: Desk) -> None:
    """Somebody rewrites the file from a copy that still has the agent: it is put right."""
    copy = shared.file()
    with UnifiedMemoryHub(settings=shared.settings) as hub:
        hub.delete_agent("mary")
    shared.apply()
    copy["agents"]["gc"]["status"] = "busy"
    shared.save(copy)
    shared.apply()
    assert "mary" not in shared.file()["agents"]
    assert shared.record("gc")["status"] == "busy"


def test_a_record_emptied_by_hand_leaves_no_husk(shared: Desk) -> None:
    """When its last value is taken out, an agent is deleted: no record that only says `last_update` remains."""
    shared.hset("mary", status="busy")
    shared.apply()
    assert "last_update" in shared.record("mary")
    shared.edit(lambda data: [data["agents"]["mary"].pop(key) for key in ("status", "last_seen")])
    shared.apply()
    assert "mary" not in shared.file()["agents"]
    assert shared.live("mary") == {}
    assert shared.diff().changes == ()


def test_a_context_taken_out_of_a_hash_by_hand_is_deleted(shared: Desk) -> None:
    """HDEL of a field is an edit: somebody asked for just that."""
    shared.set("mary", context={"a": 1}, insight="x")
    shared.apply()
    shared.redis.hdel("memory:agents:mary", "context", "insight")
    shared.apply()
    assert "insight" not in shared.record("mary")
    assert shared.record("mary").get("context", {}) == {}
    assert shared.diff().in_sync


def test_an_agent_that_an_edit_would_bring_back_is_deleted_again(shared: Desk) -> None:
    """No round has seen the edit when it is deleted for the second time, and Redis knows nothing of it."""
    with UnifiedMemoryHub(settings=shared.settings) as hub:
        hub.delete_agent("mary")
        shared.edit(lambda data: data["agents"]["mary"].update(status="edited", context={"task": "edited"}))
        hub.delete_agent("mary")
    shared.apply()
    assert shared.live("mary") == {}
    assert "mary" not in shared.file()["agents"]
    shared.assert_agree()
