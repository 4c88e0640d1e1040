"""`explain` and `conflicts`: why a field has its value, and which values lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import redis

from reconciler import schema
from reconciler.errors import Place
from tests.cli.shell import Shell, listing, read_until
from tests.waiting import wait_until

AWAY = "redis://127.0.0.1:1"


def edit(shell: Shell, old: str, new: str, age: float = 0) -> None:
    """Another program's edit of `context.json`, saved so many seconds ago."""
    temp = shell.context_file.with_name("their.tmp")
    temp.write_text(shell.context_file.read_text().replace(old, new))
    os.utime(temp, (time.time() - age, time.time() - age))
    temp.replace(shell.context_file)


@pytest.fixture
def fought(applied: Shell, client: redis.Redis) -> Shell:
    """mary's role was edited in the file, and later by a plain HSET."""
    edit(applied, '"dispatcher"', '"driver"', age=5)
    client.hset("memory:agents:mary", "context", '{"role":"pilot"}')
    applied("apply")
    return applied


def test_explain_fits_ten_lines_and_tells_the_whole_story(fought: Shell) -> None:
    """Value, time and how it is known, every place, the policy, earlier values, and what lost."""
    found = fought("explain", "mary", "role")
    assert found.code == 0
    lines = found.out.splitlines()
    assert len(lines) <= 10
    told = {line.split()[0]: line for line in lines}
    assert lines[0] == 'mary context.role = "pilot"'
    assert told["written"].endswith("by raw")
    assert told["time"].split(maxsplit=1)[1].startswith("a plain HSET: when it was seen")
    assert "this write" in told["redis"] and "this write" in told["file"]
    assert '"dispatcher"  by manifests/mary.yaml' in told["manifest"]
    assert "older  manifests/mary.yaml:" in told["manifest"]
    assert "follow" in told["policy"]
    assert '"dispatcher"  by manifests/mary.yaml' in told["before"]
    assert '"driver"  by context.json' in told["lost"]


def test_explain_as_json_has_every_value_token_for_token(fought: Shell, client: redis.Redis) -> None:
    """With a schema_version; large numbers stay as they were written."""
    client.hset("memory:agents:mary", "context", '{"role":"pilot","size":1.10}')
    found = fought("explain", "mary", "context.size", "-o", "json")
    assert found.json["schema_version"] == 1
    assert '"value": 1.10' in found.out
    assert [holder["where"] for holder in found.json["holders"]] == ["redis"]
    role = fought("explain", "mary", "role", "-o", "json").json
    assert [(h["where"], h["standing"]) for h in role["holders"]] == [
        ("redis", "won"), ("file", "won"), ("manifest", "older"), ("base", "won"),
    ]  # fmt: skip
    assert [entry["value"] for entry in role["history"]] == ["pilot", "dispatcher"]
    assert [(c["lost"]["value"], c["won"]["by"]) for c in role["conflicts"]] == [("driver", "raw")]


def test_explain_says_how_a_stamp_was_obtained(applied: Shell, client: redis.Redis) -> None:
    """The mtime, the record's own time, the server's clock, a manifest's time, a hook's drop."""
    obtained = {}

    def note(field: str) -> None:
        obtained[field] = applied("explain", "mary", field, "-o", "json").json["obtained"]

    edit(applied, '"dispatcher"', '"driver"', age=1)
    applied("apply")
    note("role")
    data = applied.context()
    data["agents"]["mary"] |= {"last_seen": "2099-01-01T00:00:00Z", "insight": "x"}
    data["agents"]["mary"]["last_update"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    applied.context_file.write_text(json.dumps(data))
    note("insight")
    applied("set", "mary", "task=x")
    note("task")
    client.hset("memory:agents:mary", "mood", "good")
    note("mood")
    note("status")
    assert obtained == {
        "role": "an edit in context.json: the file's mtime",
        "insight": obtained["insight"],
        "task": "written through the program: by the clock of Redis, or of its machine while Redis was away",
        "mood": "a plain HSET: when it was seen, which is now: no round has taken it in yet",
        "status": "a manifest: the file's mtime",
    }
    assert "last_update" in obtained["insight"] or "mtime" in obtained["insight"]


def test_explain_knows_what_waits_in_the_spool(applied: Shell) -> None:
    """A drop that no round has taken in yet stands where it is, with its time."""
    assert applied("record", "mary", "--task", "WO-1").code == 0
    lines = {line.split()[0]: line for line in applied("explain", "mary", "last_task").out.splitlines()}
    assert lines["spool"] == 'spool     "WO-1"  this write'
    assert lines["time"].endswith("a hook, or `record`: when it dropped the result into the spool")
    assert "redis" not in lines


def test_explain_names_the_pin_and_what_is_withheld(applied: Shell) -> None:
    """A pin with its file and line; a reason for what a side does not learn."""
    path = applied.root / "manifests" / "mary.yaml"
    path.write_text(
        "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: mary}\n"
        "spec:\n  status: active\n  context:\n    role: driver\npolicy:\n  status: seed\n  context.role: pin\n"
        "contextSchema: mary.context.schema.json\n"
    )
    path.with_name("mary.context.schema.json").write_text('{"required": ["task"]}')
    applied("set", "mary", "role=pilot")
    found = applied("explain", "mary", "role")
    assert "pin: the manifest wins, whoever wrote when  manifests/mary.yaml:10" in found.out
    assert "withheld  not carried → redis: its context breaks mary.context.schema.json" in found.out
    assert "manifests/mary.yaml:7" in found.out
    assert "seed" in applied("explain", "mary", "status").out


def test_explain_works_on_files_while_redis_is_away(fought: Shell) -> None:
    """Exit code 5; it says that the history is in Redis."""
    fought.redis = AWAY
    found = fought("explain", "mary", "role")
    assert found.code == 5
    assert "the history is in Redis, which is away" in found.out
    assert 'mary context.role = "pilot"' in found.out
    assert fought("explain", "mary", "role", "-o", "json").json["redis"] == "away"


def test_explain_of_a_deleted_field(fought: Shell) -> None:
    """A deletion is a write too; what was there before is in the history."""
    fought("delete", "mary")
    found = fought("explain", "mary", "role")
    assert found.out.startswith("mary context.role is deleted\n")
    assert '"pilot"' in found.out


def test_what_nobody_knows_is_answered_with_a_near_name(fought: Shell) -> None:
    """Exit code 1 for an agent, a field and a conflict."""
    assert fought("explain", "mery", "role")[::2] == (1, "reconciler: no agent mery; did you mean mary?\n")
    assert fought("explain", "mary", "rolle")[::2] == (
        1, "reconciler: mary has no field rolle; did you mean context.role?\n",
    )  # fmt: skip
    assert fought("conflicts", "mery").code == 1
    assert fought("conflicts", "--restore", "7")[::2] == (
        1, "reconciler: no conflict 7; reconciler conflicts lists them\n",
    )  # fmt: skip
    assert fought("explain", "../x", "role").code == 2


def test_conflicts_lists_what_lost_and_what_won(fought: Shell) -> None:
    """Without asking Redis; nothing is written."""
    fought.redis = AWAY
    before = listing(fought.root)
    [row] = fought("conflicts", "-o", "json").json["conflicts"]
    assert (row["number"], row["agent"], row["field"], row["restored"]) == (1, "mary", "context.role", None)
    assert (row["lost"]["value"], row["lost"]["by"]) == ("driver", "context.json")
    assert (row["won"]["value"], row["won"]["by"]) == ("pilot", "raw")
    text = fought("conflicts", "mary")
    assert text.code == 0
    assert 'lost  "driver"  by context.json' in text.out
    assert fought("conflicts", "rnd").out == "No conflicts.\n"
    assert listing(fought.root) == before


def test_a_lost_value_is_restored_with_one_command(fought: Shell) -> None:
    """As a new write, which the next round brings to the file; it is marked, and can be restored again."""
    done = fought("conflicts", "--restore", "1")
    assert (done.code, done.out) == (0, "mary: context.role (version 3)\n")
    assert fought("get", "mary").json["context"] == {"role": "driver"}
    assert "restored" in fought("conflicts").out
    fought("apply")
    assert fought.context()["agents"]["mary"]["context"] == {"role": "driver"}
    assert fought("conflicts", "--restore", "1", "-o", "json").json["won"] == []
    assert [row["number"] for row in fought("conflicts", "-o", "json").json["conflicts"]] == [1]


def test_a_lost_value_is_restored_on_files_while_redis_is_away(fought: Shell) -> None:
    """Exit code 5; Redis learns it with the next round."""
    there = fought.redis
    fought.redis = AWAY
    done = fought("conflicts", "--restore", "1")
    assert (done.code, done.out) == (5, "mary: context.role written to files\n")
    assert fought.context()["agents"]["mary"]["context"] == {"role": "driver"}
    fought.redis = there
    fought("apply")
    assert fought("get", "mary").json["context"] == {"role": "driver"}
    assert [row["restored"] is not None for row in fought("conflicts", "-o", "json").json["conflicts"]] == [True]


def test_a_value_that_a_manifest_beat_is_restored_with_a_word_about_pins(applied: Shell) -> None:
    """Else one would wonder why it is gone again."""
    text = "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: mary}\nspec: {status: up}\npolicy: {status: pin}\n"
    (applied.root / "manifests" / "mary.yaml").write_text(text)
    applied("apply")
    applied("set", "mary", "status=down")
    applied("apply")
    done = applied("conflicts", "--restore", "1")
    assert done.code == 0
    assert "manifests/mary.yaml won: if it pins the field, the next round sets it back" in done.err


def test_watch_shows_conflicts(applied: Shell, client: redis.Redis) -> None:
    """`run` publishes each one that it decides; both writes are made while it is held."""
    with (
        applied.start("watch", "--event", "conflict", "--count", "1", "-o", "json") as watching,
        applied.start("run") as running,
    ):
        read_until(running, "Watching")
        wait_until(lambda: client.pubsub_numsub("memory:updates")[0][1] == 1, what="a subscriber")
        running.send_signal(signal.SIGSTOP)
        edit(applied, '"dispatcher"', '"driver"', age=60)
        client.hset("memory:agents:mary", "context", '{"role":"pilot"}')
        running.send_signal(signal.SIGCONT)
        assert watching.stdout
        event = json.loads(watching.stdout.readline())
        assert watching.wait(20) == 0
    assert schema.validate("event", event, lambda steps: (Place("event"), ""), source="event") == []
    assert (event["event"], event["agent"], event["data"]) == ("conflict", "mary", {})
    assert event["conflict"]["field"] == "context.role"


def test_no_workspace_has_no_conflicts(tmp_path: Path, server: str) -> None:
    """Before the first round there is nothing to show, and nothing is made."""
    shell = Shell(tmp_path, server)
    assert shell("conflicts")[:2] == (0, "No conflicts.\n")
    assert list(tmp_path.iterdir()) == []
