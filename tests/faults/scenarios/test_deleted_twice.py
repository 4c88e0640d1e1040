"""An agent is deleted, brought back by an edit that no round has seen, and deleted again: it is gone everywhere."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk


def test_deleted_twice(shared: Desk) -> None:
    """Found by simulated histories: the second deletion found nothing in Redis to delete."""
    with hub(shared) as memory:
        memory.delete_agent("gc")
        shared.set("gc", status="edited", context={"task": "edited"})
        memory.delete_agent("gc")
    shared.apply()
    assert shared.live("gc") == {}
    assert "gc" not in shared.file()["agents"]
    shared.assert_agree()
