"""Fifty writes to one agent while Redis is away: the last word of each key is in the file and then in Redis."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub_away, version
from tests.story.desk import Desk


def test_away_for_many_writes(shared: Desk) -> None:
    """It is a merge of states, not a replay: one version, not fifty."""
    with hub_away(shared) as memory:
        for number in range(50):
            memory.update_agent_context("mary", {f"k{number % 5}": number})
    last = {f"k{number % 5}": number for number in range(45, 50)}
    assert shared.record("mary")["context"] == last
    before = version(shared, "mary")
    shared.apply()
    assert version(shared, "mary") == before + 1
    assert shared.live("mary")["context"] == last
    shared.assert_agree()
