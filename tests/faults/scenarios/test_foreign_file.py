"""Another program writes its own JSON to the path of `context.json`: it is named, left alone, and wipes nothing."""

from __future__ import annotations

from tests.faults.scenarios.kit import named, unchanged
from tests.story.desk import Desk

FOREIGN = b'{"name": "mcp-servers", "servers": {"memory": {"command": "npx"}}}\n'


def test_foreign_file(shared: Desk) -> None:
    """Valid JSON of the wrong shape is no empty memory."""
    ours = shared.path.read_bytes()
    shared.save(FOREIGN)
    shared.hset("mary", status="busy")
    done = shared.apply()
    assert done.exit_code == 3
    assert "agents" in named(done)
    assert unchanged(shared.path, FOREIGN)
    assert len(shared.redis.keys("memory:agents:*")) == 6
    shared.save(ours)
    shared.apply()
    assert shared.record("mary")["status"] == "busy"
    shared.assert_agree()
