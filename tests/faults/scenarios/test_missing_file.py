"""Somebody deletes `context.json`: it is written again from base with everything, and Redis loses nothing."""

from __future__ import annotations

from tests.story.desk import Desk


def test_missing_file(shared: Desk) -> None:
    """Also what was written to Redis after it was gone, and also when its folder went with it."""
    shared.path.unlink()
    shared.path.parent.rmdir()
    shared.hset("mary", status="busy")
    done = shared.apply()
    assert done.exit_code == 0
    assert any("lost or emptied" in note for note in done.plan.notes)
    assert shared.record("mary")["status"] == "busy"
    assert len(shared.file()["agents"]) == 6
    shared.assert_agree()
