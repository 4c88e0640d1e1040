"""What a round is for: whoever writes where, everybody ends up with the same."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler import UnifiedMemoryHub, schema
from reconciler.errors import Place
from tests.story.desk import Desk, set_age, six_agents
from tests.waiting import wait_until


def test_a_file_meets_an_empty_server(desk: Desk) -> None:
    """Redis learns every agent as plain fields; the file, in which nothing changed, keeps every byte."""
    desk.save(six_agents())
    before = desk.path.read_bytes()
    plan = desk.diff()
    assert {change.agent for change in plan.changes} >= {"gc", "cls", "gg", "mary", "rnd", "claude"}
    assert {change.direction for change in plan.changes} == {"redis"}
    assert desk.apply().exit_code == 0
    assert desk.path.read_bytes() == before
    mary = desk.live("mary")
    assert (mary["status"], mary["last_seen"]) == ("active", "2025-11-12T07:58:12+07:00")
    desk.assert_agree()


def test_diff_writes_nothing_anywhere(desk: Desk) -> None:
    """Not a file, not a folder, not a key."""
    desk.save(six_agents())
    desk.hset("mary", status="busy")
    files = tree(desk.root)
    assert not desk.diff().in_sync
    assert tree(desk.root) == files
    assert desk.redis.keys() == ["memory:agents:mary"]


def test_a_diff_of_a_known_workspace_writes_nothing_either(shared: Desk) -> None:
    """Also when there is a base, an edit and a raw write to look at."""
    shared.hset("mary", status="busy")
    shared.set("gc", status="idle")
    files, before = tree(shared.root), dump(shared)
    assert not shared.diff().in_sync
    assert tree(shared.root) == files
    assert dump(shared) == before


def dump(desk: Desk) -> dict[str, str]:
    """All that Redis holds."""
    return {key: desk.redis.dump(key) for key in desk.redis.scan_iter()}


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    }


def test_three_hands_write_in_three_places(desk: Desk) -> None:
    """A manifest, an HSET and context.json change three fields of one agent: one apply lands all on both sides,
    and a subscriber hears schema-valid events with exactly those changes."""
    desk.manifest("mary", "spec: {status: active, context: {role: dispatcher}}", age=50)
    desk.save({"agents": {"mary": {"insight": "none"}}}, age=50)
    desk.apply()
    desk.manifest("mary", "spec: {status: active, context: {role: driver}}")
    desk.hset("mary", status="busy")
    desk.set("mary", insight="rain")
    with desk.redis.pubsub() as heard:
        heard.subscribe("memory:updates")
        wait_until(heard.get_message, what="the answer to SUBSCRIBE")
        desk.apply()
        events = [json.loads(text) for text in messages(heard)]
    assert desk.record("mary")["status"] == desk.live("mary")["status"] == "busy"
    assert desk.record("mary")["insight"] == desk.live("mary")["insight"] == "rain"
    assert desk.record("mary")["context"] == desk.live("mary")["context"] == {"role": "driver"}
    changes = [(c["field"], c["op"], c["old"], c["new"]) for event in events for c in event["changes"]]
    assert sorted(changes) == [
        ("context.role", "update", "dispatcher", "driver"),
        ("insight", "update", "none", "rain"),
        ("status", "update", "active", "busy"),
    ]
    for event in events:
        assert schema.validate("event", event, lambda path: (Place("event"), ""), source="event") == []
    assert [event["version"] for event in events] == list(range(2, 2 + len(events)))
    desk.assert_agree()


def messages(heard: Any) -> list[str]:
    found: list[str] = []
    while message := heard.get_message(timeout=0.05):
        found.append(message["data"])
    return found


def test_a_wiped_server_is_filled_again(shared: Desk) -> None:
    """FLUSHALL, then apply: everything is back, its versions go on, and nothing is removed from the file."""
    shared.hset("mary", status="busy")
    shared.apply()
    before, known = shared.path.read_bytes(), versions(shared)
    shared.redis.flushall()
    done = shared.apply()
    assert any("wiped" in note for note in done.plan.notes)
    assert shared.path.read_bytes() == before
    assert shared.live("mary")["status"] == "busy"
    assert versions(shared) == {key: version + 1 for key, version in known.items()}
    shared.assert_agree()


def versions(desk: Desk) -> dict[str, int]:
    return {key: int(desk.redis.hget(key, "version")) for key in desk.redis.keys("memory:meta:*")}


def test_touching_and_checking_out_files_changes_nothing(desk: Desk) -> None:
    """A manifest and a context.json with new times but old content do not fight values that came later."""
    path = desk.manifest("mary", "spec: {status: active}", age=40)
    desk.save({"agents": {"gc": {"status": "active"}}}, age=40)
    desk.apply()
    desk.hset("mary", status="busy")
    desk.hset("gc", status="busy")
    desk.apply()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    set_age(desk.path, 0)
    assert desk.diff().in_sync
    assert desk.changes() == {}
    desk.apply()
    assert desk.live("mary")["status"] == desk.record("gc")["status"] == "busy"


def test_only_a_time_that_moved_is_carried_but_still_in_sync(shared: Desk) -> None:
    """`last_seen` alone is no difference that counts; apply takes it over all the same."""
    shared.set("mary", last_seen="2025-11-12T09:00:00+07:00")
    assert shared.diff().in_sync
    shared.apply()
    assert shared.live("mary")["last_seen"] == "2025-11-12T09:00:00+07:00"


def test_shared_sections_are_shared_and_local_ones_stay(desk: Desk) -> None:
    """Top-level sections live in `memory:shared`, both ways; `paths` describes this machine and never leaves."""
    desk.save(six_agents())
    desk.apply()
    found = desk.redis.hgetall("memory:shared")
    assert json.loads(found["token_usage"]) == {"total": 0, "saved": 0}
    assert "paths" not in found
    desk.redis.hset("memory:shared", "token_usage", '{"total": 7, "saved": 1}')
    desk.apply()
    assert desk.file()["token_usage"] == {"total": 7, "saved": 1}
    desk.edit(lambda data: data.update(current_work={"task": "x"}, paths={"sot": "/elsewhere"}))
    desk.apply()
    assert json.loads(desk.redis.hget("memory:shared", "current_work")) == {"task": "x"}
    assert desk.file()["paths"] == {"sot": "/elsewhere"}
    assert desk.diff().in_sync


def test_a_symlinked_folder_stays_one(desk: Desk) -> None:
    """`shared_memory` may lead elsewhere; the file is replaced there and the link is left alone."""
    elsewhere = desk.root / "elsewhere"
    elsewhere.mkdir()
    os.symlink(elsewhere, desk.root / "shared_memory")
    desk.save(six_agents())
    desk.apply()
    desk.hset("mary", status="busy")
    desk.apply()
    assert (desk.root / "shared_memory").is_symlink()
    assert json.loads((elsewhere / "context.json").read_bytes())["agents"]["mary"]["status"] == "busy"


def test_a_section_that_becomes_local_stays_in_each_file_and_is_no_deletion(desk: Desk) -> None:
    """What `local_sections` names never leaves the file and never comes into it, also when the setting changes."""
    desk.save({**six_agents(), "tools": {"jq": "/usr/bin/jq"}})
    desk.apply()
    desk.later(60)
    desk.apply()
    desk.settings = replace(desk.settings, local_sections=("paths", "tools"))
    desk.redis.hset("memory:shared", "tools", '{"jq": "of another machine"}')
    assert desk.apply().exit_code == 0
    assert json.loads(desk.path.read_bytes())["tools"] == {"jq": "/usr/bin/jq"}
    assert json.loads(desk.redis.hget("memory:shared", "tools")) == {"jq": "of another machine"}
    assert desk.diff().in_sync


def test_the_python_class_reads_what_it_wrote(desk: Desk) -> None:
    """Keys are merged, the status is left alone, and the whole memory has the shape of the file."""
    desk.save(six_agents())
    desk.apply()
    with UnifiedMemoryHub(settings=desk.settings) as hub:
        done = hub.update_agent_context("mary", {"task": {"id": 7}})
        assert (done.won, done.store) == (("context.task",), "redis")
        mary = hub.get_agent("mary")
        assert (mary["status"], mary["context"]) == ("active", {"task": {"id": 7}})
        assert hub.get_unified_context()["agents"]["mary"] == mary
