"""The server cannot save its snapshot and takes no writes (MISCONF): they are kept in the file until it can again.

Such a server refuses even PING, and can be read all the same: who comes meanwhile is let in.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.store.listening import Line
from tests.faults.scenarios.kit import hub, reaches_redis, six_on
from tests.servers import running
from tests.waiting import wait_until


def test_snapshot_failed(tmp_path: Path) -> None:
    """A folder stands where the snapshot should go."""
    with running("--save", "3600 1") as server, six_on(tmp_path, server.url) as desk, hub(desk) as memory:
        (server.folder / "dump.rdb" / "in the way").mkdir(parents=True)
        desk.redis.bgsave()
        wait_until(lambda: desk.redis.info("persistence")["rdb_last_bgsave_status"] == "err", what="a failed save")
        assert memory.update_agent_context("mary", {"n": 1}).store == "file"
        line = Line(desk.redis.connection_pool)
        line.ask()
        assert line.answers() == []
        line.close()
        with hub(desk) as late:
            assert late.get_agent("gc")["status"] == "active"
            assert late.update_agent_context("gc", {"n": 2}).store == "file"
        desk.redis.config_set("stop-writes-on-bgsave-error", "no")
        reaches_redis(desk, "mary", n=1)
        reaches_redis(desk, "gc", n=2)
