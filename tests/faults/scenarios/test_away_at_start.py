"""A hub starts while Redis is away: it writes to the file at once, and Redis learns it later with its own stamp."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub_away
from tests.registers import registers
from tests.story.desk import Desk


def test_away_at_start(shared: Desk) -> None:
    """Read back at once, from the file too; and dated by when it was made, not by when Redis came back."""
    with hub_away(shared) as memory:
        done = memory.update_agent_context("mary", {"task": "deploy"}, status="busy")
        assert done.store == "file"
        assert memory.get_agent("mary")["context"] == {"task": "deploy"}
    assert shared.record("mary")["context"] == {"task": "deploy"}
    shared.apply()
    assert shared.live("mary")["status"] == "busy"
    assert registers(shared.redis, "mary")["status"].at == done.at
    shared.assert_agree()
