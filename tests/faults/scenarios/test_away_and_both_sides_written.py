"""While one machine has no Redis, another one writes there: each field keeps the newer word, and both kinds survive."""

from __future__ import annotations

from tests.faults.scenarios.kit import another, hub, hub_away
from tests.story.desk import Desk, six_agents


def test_away_and_both_sides_written(shared: Desk) -> None:
    """`task` was written on both sides, the other fields on one."""
    other = another(shared)
    other.save(six_agents(), age=900)
    other.apply()
    with hub_away(shared) as cut_off:
        cut_off.update_agent_context("mary", {"task": "older", "cut_off": True})
    with hub(other) as online:
        online.update_agent_context("mary", {"task": "newer", "online": True})
    for desk in (shared, other):
        desk.apply()
    for desk in (shared, other):
        assert desk.record("mary")["context"] == {"task": "newer", "cut_off": True, "online": True}
        desk.assert_agree()
