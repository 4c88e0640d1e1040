"""After a failover the address leads to a read-only replica: a round says so and keeps files going; nothing is lost."""

from __future__ import annotations

from pathlib import Path

from tests.faults.scenarios.kit import hub, reaches_redis, six_on
from tests.servers import running


def test_read_only_replica(tmp_path: Path) -> None:
    """Made a master again, it learns the edit and the write."""
    with running() as server, six_on(tmp_path, server.url) as desk:
        desk.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        desk.set("gc", status="edited")
        done = desk.apply()
        assert done.exit_code == 3
        assert "replica" in "\n".join(done.refused)
        with hub(desk) as memory:
            assert memory.update_agent_context("mary", {"n": 1}).store == "file"
            desk.redis.execute_command("REPLICAOF", "NO", "ONE")
            reaches_redis(desk, "mary", n=1)
        desk.apply()
        assert desk.live("gc")["status"] == "edited"
        desk.assert_agree()
