"""A hook's drop waits while its agent is deleted: the older drop does not bring it back, a newer one does."""

from __future__ import annotations

from tests.faults.scenarios.kit import dropped, hub
from tests.story.desk import Desk


def test_drop_for_a_deleted_agent(shared: Desk) -> None:
    """What was dropped before the deletion is in the history and nowhere else."""
    dropped(shared, "mary", task="before")
    with hub(shared) as memory:
        memory.delete_agent("mary")
    shared.apply()
    assert shared.live("mary") == {}
    assert "mary" not in shared.file()["agents"]
    dropped(shared, "mary", task="after")
    shared.apply()
    assert shared.live("mary")["context"] == shared.record("mary")["context"] == {"task": "after"}
    assert "status" not in shared.record("mary")
    shared.assert_agree()
