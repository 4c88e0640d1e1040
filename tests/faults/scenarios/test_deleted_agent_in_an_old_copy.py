"""A script rewrites the whole file from a copy that still has a deleted agent: the agent stays deleted."""

from __future__ import annotations

from tests.faults.scenarios.kit import another, hub
from tests.story.desk import Desk, six_agents


def test_deleted_agent_in_an_old_copy(shared: Desk) -> None:
    """And so does one that another workspace's file has not heard of yet."""
    other = another(shared)
    other.save(six_agents(), age=900)
    other.apply()
    copy = shared.file()
    with hub(shared) as memory:
        memory.delete_agent("mary")
    shared.apply()
    copy["agents"]["gc"]["status"] = "busy"
    shared.save(copy)
    for desk in (shared, other, shared):
        desk.apply()
    for desk in (shared, other):
        assert "mary" not in desk.file()["agents"]
        assert desk.record("gc")["status"] == "busy"
        desk.assert_agree()
    assert shared.live("mary") == {}
