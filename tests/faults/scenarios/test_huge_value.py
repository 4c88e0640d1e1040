"""One agent reports a megabyte in one value: it arrives whole on the other side, and so do the updates of others."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk

HUGE = "ü" * (1 << 19)


def test_huge_value(shared: Desk) -> None:
    """From Redis into the file, byte for byte, and the agents beside it as well."""
    with hub(shared) as memory:
        assert memory.update_agent_context("mary", {"log": HUGE}).won == ("context.log",)
        assert memory.update_agent_context("gc", {"n": 1}).won == ("context.n",)
    assert shared.apply().exit_code == 0
    assert shared.live("mary")["context"]["log"] == HUGE
    assert shared.record("mary")["context"]["log"] == HUGE
    assert shared.record("gc")["context"] == {"n": 1}
    assert shared.diff().in_sync
