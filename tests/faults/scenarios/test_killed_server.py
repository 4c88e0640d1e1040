"""The server is killed under a hub: the next write is kept in the file, and reaches Redis by itself when it is back."""

from __future__ import annotations

from pathlib import Path

from tests.faults.real.server import trial_server
from tests.faults.scenarios.kit import hub, reaches_redis, six_on


def test_killed_server(tmp_path: Path) -> None:
    """Nobody has to do anything, and what was written before is there too."""
    with trial_server() as server, six_on(tmp_path, server.url) as desk, hub(desk) as memory:
        assert memory.update_agent_context("mary", {"before": 1}).store == "redis"
        server.kill()
        assert memory.update_agent_context("mary", {"meanwhile": 2}).store == "file"
        assert desk.record("mary")["context"]["meanwhile"] == 2
        server.start()
        reaches_redis(desk, "mary", before=1, meanwhile=2)
