"""The server is loading its data (LOADING): nobody takes that for an empty memory, and writes are kept in the file."""

from __future__ import annotations

from pathlib import Path

from tests.faults.real.server import trial_server
from tests.faults.scenarios.kit import hub, reaches_redis, six_on
from tests.waiting import wait_until


def test_still_loading(tmp_path: Path) -> None:
    """A round done meanwhile is a round without Redis: exit code 5."""
    with trial_server() as server, six_on(tmp_path, server.url) as desk:
        with desk.redis.pipeline(transaction=False) as others:
            for number in range(40_000):
                others.set(f"memory:other:{number}", "x")
            others.execute()
        server.kill()
        # Answers come between thousands of commands of its log.
        server.options += ("--key-load-delay", "100")
        server.start(wait=False)
        wait_until(lambda: server.says().startswith(b"-LOADING"), what="a server that is loading")
        with hub(desk) as memory:
            assert memory.update_agent_context("mary", {"n": 1}).store == "file"
            assert desk.apply().exit_code == 5
            desk.redis.config_set("key-load-delay", 0)  # that much may be said while it loads
            wait_until(server.answers, what="the end of loading")
            reaches_redis(desk, "mary", n=1)
        desk.apply()
        assert len(desk.redis.keys("memory:agents:*")) == 6
        desk.assert_agree()
