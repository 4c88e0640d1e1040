"""A machine that was cut off wrote a new field of an agent deleted since: that field alone comes back.

A deletion is a tombstone for each field that is known where it is made; what nobody there had heard of, nobody deleted.
"""

from __future__ import annotations

from tests.faults.scenarios.kit import another, hub, hub_away
from tests.story.desk import Desk, six_agents


def test_field_that_no_deletion_knew(shared: Desk) -> None:
    """An acknowledged write is not thrown away by one that could not have meant it."""
    other = another(shared)
    other.save(six_agents(), age=900)
    other.apply()
    with hub_away(other) as cut_off:
        cut_off.update_agent_context("mary", {"unheard": "of"}, status="before")
    with hub(shared) as memory:
        memory.delete_agent("mary")
    for desk in (shared, other, shared):
        desk.apply()
    for desk in (shared, other):
        record = desk.record("mary")
        assert record["context"] == {"unheard": "of"}
        assert "status" not in record
        desk.assert_agree()
