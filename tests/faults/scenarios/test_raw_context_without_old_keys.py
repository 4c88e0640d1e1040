"""A raw HSET replaces an agent's whole context: the keys that it left out are deleted, and stay in the history."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk


def test_raw_context_without_old_keys(shared: Desk) -> None:
    """What was there can be had again by a rollback."""
    shared.set("mary", context={"role": "dispatcher", "task": "old"})
    shared.apply()
    shared.hset("mary", context='{"task": "new"}')
    shared.apply()
    assert shared.record("mary")["context"] == {"task": "new"}
    with hub(shared) as memory:
        before = memory.history("mary")[1].version
        memory.rollback("mary", before)
    shared.apply()
    assert shared.record("mary")["context"] == {"role": "dispatcher", "task": "old"}
    shared.assert_agree()
