"""Unreadable is never empty: what cannot be read is named, everything else goes on, nothing is wiped."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.controller import Round
from reconciler.errors import UsageError
from reconciler.sources.desired import Sources
from tests.story.desk import Desk, six_agents

WHOLE = json.dumps(six_agents(), indent=2)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", ":1:1"),
        (b" \n\n", ":1:1"),
        (b'{"agents": {"mary": {"status": }}}', ":1:32"),
        (WHOLE[:200].encode(), ":10:"),
        (b"[1, 2]", ":1:1"),
        (b'"agents"', ":1:1"),
        (b"{}", ":1:1"),
        (b'{"agents": []}', ":1:2"),
        (b'{"agents": {}} {}', ":1:16"),
        (b'{"agents": {"mary": 1, "mary": 2}}', ":1:24"),
        (b'{"agents": {}, "agents": {}}', ":1:16"),
        (b'{"agents": {"mary": {"status": NaN}}}', ":1:"),
        (WHOLE.encode("utf-16"), ":1:1"),
        (b'{"agents": {"mary": {"status": "\xff"}}}', ":1:33"),
        (b"[" * 100_000, ":1:1"),
        (b'{"agents": {}, "x": ' + b"9" * 5000 + b"}", ":1:21"),
    ],
    ids=["empty", "blank", "corrupt", "truncated", "an array", "a string", "no agents", "agents an array", "two values",
         "an agent twice", "agents twice", "NaN", "UTF-16", "not UTF-8", "brackets", "5,000 digits"],
)  # fmt: skip
def test_an_unusable_file_wipes_nothing(shared: Desk, content: bytes, place: str) -> None:
    """The place is named, Redis keeps everything, manifests go on, and the file is left to be mended."""
    shared.save(content)
    shared.manifest("zoe", "spec: {status: active}")
    done = shared.apply()
    assert done.exit_code == 3
    [problem] = done.plan.errors
    assert str(problem.place).startswith("shared_memory/context.json" + place)
    assert shared.path.read_bytes() == content
    assert shared.live("mary")["status"] == shared.live("zoe")["status"] == "active"
    assert not shared.diff().in_sync
    shared.save(WHOLE)
    assert shared.apply().exit_code == 0
    assert shared.record("zoe")["status"] == "active"
    shared.assert_agree()


def test_live_updates_wait_for_an_unusable_file(shared: Desk) -> None:
    """What comes while the file cannot be read is written to it as soon as it can."""
    shared.save(b"{")
    shared.hset("mary", status="busy")
    shared.apply()
    shared.save(WHOLE)
    shared.apply()
    assert shared.record("mary")["status"] == "busy"
    shared.assert_agree()


def test_a_missing_file_is_written_again(shared: Desk) -> None:
    """From the last good state, with a note that says so."""
    shared.path.unlink()
    done = shared.apply()
    assert done.exit_code == 0
    assert any("lost or emptied" in note for note in done.plan.notes)
    assert {name: record["status"] for name, record in shared.file()["agents"].items()} == dict.fromkeys(
        six_agents()["agents"], "active"
    )
    assert shared.file()["token_usage"] == {"total": 0, "saved": 0}
    shared.assert_agree()


@pytest.mark.parametrize("content", [b'{"agents": {}}', b'{"version": "1.0", "agents": {}, "note": "mine"}'])
def test_a_file_without_a_single_agent_has_lost_them(shared: Desk, content: bytes) -> None:
    """An empty `agents` is no deletion of all agents: they are put back, and what else it says stays."""
    shared.save(content)
    done = shared.apply()
    assert done.exit_code == 0
    assert any("lost or emptied" in note for note in done.plan.notes)
    assert len(shared.file()["agents"]) == 6
    assert shared.file().get("note") == json.loads(content).get("note")
    assert shared.live("mary")["status"] == "active"
    assert shared.diff().in_sync


def test_a_folder_in_the_files_place_is_named(desk: Desk) -> None:
    """No traceback: a place, a reason, a way out."""
    desk.path.mkdir(parents=True)
    desk.manifest("mary", "spec: {status: active}")
    done = desk.apply()
    assert done.exit_code == 3
    assert "folder" in str(done.plan.errors[0])
    assert desk.live("mary")["status"] == "active"


@pytest.mark.parametrize(
    "record",
    [["a"], 5, None, {"status": 5}, {"status": None}, {"context": [1]}, {"context": "no json"}, {"last_seen": {}},
     {"context.x": 1}],
    ids=str,
)  # fmt: skip
def test_a_record_that_cannot_be_read_hurts_one_agent(shared: Desk, record: object) -> None:
    """It is named and left as it is; base stands in for it, and the others go on."""
    data = shared.file()
    data["agents"]["mary"] = record
    data["agents"]["gc"]["status"] = "busy"
    shared.save(data)
    done = shared.apply()
    assert done.exit_code == 3
    assert {problem.agent for problem in done.plan.errors} == {"mary"}
    assert shared.live("gc")["status"] == "busy"
    assert shared.live("mary")["status"] == "active"
    assert shared.record("gc")["status"] == "busy"
    assert shared.file()["agents"]["mary"] == record
    shared.hset("cls", status="done")
    shared.apply()
    assert shared.record("cls")["status"] == "done"
    assert shared.file()["agents"]["mary"] == record


def test_an_illegal_name_is_named_and_left_alone(shared: Desk) -> None:
    """Keys in Redis are made of names; what cannot be one stays in the file, untouched."""
    for name in ("../x", "a:b", "{a}", "", "x" * 65, "ü"):
        shared.set(name, status="odd")
    done = shared.apply()
    assert done.exit_code == 3
    assert len(done.plan.errors) == 6
    assert len(shared.redis.keys("memory:agents:*")) == 6
    assert shared.file()["agents"]["../x"] == {"status": "odd"}


def test_what_cannot_be_read_is_told_until_it_can(shared: Desk) -> None:
    """Also by who keeps what he wrote himself, as `run` does: a live update is written around it."""
    sources = Sources()

    def apply() -> Round:
        return shared.round(lambda one: replace(one, sources=sources))

    assert apply().exit_code == 0
    shared.edit(lambda data: data["agents"].update(mary=[1]))
    for word in ("busy", "idle", "idle"):
        shared.hset("rnd", status=word)
        done = apply()
        assert done.exit_code == 3 and "expected an object" in str(done.plan.errors)
        assert shared.record("rnd")["status"] == word
    shared.edit(lambda data: data["agents"].update(mary={"status": "mended"}))
    assert apply().exit_code == 0
    assert shared.live("mary")["status"] == "mended"


@pytest.mark.parametrize("newcomer", ["MARY", "mARY"])
def test_names_that_differ_only_in_case_are_not_two_agents(shared: Desk, newcomer: str) -> None:
    """The known one stays, the newcomer is named; in the file or in Redis."""
    shared.edit(lambda data: data["agents"].update({newcomer: {"status": "odd"}}))
    assert shared.apply().exit_code == 3
    assert shared.live(newcomer) == {}
    assert shared.live("mary")["status"] == "active"
    shared.edit(lambda data: data["agents"].pop(newcomer))
    shared.hset(newcomer, status="odd")
    done = shared.apply()
    assert done.exit_code == 3
    assert newcomer in str(done.plan.errors)
    assert newcomer not in shared.file()["agents"]


@pytest.mark.parametrize("newcomer", ["MARY", "mARY"])
def test_the_name_of_a_deleted_agent_is_free_in_any_letters(shared: Desk, newcomer: str) -> None:
    """Nobody could rename an agent that is not there; and the deleted one stays deleted."""
    with UnifiedMemoryHub(settings=shared.settings) as hub:
        hub.delete_agent("mary")
    assert shared.apply().exit_code == 0
    shared.set(newcomer, status="new")
    for _ in range(2):
        assert shared.apply().exit_code == 0
    assert shared.live(newcomer)["status"] == "new"
    assert shared.live("mary") == {} and "mary" not in shared.file()["agents"]
    nobody = replace(shared.settings, redis=f"unix://{shared.root}/nobody")
    with UnifiedMemoryHub(settings=nobody) as hub:
        hub.update_agent_context("rnd", {"a": 1})  # after it only what is written is looked at
        with pytest.raises(UsageError, match="letters' case"):
            hub.update_agent_context("mary", {"a": 1})
    shared.hset("mary", status="again")
    done = shared.apply()
    assert done.exit_code == 3 and "agent mary differs" in str(done.plan.errors)
    assert (shared.record(newcomer)["status"], shared.live(newcomer)["status"]) == ("new", "new")


@pytest.mark.parametrize(
    ("record", "status", "context"),
    [
        ("busy", "busy", {}),
        ({"status": "busy", "context": '{"a": 1}'}, "busy", {"a": 1}),
        ({"status": "busy", "context": '"{\\"a\\": 1}"'}, "busy", {"a": 1}),
        ({"status": "busy", "context": None}, "busy", {}),
        ({"status": "busy", "last_update": "2025-11-12T08:00:00"}, "busy", {}),
        ({"status": "busy", "last_seen": "2025-11-12T08:00:00Z"}, "busy", {}),
    ],
    ids=["a bare string", "context as text", "context as text twice", "no context", "naive", "only last_seen"],
)
def test_older_shapes_are_read_with_a_warning(
    desk: Desk, record: object, status: str, context: dict[str, object]
) -> None:
    """They are put right when they are next written, not refused."""
    desk.save({"agents": {"mary": record}})
    done = desk.apply()
    assert done.exit_code == 0
    assert done.plan.errors == ()
    warned = not isinstance(record, dict) or "last_update" in record or isinstance(record.get("context"), str)
    assert bool(done.plan.problems) == warned
    assert (desk.live("mary")["status"], desk.live("mary").get("context", {})) == (status, context)
    assert desk.diff().in_sync
    desk.hset("mary", status="done", insight="x")
    desk.apply()
    assert desk.record("mary")["status"] == "done"
    assert (desk.record("mary").get("context") or {}) == context
    assert desk.diff().in_sync


def test_a_live_hash_that_cannot_be_read_is_not_copied(shared: Desk) -> None:
    """A key of another type, bytes that are no text, a context that is no object: named, and the others go on."""
    shared.redis.delete("memory:agents:gc")
    shared.redis.set("memory:agents:gc", "a string")
    shared.redis.hset("memory:agents:cls", "insight", b"\xff\xfe")
    shared.redis.hset("memory:agents:gg", mapping={"context": "[1]", "status": "busy"})
    shared.hset("mary", status="busy")
    done = shared.apply()
    assert done.exit_code == 3
    assert {problem.agent for problem in done.plan.errors} == {"gc", "cls", "gg"}
    assert shared.record("gc")["status"] == "active"
    assert shared.record("gg")["status"] == shared.record("mary")["status"] == "busy"
