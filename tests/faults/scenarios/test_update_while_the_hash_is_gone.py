"""An agent reports just after its hash was deleted by hand: what it says is added to what it was, nothing else goes."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk


def test_update_while_the_hash_is_gone(shared: Desk) -> None:
    """Found by simulated histories: the one new field was all that was left of the agent."""
    shared.set("mary", context={"role": "dispatcher"}, insight="likes tea")
    shared.apply()
    shared.redis.delete("memory:agents:mary")
    with hub(shared) as memory:
        memory.update_agent_context("mary", {"task": "new"})
    shared.apply()
    record = shared.record("mary")
    assert record["context"] == {"role": "dispatcher", "task": "new"}
    assert (record["status"], record["insight"]) == ("active", "likes tea")
    shared.assert_agree()
