"""The server has no room for another client: who comes too late writes to the file, and Redis learns it later."""

from __future__ import annotations

from pathlib import Path

from tests.faults.scenarios.kit import hub, reaches_redis, set_to, six_on
from tests.servers import running


def test_too_many_clients(tmp_path: Path) -> None:
    """`maxclients` answers and hangs up, which is neither a refusal for good nor an empty memory."""
    with running() as server, six_on(tmp_path, server.url) as desk:
        with set_to(desk, "maxclients", "1"):
            memory = hub(desk)
            assert memory.update_agent_context("mary", {"n": 1}).store == "file"
        with memory:
            reaches_redis(desk, "mary", n=1)
