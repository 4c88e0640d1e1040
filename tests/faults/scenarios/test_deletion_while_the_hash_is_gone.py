"""An agent is deleted whose hash somebody had removed: it goes from the file too, and the history tells the deletion.

Whether Redis was there when it was deleted, or away.
"""

from __future__ import annotations

import pytest

from tests.faults.scenarios.kit import hub, hub_away
from tests.story.desk import Desk


@pytest.mark.parametrize("redis", ["there", "away"])
def test_deletion_while_the_hash_is_gone(shared: Desk, redis: str) -> None:
    """Found by simulated histories: it was put back, or nobody was told."""
    shared.redis.delete("memory:agents:mary")
    with hub(shared) if redis == "there" else hub_away(shared) as memory:
        memory.delete_agent("mary")
    shared.apply()
    assert shared.live("mary") == {}
    assert "mary" not in shared.file()["agents"]
    with hub(shared) as memory:
        assert memory.history("mary")[0].event == "agent_deleted"
    shared.assert_agree()
