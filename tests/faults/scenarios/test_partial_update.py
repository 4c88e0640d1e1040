"""An agent reports one key of its context: every other key, the status and the other agents stay as they are.

The hub that was there before dropped the other keys and set the status back to `active`.
"""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk


def test_partial_update(shared: Desk) -> None:
    """In Redis at once, and in the file with the next round."""
    shared.set("mary", status="busy", context={"role": "dispatcher", "task": "old"}, insight="likes tea")
    shared.apply()
    with hub(shared) as memory:
        memory.update_agent_context("mary", {"task": "new"})
    assert shared.live("mary")["context"] == {"role": "dispatcher", "task": "new"}
    shared.apply()
    record = shared.record("mary")
    assert (record["status"], record["insight"]) == ("busy", "likes tea")
    assert record["context"] == {"role": "dispatcher", "task": "new"}
    shared.assert_agree()
