"""The server loses all before any round has seen two updates: the durable one stands, the plain one is gone with it.

This is the line that the program does not go beyond: a plain update is in Redis' hands until a daemon has mirrored it.
"""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk


def test_wiped_server_and_acknowledged_writes(shared: Desk) -> None:
    """`durable=True` was on this machine's disk before Redis was asked."""
    with hub(shared) as memory:
        memory.update_agent_context("gc", {"plain": 1})
        memory.update_agent_context("mary", {"durable": 1}, durable=True)
        shared.redis.flushall()
    shared.apply()
    assert shared.live("mary")["context"] == shared.record("mary")["context"] == {"durable": 1}
    assert "context" not in shared.live("gc")
    shared.assert_agree()
