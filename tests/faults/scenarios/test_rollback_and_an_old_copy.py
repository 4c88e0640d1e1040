"""An agent is rolled back, then somebody saves the file as it was before: the rollback is a write, and stands."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub, version
from tests.story.desk import Desk


def test_rollback_and_an_old_copy(shared: Desk) -> None:
    """Not undone by the copy, nor by a wipe of the server, nor by a second round."""
    shared.hset("mary", status="good")
    shared.apply()
    good = version(shared, "mary")
    shared.hset("mary", status="bad", insight="bad")
    shared.apply()
    copy = shared.file()
    with hub(shared) as memory:
        memory.rollback("mary", good)
    shared.apply()
    copy["agents"]["gc"]["status"] = "edited"
    shared.save(copy)
    shared.apply()
    shared.redis.flushall()
    shared.apply()
    assert shared.live("mary")["status"] == shared.record("mary")["status"] == "good"
    assert "insight" not in shared.record("mary")
    assert shared.live("gc")["status"] == "edited"
    shared.assert_agree()
