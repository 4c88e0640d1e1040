"""SCRIPT FLUSH between any two writes: the script is sent again, and each write is made exactly once."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub, version
from tests.story.desk import Desk


def test_scripts_flushed(shared: Desk) -> None:
    """For one write and for a batch."""
    before = version(shared, "mary")
    with hub(shared) as memory:
        for number in range(5):
            shared.redis.script_flush()
            assert memory.update_agent_context("mary", {"n": number}).store == "redis"
        shared.redis.script_flush()
        done = memory.update_many([("mary", {"n": number}) for number in range(5, 25)])
    assert [one.version for one in done] == list(range(before + 6, before + 26))
    assert shared.live("mary")["context"] == {"n": 24}
