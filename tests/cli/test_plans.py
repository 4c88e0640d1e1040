"""`apply --plan`: exactly what was reviewed, or nothing. And the guards that refuse what deletes too much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from tests.cli.shell import Shell, contents, stored


def shared(shell: Shell) -> dict[str, bytes]:
    """The files of the workspace that are not this program's own."""
    return {name: data for name, data in contents(shell.root).items() if "/.reconciler/" not in name}


def test_the_reviewed_plan_is_applied(six: Shell, tmp_path: Path) -> None:
    """From a file, from stdin; afterwards all is in sync."""
    plan = six("diff", "-o", "json").out
    (tmp_path / "plan.json").write_text(plan)
    done = six("apply", "--plan", tmp_path / "plan.json")
    assert (done.code, done.err) == (0, "")
    assert six("diff").code == 0
    six("set", "mary", "task=x")
    assert six("apply", "--plan", "-", input=six("diff", "-o", "json").out).code == 0
    assert six.context()["agents"]["mary"]["context"]["task"] == "x"


def test_every_value_of_a_plan_survives_the_review_token_for_token(shell: Shell) -> None:
    """What JSON can write in several ways is not taken for something that moved."""
    values = '{"a":1.10,"b":1E400,"c":-0.0,"d":12345678901234567890123,"e":"\\u00fc","f":[{"z":1,"a":null}],"g":null}'
    shell.context_file.parent.mkdir()
    shell.context_file.write_text('{"agents":{"mary":{"status":"active","context":' + values + "}}}")
    plan = shell("diff", "-o", "json").out
    assert "1.10" in plan
    assert "1E400" in plan
    done = shell("apply", "--plan", "-", input=plan)
    assert (done.code, done.err) == (0, "")
    assert "1.10" in shell("get", "mary").out


def test_a_raw_write_may_be_reviewed(applied: Shell, client: redis.Redis) -> None:
    """It is stamped when it is seen, so its time differs at each look; that is no reason to refuse it."""
    client.hset("memory:agents:mary", "status", "busy")
    assert applied("apply", "--plan", "-", input=applied("diff", "-o", "json").out).code == 0
    assert applied.context()["agents"]["mary"]["status"] == "busy"


def test_what_moved_since_the_review_is_said_and_nothing_is_done(six: Shell, client: redis.Redis) -> None:
    """Exit code 4; what is new and what is no longer planned, each on its line."""
    plan = six("diff", "-o", "json").out
    six.write_manifest("mary", "busy", role="dispatcher")
    before = shared(six), stored(client)
    refused = six("apply", "--plan", "-", input=plan)
    assert (refused.code, refused.out) == (4, "")
    moved = refused.err.splitlines()
    assert moved[0] == "reconciler: the plan is not the reviewed one:"
    assert [line.partition(": mary.status")[0] for line in moved[1:-1]] == ["  no longer planned"] * 2 + [
        "  new since"
    ] * 2
    assert moved[-1] == "review a new diff"
    assert (shared(six), stored(client)) == before


def test_a_plan_of_one_agent_is_not_the_plan_of_all(six: Shell) -> None:
    """Exactly means exactly: what was not shown to the reviewer is not done."""
    refused = six("apply", "--plan", "-", input=six("diff", "mary", "-o", "json").out)
    assert refused.code == 4
    assert "new since: gc.status" in refused.err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "plan",
        "{}",
        '{"schema_version": 1}',
        '{"schema_version": 2, "changes": []}',
        '{"schema_version": 1, "changes": 5}',
        '{"schema_version": 1, "changes": {}}',
        '{"schema_version": 1, "changes": [5]}',
        '{"schema_version": 1, "changes": [{}]}',
        '{"schema_version": 1, "changes": [{"agent": NaN}]}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:50],
)
def test_a_file_that_is_no_plan_is_a_usage_error(six: Shell, text: str) -> None:
    """One line with the way to a plan; nothing is touched."""
    refused = six("apply", "--plan", "-", input=text)
    assert refused == (2, "", "reconciler: --plan -: not a plan; make one with: reconciler diff -o json\n")
    assert not (six.root / ".reconciler").exists()


def test_pruning_a_few_agents_is_allowed_and_without_it_they_are_restored(applied: Shell) -> None:
    """A vanished record is no deletion unless somebody says so."""
    agents = applied.context()["agents"]
    del agents["rnd"]
    (applied.root / "manifests" / "rnd.yaml").unlink()
    applied.write_context(agents)
    found = applied("diff")
    assert found.code == 1
    assert "gone from context.json: rnd: restored (--prune deletes instead)" in found.out
    assert applied("diff", "--prune").code == 1
    assert applied("apply", "--prune").code == 0
    assert "rnd" not in applied("get").json["agents"]


def test_deleting_more_than_the_limit_is_refused_with_numbers_and_flag(applied: Shell, client: redis.Redis) -> None:
    """Four of six are too many; --max-deletes or --force let them go."""
    agents = {name: record for name, record in applied.context()["agents"].items() if name in ("mary", "gc")}
    for path in (applied.root / "manifests").iterdir():
        if path.stem not in agents:
            path.unlink()
    applied.write_context(agents)
    before = shared(applied), stored(client)
    refused = applied("apply", "--prune")
    assert (refused.code, refused.out) == (4, "")
    assert "4 of 6 agents would be deleted" in refused.err
    assert "--max-deletes 4" in refused.err
    assert (shared(applied), stored(client)) == before
    assert applied("apply", "--prune", "--max-deletes", "3").code == 4
    assert applied("apply", "--prune", "--max-deletes", "4").code == 0
    assert sorted(applied("get").json["agents"]) == ["gc", "mary"]


def test_pruning_against_an_empty_side_is_refused_unless_forced(applied: Shell, client: redis.Redis) -> None:
    """A wiped server is refilled, not obeyed."""
    client.flushall()
    refused = applied("apply", "--prune")
    assert refused.code == 4
    assert "one side is empty" in refused.err
    assert "--force" in refused.err
    assert not stored(client)
    assert applied("apply", "--prune", "--force").code == 0
    assert applied("get").json["agents"] == {}


@pytest.mark.parametrize("limit", ["", "many", "-1", "101%", "1.5", "%"])
def test_a_limit_that_is_none_is_a_usage_error(six: Shell, limit: str) -> None:
    """Told before anything is touched."""
    refused = six("apply", "--max-deletes", limit)
    assert refused.code == 2
    assert "say 30% or 5" in refused.err
    assert not (six.root / ".reconciler").exists()


def test_a_flushed_server_is_refilled_with_its_versions_going_on(applied: Shell, client: redis.Redis) -> None:
    """Nothing is removed from the file."""
    applied("set", "mary", "task=x")
    applied("apply")
    before = shared(applied)
    client.flushall()
    done = applied("apply")
    assert done.code == 0
    assert "Redis was wiped or restored" in done.out
    assert json.loads(client.hget("memory:agents:mary", "context") or "")["task"] == "x"
    assert applied("set", "mary", "task=y", "-o", "json").json["version"] > 3
    assert shared(applied) == before


def test_the_first_run_asks_the_files_or_redis_when_told_to(shell: Shell, client: redis.Redis) -> None:
    """Undated values lose to live ones by default."""
    client.hset("memory:agents:mary", "status", "busy")
    shell.write_context({"mary": {"status": "idle"}})
    assert '"idle" → "busy"  → file' in shell("diff").out
    assert '"busy" → "idle"  → redis' in shell("diff", "--first-run", "files").out
    assert shell("apply", "--first-run", "files").code == 0
    assert client.hget("memory:agents:mary", "status") == b"idle"
