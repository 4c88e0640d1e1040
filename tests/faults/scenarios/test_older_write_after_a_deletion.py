"""A write made before an agent was deleted arrives after it: the deletion wins, and the agent stays deleted."""

from __future__ import annotations

from tests.faults.scenarios.kit import another, hub, hub_away
from tests.story.desk import Desk, six_agents


def test_older_write_after_a_deletion(shared: Desk) -> None:
    """It was made on a machine that had no Redis then."""
    other = another(shared)
    other.save(six_agents(), age=900)
    other.apply()
    shared.set("mary", context={"task": "old"})
    for desk in (shared, other):
        desk.apply()
    with hub_away(other) as cut_off:
        cut_off.update_agent_context("mary", {"task": "before"}, status="before")
    with hub(shared) as memory:
        memory.delete_agent("mary")
    for desk in (shared, other, shared):
        desk.apply()
    assert shared.live("mary") == {}
    for desk in (shared, other):
        assert "mary" not in desk.file()["agents"]
