"""While Redis is away a drop comes and the context is replaced after it: the drop's key is history, and not live."""

from __future__ import annotations

from tests.faults.scenarios.kit import dropped, hub, hub_away, round_away
from tests.story.desk import Desk


def test_replaced_over_a_drop(shared: Desk) -> None:
    """Found by simulated histories: the round took the drop to Redis after what had deleted it."""
    dropped(shared, "mary", task="dropped")
    round_away(shared)
    with hub_away(shared) as memory:
        memory.update_agent_context("mary", {"n": 1}, replace=True)
    shared.apply()
    assert shared.live("mary")["context"] == shared.record("mary")["context"] == {"n": 1}
    with hub(shared) as memory:
        told = [change["new"] for event in memory.history("mary") for change in event.changes]
    assert "dropped" in told
    shared.assert_agree()
