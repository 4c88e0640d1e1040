"""A foreign program writes numbers of thousands of digits into a sidecar: that agent is mended, the others go on."""

from __future__ import annotations

from tests.faults.scenarios.kit import sidecar
from tests.story.desk import Desk


def test_absurd_sidecar(shared: Desk) -> None:
    """Found by fuzzing: every round of every workspace on that server ended in a traceback."""
    shared.redis.hset(sidecar("mary"), mapping={"version": "9" * 5_000, ".status": "9" * 5_000 + " s - x"})
    shared.hset("gc", status="busy")
    assert shared.apply().exit_code == 0
    assert shared.record("gc")["status"] == "busy"
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "active"
    shared.hset("mary", status="done")
    shared.apply()
    assert shared.record("mary")["status"] == "done"
    shared.assert_agree()
