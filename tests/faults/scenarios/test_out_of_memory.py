"""The server is out of memory (OOM): reading goes on, writes are kept in the file until there is room."""

from __future__ import annotations

from pathlib import Path

from tests.faults.scenarios.kit import hub, reaches_redis, set_to, six_on
from tests.servers import running


def test_out_of_memory(tmp_path: Path) -> None:
    """Acknowledged in the file is acknowledged."""
    with running() as server, six_on(tmp_path, server.url) as desk, hub(desk) as memory:
        with set_to(desk, "maxmemory", "1"):
            assert memory.update_agent_context("mary", {"n": 1}).store == "file"
            assert desk.record("mary")["context"] == {"n": 1}
            assert memory.get_agent("mary")["status"] == "active"
        reaches_redis(desk, "mary", n=1)
