"""`export`: live state as manifests, so that to apply them changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import redis
import yaml

from tests.cli.shell import Shell, contents, stored

POLICIES = """\
apiVersion: reconciler/v1
kind: Agent
metadata: {name: mary, updated: 2025-11-12T08:00:00Z, labels: {team: dispatch}}
spec: {status: active, context: {role: dispatcher}}
policy: {context.role: pin, status: seed}
contextSchema: mary.context.schema.json
"""


@pytest.fixture
def odd(shell: Shell, client: redis.Redis) -> Shell:
    """A workspace with every kind of value, shared sections, a manifest with policies, and raw writes."""
    (shell.root / "manifests").mkdir()
    (shell.root / "manifests" / "mary.yaml").write_text(POLICIES)
    (shell.root / "manifests" / "mary.context.schema.json").write_text('{"type": "object"}')
    agents = {
        "mary": {"status": "busy", "last_seen": "2025-11-12T07:58:12+07:00", "context": {"no": "no", "1e5": "1e5"}},
        "rnd": {"insight": "a\u2028b\x85", "context": {"list": [1, 2.5, None, True], "deep": {"a": {"b": []}}, "": ""}},
        "empty": {"status": ""},
    }
    shell.write_context(agents, current_work={"a": 1}, status="up", paths={"home": "/here"})
    assert shell("apply").code == 0
    client.hset("memory:agents:gc", mapping={"status": "raw", "context": '{"big": 123456789012345678901234567890}'})
    assert shell("apply").code == 0
    return shell


def test_to_apply_what_was_exported_changes_nothing(odd: Shell, client: redis.Redis) -> None:
    """Valid, in sync, and neither a file nor a key moves; policies, labels and contextSchema are still there."""
    files, keys = contents(odd.root / "shared_memory"), stored(client)
    done = odd("export", "--to", odd.root / "manifests", "--force")
    assert (done.code, done.out) == (0, "")
    assert odd("validate").code == 0
    assert odd("diff").out == "In sync.\n"
    assert odd("apply").code == 0
    assert (contents(odd.root / "shared_memory"), stored(client)) == (files, keys)
    mary = yaml.safe_load((odd.root / "manifests" / "mary.yaml").read_text())
    assert mary["policy"] == {"context.role": "pin", "status": "seed"}
    assert mary["metadata"]["labels"] == {"team": "dispatch"}
    assert mary["contextSchema"] == "mary.context.schema.json"
    shared = yaml.safe_load((odd.root / "manifests" / "_shared.yaml").read_text())
    assert shared["spec"] == {"fields": {"current_work": {"a": 1}, "status": "up"}}


def test_what_is_written_between_export_and_apply_stays(odd: Shell, tmp_path: Path) -> None:
    """An exported value is no new write, however late its file is put in place."""
    assert odd("export", "gc", "--to", tmp_path / "out").code == 0
    assert odd("set", "gc", "status=newer").code == 0
    shutil.copy(tmp_path / "out" / "gc.yaml", odd.root / "manifests")
    assert odd("apply").code == 0
    assert odd("get", "gc").json["status"] == "newer"


def test_an_agent_is_not_declared_twice(odd: Shell) -> None:
    """The export into the folder of manifests is refused where another file declares the agent."""
    (odd.root / "manifests" / "mary.yaml").rename(odd.root / "manifests" / "people.yaml")
    refused = odd("export", "--to", odd.root / "manifests", "--force")
    assert refused.code == 4
    assert "mary is declared in manifests/people.yaml:1 already" in refused.err
    assert sorted(path.name for path in (odd.root / "manifests").glob("*.yaml")) == ["people.yaml"]


def test_a_file_of_several_agents_is_not_replaced_by_one(odd: Shell) -> None:
    """Also not with --force: the others would be gone."""
    path = odd.root / "manifests" / "mary.yaml"
    path.write_text(POLICIES + "---\n" + POLICIES.replace("mary", "other").replace("contextSchema", "# "))
    refused = odd("export", "mary", "--to", odd.root / "manifests", "--force")
    assert (refused.code, "declares other agents too" in refused.err) == (4, True)


def test_a_value_that_yaml_cannot_say_is_named(shell: Shell) -> None:
    """Everything else is exported; exit code 3."""
    shell.write_context({"mary": {"context": {"size": 1, "task": "x"}}})
    shell.context_file.write_text(shell.context_file.read_text().replace('"size": 1', '"size": 1E400'))
    shell("apply")
    done = shell("export", "mary")
    assert done.code == 3
    assert "mary context.size: YAML cannot say 1E400; left out" in done.err
    assert yaml.safe_load(done.out)["spec"]["context"] == {"task": "x"}


def test_an_agent_that_is_too_large_for_a_manifest_is_named(applied: Shell, tmp_path: Path) -> None:
    """It is printed, and not written where nobody could read it."""
    applied("set", "mary", "--json", "-", input='{"big": "' + "x" * (1 << 20) + '"}')
    assert applied("export", "mary").code == 0
    done = applied("export", "--to", tmp_path / "out")
    assert (done.code, "mary: not written, a manifest has 1 MiB at most" in done.err) == (3, True)
    assert applied("validate", tmp_path / "out").code == 0


def test_export_as_json(odd: Shell) -> None:
    """All manifests in one document; into a folder it writes YAML only."""
    found = odd("export", "mary", "@shared", "-o", "json").json
    assert found["schema_version"] == 1
    assert [document["kind"] for document in found["manifests"]] == ["Agent", "Shared"]
    assert odd("export", "--to", "x", "-o", "json").code == 2
