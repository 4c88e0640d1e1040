"""DESIGN §5, rule 5, and §3: what a manifest says, when it counts, and which policy it asks for."""

from __future__ import annotations

import json

from tests.story.desk import Desk
from tests.story.test_times import stamp


def test_an_edited_manifest_without_a_time_has_the_files(desk: Desk) -> None:
    """The field that changed against base gets the file's mtime; the others are no write at all."""
    desk.manifest("mary", "spec: {status: active, context: {role: a}}", age=100)
    desk.apply()
    desk.hset("mary", status="busy")
    desk.apply()
    path = desk.manifest("mary", "spec: {status: active, context: {role: b}}")
    assert desk.changes() == {"mary.context.role > redis": ('"a"', '"b"'), "mary.context.role > file": ('"a"', '"b"')}
    desk.apply()
    assert stamp(desk, "mary", "context.role") == path.stat().st_mtime_ns // 1000
    assert desk.live("mary")["status"] == "busy"


def test_an_edited_manifest_with_a_time_has_that(desk: Desk) -> None:
    """`metadata.updated`, when it is given and moved; so an old opinion checked out today stays old."""
    desk.manifest("mary", "spec: {status: one}", metadata="updated: '2025-11-12T08:00:00.5Z'")
    desk.apply()
    assert stamp(desk, "mary", "status") == 1762934400500000
    desk.hset("mary", status="live")
    desk.apply()
    desk.manifest("mary", "spec: {status: two}", metadata="updated: '2025-11-13T08:00:00.5Z'")
    desk.apply()
    assert desk.live("mary")["status"] == "live"


def test_a_manifest_whose_time_did_not_move_has_the_files(desk: Desk) -> None:
    """Who edits the text and forgets `metadata.updated` is not held to have written a year ago."""
    desk.manifest("mary", "spec: {status: one}", metadata="updated: '2025-11-12T08:00:00.5Z'", age=100)
    desk.apply()
    desk.manifest("mary", "spec: {status: two}", metadata="updated: '2025-11-12T08:00:00.5Z'")
    desk.apply()
    assert desk.live("mary")["status"] == desk.record("mary")["status"] == "two"


def test_a_field_taken_out_of_a_manifest_is_deleted(desk: Desk) -> None:
    """As it would be in context.json, if nobody wrote it since."""
    desk.manifest("mary", "spec: {status: active, context: {role: a, note: x}}", age=100)
    desk.apply()
    desk.manifest("mary", "spec: {status: active, context: {role: a}}")
    desk.apply()
    assert desk.live("mary")["context"] == desk.record("mary")["context"] == {"role": "a"}


def test_follow_is_beaten_by_what_is_newer(desk: Desk) -> None:
    """The default: a manifest that still says `active` does not fight a live `busy`."""
    desk.manifest("mary", "spec: {status: active}", age=100)
    desk.apply()
    desk.hset("mary", status="busy")
    desk.apply()
    assert desk.live("mary")["status"] == desk.record("mary")["status"] == "busy"
    desk.assert_agree()


def test_pin_wins_over_everything(desk: Desk) -> None:
    """A pinned field is put back on both sides, whoever writes it and however new that is."""
    desk.manifest("mary", "spec: {context: {role: dispatcher}}\npolicy: {context.role: pin}", age=100)
    desk.apply()
    desk.redis.hset("memory:agents:mary", "context", json.dumps({"role": "pirate"}))
    desk.apply()
    assert desk.live("mary")["context"] == {"role": "dispatcher"}
    desk.edit(lambda data: data["agents"]["mary"]["context"].update(role="king"))
    desk.apply()
    assert desk.record("mary")["context"] == desk.live("mary")["context"] == {"role": "dispatcher"}
    desk.assert_agree()


def test_seed_only_fills_what_is_not_there(desk: Desk) -> None:
    """A seed gives a first value, never replaces one, and does not come back after a deletion."""
    desk.hset("mary", insight="live")
    desk.manifest("mary", "spec: {status: idle, fields: {insight: none}}\npolicy: {status: seed, insight: seed}")
    desk.apply()
    assert (desk.live("mary")["status"], desk.live("mary")["insight"]) == ("idle", "live")
    desk.edit(lambda data: data["agents"]["mary"].pop("status"))
    desk.apply()
    assert "status" not in desk.live("mary")
    desk.manifest("mary", "spec: {status: other, fields: {insight: none}}\npolicy: {status: seed, insight: seed}")
    desk.apply()
    assert "status" not in desk.live("mary")
    desk.assert_agree()


def test_one_bad_manifest_among_ten_hurts_itself_only(desk: Desk) -> None:
    """Nine are reconciled, the tenth keeps its last good word; the place is named and the exit code says so."""
    for number in range(10):
        desk.manifest(f"a{number}", f"spec: {{status: s{number}}}", age=100)
    desk.apply()
    for number in range(9):
        desk.manifest(f"a{number}", f"spec: {{status: t{number}}}")
    desk.manifest("a9", "spec: {status: [}")
    done = desk.apply()
    assert done.exit_code == 3
    assert [str(problem.place).partition(":")[0] for problem in done.plan.errors] == ["manifests/a9.yaml"]
    assert [desk.live(f"a{number}")["status"] for number in range(10)] == [*(f"t{n}" for n in range(9)), "s9"]
    assert desk.apply().exit_code == 3
    desk.manifest("a9", "spec: {status: t9}")
    assert desk.apply().exit_code == 0
    assert desk.live("a9")["status"] == "t9"


def test_a_misspelt_key_is_named_with_what_was_meant(desk: Desk) -> None:
    """Place, key and a suggestion; the agent is not half taken over."""
    desk.manifest("mary", "spec: {status: active, contxt: {role: x}}")
    done = desk.apply()
    assert done.exit_code == 3
    [problem] = done.plan.errors
    assert str(problem).startswith("manifests/mary.yaml:4:")
    assert "contxt" in str(problem) and "did you mean 'context'" in str(problem)
    assert desk.live("mary") == {}


def test_two_manifests_for_one_agent_are_an_error_that_names_both(desk: Desk) -> None:
    """Which of the two is meant cannot be told, so it is said; the first one, by path, stands."""
    desk.manifest("mary", "spec: {status: one}", name="a.yaml")
    desk.manifest("mary", "spec: {status: two}", name="b.yaml")
    done = desk.apply()
    assert done.exit_code == 3
    [problem] = done.plan.errors
    assert "manifests/a.yaml" in str(problem) and "manifests/b.yaml" in str(problem)
    assert desk.live("mary")["status"] == "one"


def test_two_manifests_whose_names_differ_in_case_are_two_for_one(desk: Desk) -> None:
    """On some file systems and for many readers Mary and mary are the same."""
    desk.manifest("Mary", "spec: {status: one}", name="a.yaml")
    desk.manifest("mary", "spec: {status: two}", name="b.yaml")
    done = desk.apply()
    assert done.exit_code == 3
    assert "Mary" in str(done.plan.errors) and "mary" in str(done.plan.errors)
    assert len(desk.file()["agents"]) == 1


def test_a_context_that_breaks_its_schema_is_not_copied(desk: Desk) -> None:
    """`contextSchema`: what breaks it stays where it is, named; everything else of the agent goes on."""
    schema = {"type": "object", "properties": {"role": {"enum": ["dispatcher", "driver"]}}}
    (desk.root / "manifests").mkdir()
    (desk.root / "manifests" / "mary.json").write_text(json.dumps(schema))
    desk.manifest("mary", "spec: {context: {role: dispatcher}}\ncontextSchema: mary.json", age=100)
    assert desk.apply().exit_code == 0
    desk.redis.hset("memory:agents:mary", mapping={"context": '{"role":"pirate"}', "status": "busy"})
    done = desk.apply()
    assert done.exit_code == 3
    assert "pirate" in str(done.plan.errors)
    assert desk.record("mary")["context"] == {"role": "dispatcher"}
    assert desk.record("mary")["status"] == "busy"
    assert any(held.agent == "mary" and held.direction == "file" for held in done.plan.withheld)
    desk.redis.hset("memory:agents:mary", "context", '{"role":"driver"}')
    assert desk.apply().exit_code == 0
    assert desk.record("mary")["context"] == {"role": "driver"}


def test_a_shared_manifest_declares_sections(desk: Desk) -> None:
    """`kind: Shared` speaks of the sections that all agents share."""
    path = desk.root / "manifests" / "shared.yaml"
    path.parent.mkdir()
    path.write_text("apiVersion: reconciler/v1\nkind: Shared\nmetadata: {}\nspec: {fields: {limits: {tokens: 5}}}\n")
    desk.apply()
    assert desk.file()["limits"] == {"tokens": 5}
    assert json.loads(desk.redis.hget("memory:shared", "limits")) == {"tokens": 5}
    assert desk.diff().in_sync


def test_many_documents_in_one_file(desk: Desk) -> None:
    """Each is a manifest of its own, and one bad one leaves the others alone."""
    good = "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: %s}\nspec: {status: %s}\n"
    path = desk.root / "manifests" / "all.yml"
    path.parent.mkdir()
    path.write_text("---\n".join([good % ("a", "one"), good % ("b", "[two]"), good % ("c", "three")]))
    done = desk.apply()
    assert done.exit_code == 3
    assert (desk.live("a")["status"], desk.live("b"), desk.live("c")["status"]) == ("one", {}, "three")


def test_a_manifest_that_comes_back_unchanged_is_no_write(desk: Desk) -> None:
    """Taken away and put back by a branch switch, it does not fight what came meanwhile."""
    path = desk.manifest("mary", "spec: {status: active}", age=100)
    desk.apply()
    path.unlink()
    desk.hset("mary", status="busy")
    desk.apply()
    desk.manifest("mary", "spec: {status: active}")
    assert desk.diff().in_sync
    desk.apply()
    assert desk.live("mary")["status"] == "busy"
