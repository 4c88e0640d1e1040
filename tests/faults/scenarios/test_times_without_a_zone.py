"""A script writes times without a zone: they are local time, with a warning; no agent looks hours younger or older."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_times_without_a_zone(shared: Desk) -> None:
    """The edit lands with the moment that was meant."""
    meant = datetime.fromtimestamp(shared.now() // 1_000_000 - 60, UTC)
    shared.set("mary", status="busy", last_update=meant.astimezone().replace(tzinfo=None).isoformat())
    done = shared.apply()
    assert done.exit_code == 0
    assert "local time" in named(done)
    assert shared.live("mary")["status"] == "busy"
    told = datetime.fromisoformat(shared.live("mary")["last_update"])
    assert abs((told - meant).total_seconds()) < 1
