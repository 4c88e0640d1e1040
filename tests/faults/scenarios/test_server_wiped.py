"""FLUSHALL wipes the server: a round fills it again, versions go on from where they were, and nothing is lost."""

from __future__ import annotations

from tests.faults.scenarios.kit import version
from tests.story.desk import Desk


def test_server_wiped(shared: Desk) -> None:
    """Also what was written to it after the wipe and before the round is kept: it is newer."""
    shared.hset("mary", status="busy", insight="x")
    shared.apply()
    before = version(shared, "mary")
    shared.redis.flushall()
    shared.hset("gc", status="after the wipe")
    shared.apply()
    assert version(shared, "mary") >= before
    assert (shared.live("mary")["status"], shared.live("mary")["insight"]) == ("busy", "x")
    assert shared.record("gc")["status"] == "after the wipe"
    shared.assert_agree()
