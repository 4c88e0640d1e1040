"""An agent reports again after it was deleted: it is back with what it says now, and with nothing of what it said."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub, version
from tests.story.desk import Desk


def test_newer_write_after_a_deletion(shared: Desk) -> None:
    """Its versions go on, so that no subscriber sees a number twice."""
    shared.set("mary", context={"task": "old"}, insight="old")
    shared.apply()
    with hub(shared) as memory:
        deleted = memory.delete_agent("mary").version
        memory.update_agent_context("mary", {"n": 1})
    shared.apply()
    assert version(shared, "mary") == deleted + 1
    record = shared.record("mary")
    assert record["context"] == {"n": 1}
    assert not {"status", "insight", "last_seen"} & record.keys()
    shared.assert_agree()
